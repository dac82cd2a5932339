"""`epicrisis stale` against a real FHIR server: file a summary, write an Observation, ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from fixtures.charts import canary_bundle
from fixtures.servers import SekmetServer
from service.commands import stale
from service.commands.stale import STALE, UNKNOWN
from service.settings import Settings
from service.summarize import Outcome
from service.wiring import open_summarizer
from tests.conftest import CANARY

PATIENT = "stale-1"


@dataclass(frozen=True)
class Hospital:
    server: SekmetServer
    settings: Settings

    def write(self, resource: dict[str, Any]) -> None:
        url = f"{self.server.base_url}/{resource['resourceType']}/{resource['id']}"
        httpx.put(url, json=resource, timeout=30).raise_for_status()

    def ask(self, what: str) -> tuple[int, dict[str, Any]]:
        app = typer.Typer()
        app.callback()(lambda: None)
        stale.register(app)
        done = CliRunner().invoke(app, ["stale", what, "--json"], obj=self.settings)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert CANARY not in done.output
        return done.exit_code, json.loads(done.stdout)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("stale")
    with SekmetServer(folder / "ehr") as server:
        httpx.post(server.base_url, json=canary_bundle(PATIENT), timeout=60).raise_for_status()
        settings = Settings(
            home=folder / "home", fhir_url=server.base_url, fhir_allow_http=True, engine="scripted"
        )
        yield Hospital(server, settings)


def summarize(settings: Settings) -> Outcome:
    async def run() -> Outcome:
        async with open_summarizer(settings, None, lambda stage, detail: None) as summarizer:
            return await summarizer.summarize(PATIENT)

    return asyncio.run(run())


def observation(name: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation", "id": name, "status": "final",
        "subject": {"reference": f"Patient/{PATIENT}"},
        "code": {"coding": [{"system": "http://loinc.org", "code": "2951-2", "display": "Sodium"}]},
        "effectiveDateTime": "2019-03-02T08:00:00Z",
        "valueQuantity": {"value": 140, "unit": "mmol/L"},
    }  # fmt: skip


def test_a_filed_summary_is_fresh_until_an_observation_is_written(hospital: Hospital) -> None:
    outcome = summarize(hospital.settings)
    assert outcome.document
    code, found = hospital.ask(outcome.run_id)
    assert (code, found["freshness"], found["reason"]) == (0, "fresh", "")
    hospital.write(observation("stale-na"))
    code, found = hospital.ask(PATIENT)
    assert (code, found["freshness"]) == (STALE, "stale")
    assert found["run"] == outcome.run_id
    assert found["changes"] == {"Observation": {"new": ["Observation/stale-na"]}}
    assert (found["touches_required"], found["touches_cited"]) == (False, False)
    hospital.server.stop()
    code, found = hospital.ask(outcome.run_id)
    assert (code, found["freshness"]) == (UNKNOWN, "unknown")
    assert "could not be read" in found["reason"]
