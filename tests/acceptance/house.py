"""A house with wards on a real FHIR server, and one installation that looks after who is admitted there."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from connectors.admissions.encounter import Ward
from fixtures.charts import canary_resources
from service.ports import Admission, FiledDocument
from service.settings import Settings, load_settings
from service.sweep import Report, Watch
from service.wiring import Rounds, open_admissions, open_rounds, open_store

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
NAME = "urn:example:mrn"
VISIT = "urn:example:visit"


@dataclass
class House:
    """One ward that nobody else uses on a server, and a home for one installation."""

    base: str
    home: Path
    tag: str = field(default_factory=lambda: "w" + secrets.token_hex(4))
    settings: dict[str, Any] = field(default_factory=dict)
    server: str = ""
    """Where the installation reaches the server; empty where there is nothing between."""

    def __post_init__(self) -> None:
        self.put({"resourceType": "Location", "id": self.tag, "name": "Ward"})

    @property
    def ward(self) -> str:
        """`Location/…`"""
        return f"Location/{self.tag}"

    def patient(self, number: int) -> str:
        """The id of a patient."""
        return f"{self.tag}-p{number}"

    def stay(self, number: int) -> str:
        """The id of a stay."""
        return f"{self.tag}-e{number}"

    def put(self, resource: dict[str, Any]) -> None:
        """A plain PUT."""
        url = f"{self.base}/{resource['resourceType']}/{resource['id']}"
        httpx.put(url, json=resource, trust_env=False, timeout=60).raise_for_status()

    def get(self, path: str) -> dict[str, Any]:
        """A plain GET."""
        found: dict[str, Any] = httpx.get(f"{self.base}/{path}", trust_env=False, timeout=60).json()
        return found

    def delete(self, path: str) -> None:
        """A plain DELETE."""
        httpx.delete(f"{self.base}/{path}", trust_env=False, timeout=60).raise_for_status()

    def admit(self, *numbers: int, chart: bool = True, **more: Any) -> None:
        """Put charts of patients with their numbers, each in a stay on the ward."""
        for number in numbers:
            resources = canary_resources(self.patient(number))
            resources[0]["identifier"][0]["value"] = f"M{self.tag}{number}"
            self.put_all([*(resources if chart else resources[:1]), self.encounter(number, **more)])

    def put_all(self, resources: Sequence[dict[str, Any]]) -> None:
        """Put resources in one transaction."""
        entries = [
            {"resource": one, "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}}
            for one in resources
        ]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        httpx.post(self.base, json=bundle, trust_env=False, timeout=60).raise_for_status()

    def encounter(self, number: int, status: str = "in-progress", **more: Any) -> dict[str, Any]:
        """One stay."""
        return {
            "resourceType": "Encounter", "id": self.stay(number), "status": status,
            "class": {"system": ACT, "code": "IMP"},
            "identifier": [{"system": VISIT, "value": f"V{self.tag}{number}"}],
            "subject": {"reference": f"Patient/{self.patient(number)}"},
            "period": {"start": "2026-11-20T08:00:00Z"},
            "location": [{"location": {"reference": self.ward}, "status": "active"}],
            **more,
        }  # fmt: skip

    def condition(self, number: int, name: str, text: str) -> None:
        """Record one more problem."""
        self.put(
            {
                "resourceType": "Condition",
                "id": f"{self.patient(number)}-{name}",
                "subject": {"reference": f"Patient/{self.patient(number)}"},
                "code": {"text": text},
            }
        )

    def documents(self, number: int) -> list[tuple[str, str]]:
        """`status` and `docStatus` of what was filed about a patient, oldest first."""
        found = self.get(f"DocumentReference?patient=Patient/{self.patient(number)}&_count=100")
        ours = [e["resource"] for e in found.get("entry", []) if "docStatus" in e["resource"]]
        return [(one["status"], one["docStatus"]) for one in sorted(ours, key=lambda one: str(one["date"]))]

    @property
    def watch(self) -> Watch:
        """Everybody on the ward."""
        return Watch("house", "admission", Ward(locations=(self.ward,)))

    def load(self, **more: Any) -> Settings:
        """The settings of the installation."""
        given = {
            "home": self.home,
            "engine": "scripted",
            "fhir_url": self.server or self.base,
            **self.settings,
            **more,
        }
        return load_settings(**given)

    @asynccontextmanager
    async def open(self, ahead: Callable[[], timedelta] | None = None, **more: Any) -> AsyncIterator[Rounds]:
        """Open what looks after admissions; `ahead` says by how much its clock is ahead."""
        async with open_rounds(self.load(**more), None, lambda stage, detail: None) as rounds:
            if ahead is not None:

                def clock() -> datetime:
                    return datetime.now(UTC) + ahead()

                rounds.sweep.clock = clock
                rounds.sweep.desk = dataclasses.replace(rounds.sweep.desk, clock=clock)
            yield rounds

    async def sweep(self, rounds: Rounds, watch: Watch | None = None) -> Report:
        """Make one pass."""
        report = await rounds.sweep.run(watch or self.watch, f"house@{secrets.token_hex(6)}")
        assert report is not None
        return report

    def admissions(self, *, is_open: bool = True) -> list[Admission]:
        """What is kept of them."""
        with open_admissions(self.load()) as store:
            return list(store.admissions(self.server or self.base, is_open=is_open))

    def admission(self, number: int) -> Admission:
        """What is kept of one stay."""
        with open_admissions(self.load()) as store:
            found = store.find_admission(self.server or self.base, f"Encounter/{self.stay(number)}")
        assert found is not None
        return found

    def rows(self, number: int) -> list[FiledDocument]:
        """What is known of a patient's documents, newest first."""
        store, audit = open_store(self.load())
        try:
            return list(store.documents_of(f"Patient/{self.patient(number)}"))
        finally:
            store.close()
            audit.close()
