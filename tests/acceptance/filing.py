"""A desk before a real FHIR server, with its own store, and plain looks at what the server then holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from connectors.limits import Limits
from service.filing.desk import Desk, Manner
from service.filing.publish import Published, publish
from service.ports import RunId, StoredRun
from service.store.database import open_cipher
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from tests.unit.writeback.charts import CREATED, make_run

ACTOR = "system:test"


@dataclass
class Hands:
    """One installation at work on one server."""

    desk: Desk
    base: str
    store: SqlStore
    log: SqlAuditLog
    now: datetime
    _written: int = field(default=0)

    def later(self, **more: float) -> None:
        """Let time pass."""
        self.now += timedelta(**more)

    def draft(self, number: str, **more: Any) -> StoredRun:
        """Store a generated run: `number` tells its key and id, the later of two the newer."""
        self.later(minutes=1)
        inputs = more.pop("inputs", {})
        patient = more.pop("patient", "Patient/77")
        run = make_run(
            key=number.rjust(64, "0"),
            run_id=RunId(f"run-{number}"),
            created_at=self.now,
            read_at=self.now,
            patient=patient,
            **more,
        )
        identity = replace(run.summary.identity, reference=patient)
        run = replace(
            run, inputs=replace(run.inputs, **inputs), summary=replace(run.summary, identity=identity)
        )
        self.store.save(run)
        return run

    async def publish(self, run: StoredRun) -> Published:
        """File a run as the use case does, and keep what became of it."""
        done = await publish(self.desk, run, ACTOR)
        self.store.finish(run.run_id, done.state, done.document)
        return done

    async def file(self, number: str, **more: Any) -> str:
        """Draft and file, and return `DocumentReference/7`."""
        return (await self.publish(self.draft(number, **more))).document.partition("/_history")[0]

    def get(self, reference: str) -> dict[str, Any]:
        """A plain GET."""
        found: dict[str, Any] = httpx.get(f"{self.base}/{reference}", trust_env=False).json()
        return found

    def put(self, resource: dict[str, Any]) -> None:
        """Someone else's edit."""
        url = f"{self.base}/{resource['resourceType']}/{resource['id']}"
        httpx.put(url, json=resource, trust_env=False).raise_for_status()

    def search(self, query: str) -> list[dict[str, Any]]:
        """A plain search."""
        found = httpx.get(f"{self.base}/{query}", trust_env=False, timeout=60).json()
        return [entry["resource"] for entry in found.get("entry", [])]

    def states(self, *references: str) -> list[tuple[str, str]]:
        """`status` and `docStatus` of each."""
        found = [self.get(reference) for reference in references]
        return [(one["status"], one["docStatus"]) for one in found]

    def provenances(self, document: str) -> list[str]:
        """The activities of every Provenance whose first target is a document, whatever the version."""
        return sorted(
            one["activity"]["coding"][0]["code"]
            for one in self.search("Provenance?_count=1000")
            if document in one["target"][0]["reference"].split("/_history")[0]
        )


@asynccontextmanager
async def hands_on(base: str, home: Path, **manner: Any) -> AsyncIterator[Hands]:
    """Open a desk; the server gets the patient that the runs are about."""
    home.mkdir(exist_ok=True)
    url = f"sqlite:///{home}/epicrisis.db"
    cipher = open_cipher(home / "key", url)
    store, log = SqlStore(url, cipher), SqlAuditLog(url, cipher)
    patient = {"resourceType": "Patient", "id": "77"}
    async with FhirClient(base, limits=Limits(read_s=30, total_s=60)) as client:
        await client.update(patient)
        ehr = FhirEhr(client)
        hands = Hands(None, base, store, log, CREATED)  # type: ignore[arg-type]
        hands.desk = Desk(ehr, store, store, log, lambda: hands.now, Manner("0.1.0", **manner))
        try:
            yield hands
        finally:
            store.close()
            log.close()
