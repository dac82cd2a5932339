"""Epicrisis as it is wired, on a socket, beside an EHR on another: its keys, its chart, its calls."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.ports import StoredRun
from service.settings import Settings, load_settings
from service.wiring import build_app, open_store
from tests.browser.conftest import running
from tests.integration.connectors.fault_server import FaultServer, Reply
from tests.unit.api.cds.ehr import RUN, VIEW, jwks, patient, token, unchanged

EHRS = """
[[ehr]]
name = "general"
iss = "{fhir}"
client_id = "epicrisis"
frame_ancestors = ["{root}"]
allow_plain_http = true

[[ehr.cds]]
iss = "https://ehr.hospital.example"
jku = "{root}/jwks.json"
"""


def bundle(*resources: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "Bundle", "type": "searchset", "total": len(resources),
        "entry": [{"resource": dict(one)} for one in resources],
    }  # fmt: skip


@dataclass
class Site:
    """Both sides. Ours may be served by several processes' worth of applications on one database."""

    ehr: FaultServer
    settings: Settings
    run: StoredRun
    addresses: list[str] = field(default_factory=list)

    def token(self, address: str, service: str = VIEW, **more: Any) -> str:
        now = time.time()
        said = {
            "iss": "https://ehr.hospital.example", "aud": f"{address}/cds-services/{service}",
            "iat": now, "exp": now + 120, "jti": str(uuid4()), **more,
        }  # fmt: skip
        return token(said, jku=f"{self.ehr.root_url}/jwks.json")

    def call(self, hook: str = "patient-view", patient_id: str = "1", **more: Any) -> dict[str, Any]:
        context = {"userId": "Practitioner/7", "patientId": patient_id}
        if hook == "encounter-discharge":
            context["encounterId"] = "9"
        return {
            "hook": hook, "hookInstance": str(uuid4()), "fhirServer": self.ehr.base_url, "context": context,
            **more,
        }  # fmt: skip

    async def post(
        self, said: Any, service: str = VIEW, *, address: str = "", shown: str = ""
    ) -> httpx.Response:
        address = address or self.addresses[0]
        bearer = shown or self.token(address, service)
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.post(
                f"{address}/cds-services/{service}",
                headers={"authorization": f"Bearer {bearer}"},
                **({"content": said} if isinstance(said, bytes) else {"json": said}),
            )


@pytest.fixture
async def ehr() -> AsyncIterator[FaultServer]:
    """Keys and a chart that is as it was when the run was made."""
    async with FaultServer() as server:
        server.on("GET", "/jwks.json", Reply(json=jwks(), content_type="application/json"))
        server.on("GET", "/fhir/Patient/1", Reply(json=patient()))
        for kind in ("AllergyIntolerance", "Condition", "MedicationRequest"):
            server.on("GET", f"/fhir/{kind}", Reply(json=bundle(*unchanged(kind))))
        yield server


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serve the application as it is wired; yield its address."""
    with running(build_app(settings)) as address:
        yield address


@pytest.fixture
def site(ehr: FaultServer, tmp_path: Path) -> Iterator[Site]:
    """One summary is stored, and one process serves it."""
    file = tmp_path / "ehrs.toml"
    file.write_text(EHRS.format(fhir=ehr.base_url, root=ehr.root_url))
    settings = load_settings(home=tmp_path / "home", ehrs=file, fhir_url=ehr.base_url, engine="scripted")
    run = replace(RUN, inputs=replace(RUN.inputs, server=ehr.base_url))
    store, audit = open_store(settings)
    store.save(run)
    store.finish(run.run_id, run.state, run.document)
    store.close()
    audit.close()
    with serving(settings) as address:
        yield Site(ehr, settings, run, [address])
