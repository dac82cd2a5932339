"""Everything behind a launch: FHIR server, OAuth server, gateway, engine and application, each for real."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from connectors.fhir.codec import encode
from fixtures.charts import canary_resources, concept
from fixtures.servers import SekmetServer, free_port
from fixtures.smart import SmartEhr
from service.identity.onetime import OneTimeToken
from service.ports import RunId, StoredRun
from service.settings import Settings, load_settings
from service.wiring import build_app
from service.wiring.engines import open_summarizer
from service.wiring.installation import open_store
from tests.browser.conftest import running
from tests.conftest import ROOT

LOINC, SCT = "http://loinc.org", "http://snomed.info/sct"
NOTE = (
    "Progress note\n\nDay two. Fever has settled overnight. Left knee is red and swollen.\n"
    "Plan: continue oral fluids. Colchicine was held because of diarrhoea."
)


def artefacts() -> Path:
    """Return the folder where screenshots are kept: `EPICRISIS_TEST_ARTEFACTS`, or one in the project."""
    named = os.environ.get("EPICRISIS_TEST_ARTEFACTS")  # noqa: TID251 - where a test leaves what it saw
    folder = Path(named) if named else ROOT / ".epicrisis" / "artefacts" / "sidebar"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def chart_of(patient: str) -> list[dict[str, Any]]:
    """The canary's chart, with a stay, a note, an order not to resuscitate and a critical result."""
    subject = {"reference": f"Patient/{patient}"}
    stay = {"reference": f"Encounter/{patient}-stay"}
    return [
        *canary_resources(patient),
        {
            "resourceType": "Encounter", "id": f"{patient}-stay", "subject": subject, "status": "in-progress",
            "class": {"code": "IMP", "display": "inpatient encounter"},
            "period": {"start": "2026-11-22T10:00:00Z"},
        },
        {
            "resourceType": "ServiceRequest", "id": f"{patient}-dnr", "subject": subject, "encounter": stay,
            "status": "active", "intent": "order", "authoredOn": "2026-11-22",
            "code": concept(SCT, "304253006", "Not for resuscitation"),
        },
        potassium(patient, "6.9", f"{patient}-potassium"),
        {
            "resourceType": "DocumentReference", "id": f"{patient}-note", "subject": subject,
            "status": "current", "date": "2026-11-23T08:15:00Z", "type": {"text": "Progress note"},
            "content": [{"attachment": {"contentType": "text/plain",
                                        "data": base64.b64encode(NOTE.encode()).decode()}}],
        },
    ]  # fmt: skip


def potassium(patient: str, value: str, ident: str) -> dict[str, Any]:
    """A result that is critical by the site's table."""
    return {
        "resourceType": "Observation", "id": ident, "subject": {"reference": f"Patient/{patient}"},
        "status": "final", "code": concept(LOINC, "2823-3", "Potassium"),
        "effectiveDateTime": "2026-11-23T05:10:00Z",
        "valueQuantity": {"value": float(value), "unit": "mmol/L"},
        "referenceRange": [{"text": "3.5 to 5.1 mmol/L"}],
        "interpretation": [{"coding": [{"code": "HH"}]}],
    }  # fmt: skip


@dataclass
class Bedside:
    """One hospital with one application."""

    ehr: SmartEhr
    sekmet: SekmetServer
    settings: Settings
    here: str
    one_time: OneTimeToken = field(default_factory=OneTimeToken)
    """Opens the pages to the one user of this machine."""
    asked: list[str] = field(default_factory=list)

    def put(self, *resources: dict[str, Any]) -> None:
        """Write into the chart."""
        for one in resources:
            url = f"{self.sekmet.base_url}/{one['resourceType']}/{one['id']}"
            headers = {"content-type": "application/fhir+json"}
            httpx.put(url, content=encode(one), headers=headers, trust_env=False).raise_for_status()

    def store_summary(self, patient: str, kind: str = "history") -> StoredRun:
        """Have the system make a summary, and keep it as one of the server that launches us."""

        async def make() -> str:
            async with open_summarizer(self.settings, None, lambda stage, detail: None) as summarizer:
                return (await summarizer.summarize(patient, kind=kind, dry_run=True)).run_id

        with ThreadPoolExecutor(1) as other:  # Playwright has a loop of its own in this thread
            run_id = other.submit(lambda: asyncio.run(make())).result()
        store, audit = open_store(self.settings)
        try:
            run = store.get(RunId(run_id))
            assert run is not None
            moved = replace(
                run, run_id=RunId(f"at-ehr-{run_id}"), created_at=datetime.now(UTC),
                inputs=replace(run.inputs, server=self.ehr.iss, key=f"{run.inputs.key[:-2]}{patient:0>2}"),
            )  # fmt: skip
            store.save(moved)
            return moved
        finally:
            store.close()
            audit.close()


@contextmanager
def scripted_server(folder: Path, decode: float = 400.0) -> Iterator[str]:
    """Serve the engine without a model in a process of its own, at a pace at which it can be watched."""
    port = free_port()
    command = [sys.executable, "-m", "service.engine.scripted_server", "--port", str(port)]
    command += ["--seats", "8", "--decode-tokens-per-s", str(decode), "--prefill-tokens-per-s", "100000"]
    with (folder / "engine.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def at_bedside(folder: Path, model: Path | None = None) -> Iterator[Bedside]:
    """Start all of it; without a `model`'s folder the engine is the scripted one."""
    port = free_port()
    with ExitStack() as stack:
        sekmet = stack.enter_context(SekmetServer(folder / "sekmet"))
        here = f"http://127.0.0.1:{port}"
        ehr = stack.enter_context(SmartEhr(folder / "smart", sekmet.base_url, here))
        url = "" if model else stack.enter_context(scripted_server(folder))
        settings = load_settings(
            home=folder / "home", fhir_url=sekmet.base_url, ehrs=ehr.write_config(), engine_url=url,
            model=str(model or "scripted"), second_pass="off",
        )  # fmt: skip
        place = Bedside(ehr, sekmet, settings, here)
        for patient in ehr.patients:
            place.put(*chart_of(patient))
        stack.enter_context(running(build_app(settings, place.one_time), port))
        yield place
