"""What doctor says of the second pass: on or off, how the model did, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures.answers import answer_pairs
from fixtures.engine_double import MODEL, EngineDouble
from service.context.templates import open_library
from service.doctor import Finding, examine
from service.engine.profiles import profile_for
from service.engine.prompt import EngineInfo
from service.engine.scripted import ScriptedEngine
from service.engine.weights import digest_of
from service.entailment import SecondPass
from service.settings import Settings, load_settings
from service.wiring import open_vault


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


async def second_pass(settings: Settings) -> Finding:
    (found,) = (one for one in await examine(settings) if one.name == "second pass")
    return found


async def measure(settings: Settings, model: Path, engine: ScriptedEngine) -> None:
    """Put the probe to an engine, as a run with this model would."""
    vault = open_vault(settings)
    assert vault is not None
    profile = profile_for(str(model))
    info = EngineInfo("model", digest_of(model), "1", profile, profile.context_tokens)
    try:
        await SecondPass(vault).score(engine, info, open_library().load("admission"))
    finally:
        vault.close()


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (ScriptedEngine(answer_pairs(lambda source, text: "no", str)), "on: 24 of 24 right, 0 false yes"),
        (
            ScriptedEngine(),
            "off: 12 of 24 right, 12 false yes; needed are 20, and at most 1 false yes",
        ),
    ],
    ids=["strong", "weak"],
)
async def test_a_local_model_is_shown_as_it_did_before(
    tmp_path: Path, model: Path, engine: ScriptedEngine, said: str
) -> None:
    settings = load_settings(home=tmp_path / "home", model=str(model))
    before = await second_pass(settings)
    assert (before.state, before.detail) == ("missing", "not measured yet")
    await measure(settings, model, engine)
    after = await second_pass(settings)
    assert (after.state, after.detail) == ("ok", said)


async def test_another_model_is_not_shown_the_score_of_this_one(tmp_path: Path, model: Path) -> None:
    settings = load_settings(home=tmp_path / "home", model=str(model))
    await measure(settings, model, ScriptedEngine())
    (model / "model.safetensors").write_text("other weights")
    assert (await second_pass(settings)).detail == "not measured yet"


@pytest.mark.parametrize("given", [{"second_pass": "off"}, {"engine": "scripted"}])
async def test_where_there_is_none_doctor_says_why(
    tmp_path: Path, model: Path, given: dict[str, Any]
) -> None:
    found = await second_pass(load_settings(home=tmp_path / "home", model=str(model), **given))
    assert found.state == "ok"
    assert found.detail.startswith("off: ")


async def test_a_remote_engine_is_measured_now(tmp_path: Path) -> None:
    async with EngineDouble() as double:
        settings = load_settings(home=tmp_path, engine_url=double.base_url + "/v1", model=MODEL)
        found = await second_pass(settings)
    assert found.state == "ok"
    assert found.detail.startswith("off: ")
    assert " of 24 right" in found.detail


async def test_a_remote_engine_that_does_not_answer_is_not_waited_for_again(tmp_path: Path) -> None:
    async with EngineDouble(api_key="secret") as double:
        settings = load_settings(home=tmp_path, engine_url=double.base_url + "/v1", model=MODEL)
        findings = {one.name: one for one in await examine(settings)}
    assert findings["model"].state == "failed"
    assert (findings["second pass"].state, findings["second pass"].detail) == (
        "missing",
        "off: the probe was not answered",
    )
