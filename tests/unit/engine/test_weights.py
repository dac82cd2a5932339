"""Model folders: which are taken, and what their digest covers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from service.engine.weights import DIGESTS, check_folder, digest_of, resolve_model
from service.errors import EngineError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name, content in {
        "config.json": "{}",
        "model.safetensors": "weights",
        "tokenizer.json": "words",
        "chat_template.jinja": "turns",
        "README.md": "read me",
    }.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def test_a_whole_folder_is_taken(model: Path) -> None:
    assert resolve_model(str(model)) == model


def test_pickled_weights_are_refused_because_they_can_run_code(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(EngineError, match="can run code") as caught:
        check_folder(model)
    assert "safetensors" in caught.value.advice


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no config"):
        check_folder(tmp_path)


def test_a_model_of_which_a_shard_is_missing_is_refused(model: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(EngineError, match="1 of its weight files"):
        check_folder(model)


def test_a_name_that_is_neither_a_folder_nor_in_the_hub_cache_is_refused_without_asking_the_hub() -> None:
    with pytest.raises(EngineError, match="neither a folder nor in this machine's hub cache"):
        resolve_model("nobody/no-such-model")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"]
)
def test_the_digest_covers_weights_tokenizer_template_and_configuration(model: Path, name: str) -> None:
    before = digest_of(model)
    (model / name).write_text("changed content")
    assert digest_of(model) != before


def test_the_digest_does_not_cover_what_shapes_no_text(model: Path) -> None:
    before = digest_of(model)
    (model / "README.md").write_text("other words")
    assert digest_of(model) == before


def test_the_digest_covers_the_names(model: Path) -> None:
    before = digest_of(model)
    (model / "tokenizer.json").rename(model / "tokenizer_config.json")
    assert digest_of(model) != before


def test_the_digest_is_the_same_with_and_without_its_cache(model: Path) -> None:
    first = digest_of(model)
    assert (model / DIGESTS).is_file()
    assert digest_of(model) == first
    (model / DIGESTS).write_text("[not json")
    assert digest_of(model) == first


def test_a_file_of_the_same_size_is_digested_again_when_its_time_changed(model: Path) -> None:
    before = digest_of(model)
    weights = model / "model.safetensors"
    weights.write_text("WEIGHTS")
    os.utime(weights, ns=(1, 1))
    assert digest_of(model) != before


def test_unchanged_files_are_not_read_again(model: Path) -> None:
    before = digest_of(model)
    weights = model / "model.safetensors"
    then = weights.stat()
    weights.write_text("WEIGHTS")
    os.utime(weights, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert digest_of(model) == before
