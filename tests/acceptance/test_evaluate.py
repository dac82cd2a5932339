"""A model tried on a cohort, against another, before a schedule may use it; what quality says afterwards."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures.answers import change_numbers, copy_lines
from fixtures.servers import SekmetServer
from service.engine.scripted_server import ScriptedServer
from service.ports import RunId
from service.ports.attesting import Act, Attested, Disposal, Edit
from service.ports.quality import EvaluationId
from service.settings import load_settings
from service.store.attesting import SqlAttesting
from service.store.quality import SqlQuality
from service.wiring import open_store, utc_now
from service.wiring.installation import database_of
from tests.acceptance.conftest import Ended, Run
from tests.acceptance.house import House
from tests.acceptance.test_audit import actions
from tests.conftest import CANARY

EDITED = "The clinician's own words about this."


@dataclass(frozen=True)
class Models:
    """Two models behind one protocol each: one copies its lines, one changes every number."""

    copying: str
    changing: str


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    servers = [
        ScriptedServer(answer=copy_lines, model="copying"),
        ScriptedServer(answer=change_numbers, model="changing"),
    ]
    for server in servers:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    yield Models(*(f"{server.base_url}/v1" for server in servers))
    for server in servers:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def house(sekmet: SekmetServer, tmp_path: Path) -> House:
    made = House(sekmet.base_url, tmp_path / "home")
    made.admit(1, 2, 3)
    return made


@pytest.fixture
def given(house: House, models: Models, tmp_path: Path) -> dict[str, str]:
    limits = tmp_path / "quality.toml"
    limits.write_text("[gate]\nsupport_low = 0.8\ncontradicted_high = 0.2\n")
    return {
        "EPICRISIS_FHIR_URL": house.base,
        "EPICRISIS_ENGINE": "vllm",
        "EPICRISIS_ENGINE_URL": models.copying,
        "EPICRISIS_MODEL": "copying",
        "EPICRISIS_PROFILE": "scripted",
        "EPICRISIS_QUALITY": str(limits),
        "EPICRISIS_SECOND_PASS": "off",
    }


def silent(ended: Ended, house: House) -> Any:
    for text in (CANARY, house.tag):
        assert text not in ended.stdout
        assert text not in ended.stderr
    return ended.json


def test_a_model_is_compared_with_another_and_no_schedule_uses_it_before_it_is_released(
    house: House, models: Models, given: dict[str, str], epicrisis: Run, tmp_path: Path
) -> None:
    cohort = tmp_path / "cohort.txt"
    cohort.write_text(f"# three charts\nPatient/{house.patient(1)}\n{house.patient(2)}\n")
    listed = tmp_path / "list.txt"
    listed.write_text(f"Patient/{house.patient(1)}\n")
    sweep = ("sweep", "--list", str(listed), "--kind", "history", "--json")
    gated = given | {"EPICRISIS_GATE": "on", "EPICRISIS_SWEEP_KIND": "history"}

    refused = epicrisis(*sweep, **gated)
    assert (refused.code, refused.json["error"]["code"]) == (23, "gate")
    assert "it was never evaluated" in refused.json["error"]["message"]
    assert refused.json["error"]["advice"] == "Run: epicrisis evaluate --kind history --cohort FILE"
    findings = {one["name"]: one for one in epicrisis("doctor", "--json", **gated).json["findings"]}
    assert findings["release gate"]["state"] == "missing"

    against = f"model=changing,url={models.changing},profile=scripted"
    out = tmp_path / "reports"
    arguments = ("evaluate", house.patient(3), "--cohort", str(cohort), "--kind", "history")
    ended = epicrisis(*arguments, "--against", against, "--out", str(out), "--json", **gated)
    report = silent(ended, house)
    assert ended.code == 0
    good, bad = report["arms"]
    assert (good["charts"], bad["charts"], report["paired"]["charts"]) == (3, 3, 3)
    assert (good["gate"]["is_passed"], bad["gate"]["is_passed"]) == (True, False)
    assert [one["measures"]["coverage"]["value"] for one in (good, bad)] == [1.0, 1.0]
    assert report["paired"]["differences"]["support"]["low"] > 0
    assert report["paired"]["facts"]["told_by_second_alone"] == 0
    (stored,) = out.glob("*.json")
    assert json.loads(stored.read_text()) == report
    (page,) = out.glob("*.html")
    html = page.read_text()
    assert "Evaluation of <bdi>copying" in html
    assert not any(word in html for word in (CANARY, house.tag, "<script", "href=", "src="))

    # Nothing of it is a summary: for no list, no look-up, no recall, and not for the server.
    assert [house.documents(number) for number in (1, 2, 3)] == [[], [], []]
    assert epicrisis("runs", "--json", **gated).json == {"total": 0, "runs": []}
    assert epicrisis("recall", "--model", "copying", "--json", **gated).json["documents"] == []
    for run_id in shadow_ids(house, report["evaluation"]):
        assert epicrisis("show", run_id, "--json", **gated).code == 3
        assert epicrisis("stale", run_id, "--json", **gated).code not in (0, 12, 13)

    released = epicrisis(*sweep, **gated)
    assert (released.code, silent(released, house)["runs"]) == (0, 1)
    findings = {one["name"]: one for one in epicrisis("doctor", "--json", **gated).json["findings"]}
    assert findings["release gate"]["state"] == "ok"
    worse = gated | {"EPICRISIS_MODEL": "changing", "EPICRISIS_ENGINE_URL": models.changing}
    kept_out = epicrisis(*sweep, **worse)
    assert kept_out.code == 23
    assert "support, lower bound" in kept_out.json["error"]["message"]
    assert "configure" in {action for action, _ in actions(house.home)}

    told = silent(epicrisis("quality", "--json", **gated), house)
    (series,) = told["series"]
    assert (series["model"], series["runs"]) == ("copying", 1)
    assert series["measures"]["support"][0]["value"] > 0.8
    shown = epicrisis("quality", **gated)
    assert "Support" in shown.stdout


def shadow_ids(house: House, evaluation: str) -> list[RunId]:
    store = SqlQuality(*database_of(load_settings(home=house.home)))
    shadows = [store.shadows(EvaluationId(evaluation), arm) for arm in (0, 1)]
    store.close()
    found = [one.run.run_id for arm in shadows for one in arm.values()]
    assert len(found) == 6
    return found[::3]


def attest_an_edit(house: House, run_id: RunId, patient: str) -> str:
    """Do what a clinician does in the console, straight in its store: one edit, one attestation."""
    settings = load_settings(home=house.home)
    store, audit = open_store(settings)
    run = store.get(run_id)
    assert run is not None
    ordinal = next(n for n, one in enumerate(run.summary.published) if one.origin.value == "model")
    before, now = run.summary.published[ordinal].text, utc_now()
    attesting = SqlAttesting(*database_of(settings))
    attesting.dispose(
        Disposal(run_id, patient, "user:c", "Practitioner/7", Act.EDITED, now, ordinal),
        Edit(run_id, ordinal, before, EDITED, 20, "Practitioner/7", now, "user:c"),
    )
    attesting.keep_attested(
        Attested(
            run_id, patient, "DocumentReference/1", "Practitioner/7", "user:c",
            now - timedelta(minutes=2), now, 1, 20, sum(len(one.text) for one in run.summary.published),
        )
    )  # fmt: skip
    for one in (attesting, store, audit):
        one.close()
    return before


def test_attested_edits_are_handed_out_for_training_without_those_who_said_no(
    house: House, given: dict[str, str], epicrisis: Run, tmp_path: Path
) -> None:
    texts = {}
    for number in (1, 2, 3):
        made = epicrisis("summarize", house.patient(number), "--dry-run", "--json", **given).json
        patient = f"Patient/{house.patient(number)}"
        texts[number] = attest_an_edit(house, RunId(made["run_id"]), patient)
    house.put(
        {
            "resourceType": "Consent", "id": f"{house.tag}-no", "status": "active",
            "scope": {"coding": [{"code": "patient-privacy"}]},
            "category": [{"coding": [{"code": "OPTOUT"}]}],
            "patient": {"reference": f"Patient/{house.patient(2)}"},
        }
    )  # fmt: skip
    optout = tmp_path / "optout.toml"
    optout.write_text(f'patients = ["Patient/{house.patient(3)}"]\n')
    given |= {"EPICRISIS_OPT_OUT_LIST": str(optout)}
    out = tmp_path / "training.jsonl"

    ended = epicrisis("quality", "export", "--out", str(out), "--json", **given)
    report = silent(ended, house)
    assert (ended.code, report["rows"], report["patients"]) == (0, 1, 1)
    assert report["left_out"] == {"opted_out_by_consent": 1, "opted_out_by_list": 1}
    assert out.stat().st_mode & 0o777 == 0o600
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    answer = row["messages"][-1]
    assert answer["role"] == "assistant"
    assert EDITED in answer["content"]
    assert texts[1] not in [claim["text"] for claim in json.loads(answer["content"])["claims"]]
    assert ("export", "training set") in actions(house.home)
    again = epicrisis("quality", "export", "--out", str(out), "--json", **given)
    assert (again.code, again.json["error"]["code"]) == (3, "settings")
    assert json.loads(out.read_text()) == row

    edited = epicrisis("quality", "--json", **given).json["series"][0]["measures"]["edited"]
    assert edited[0]["n"] == 3
