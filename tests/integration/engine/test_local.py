"""The local engine's own decisions, with a stand-in for vLLM's process."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.engines import stand_in
from service.engine.local import LocalEngine
from service.engine.profiles import profile_for
from service.engine.prompt import Message, Prompt, Sampling
from service.errors import EngineError

PROMPT = Prompt((Message("user", "Hello."),), Sampling(5))


def local(folder: Path, state_dir: Path) -> LocalEngine:
    environment = {"PATH": "/usr/bin:/bin", "HF_TOKEN": "secret"}
    return LocalEngine(
        folder, state_dir=state_dir, profile=profile_for(""), base_environment=environment, command=stand_in
    )


async def test_nothing_is_started_before_the_first_use(tmp_path: Path) -> None:
    async with local(tmp_path, tmp_path / "state") as engine:
        assert engine.server.starts == 0
    assert not (tmp_path / "state").exists()


async def test_a_model_folder_that_is_missing_is_said_before_anything_is_started(tmp_path: Path) -> None:
    async with local(tmp_path / "nowhere", tmp_path / "state") as engine:
        with pytest.raises(EngineError, match=r"no model in .*nowhere"):
            await engine.generate(PROMPT)
        assert engine.server.starts == 0


async def test_pickled_weights_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    async with local(tmp_path, tmp_path / "state") as engine:
        with pytest.raises(EngineError, match="pickled"):
            await engine.count_tokens(PROMPT.messages)
        assert engine.server.starts == 0


async def test_a_closed_engine_stays_closed(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    engine = local(tmp_path, tmp_path / "state")
    await engine.aclose()
    with pytest.raises(EngineError, match="stopped"):
        await engine.generate(PROMPT)
