"""A FHIR server in this process, as one user sees it: types may be refused, fail, hang or be cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from connectors.auth import NoAuth
from connectors.fhir.client import FhirClient
from connectors.fhir.codec import encode
from connectors.http import Patience
from connectors.limits import Limits
from fixtures.sample_run import sample_run
from service.ports import StoredRun
from service.ports.launches import Launch

SERVER = "http://127.0.0.1:8103/fhir"


def outcome(code: str, severity: str = "error") -> dict[str, Any]:
    return {"resourceType": "OperationOutcome", "issue": [{"severity": severity, "code": code}]}


def sample_patient(**more: Any) -> dict[str, Any]:
    """The patient of `sample_run`."""
    return {
        "resourceType": "Patient", "id": "1", "active": True,
        "meta": {"versionId": "2", "lastUpdated": "2026-11-20T00:00:00Z"},
        "name": [{"text": "ZZYZXCANARY, Jane (Mrs)"}], "birthDate": "1951-05-04", "gender": "female",
        "identifier": [
            {"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]},
             "value": "MRN 0049-1187"}
        ],
        **more,
    }  # fmt: skip


def bare(reference: str, version: str = "2", **more: Any) -> dict[str, Any]:
    """A resource that says nothing, in one version."""
    kind, _, resource_id = reference.partition("/")
    meta = {"versionId": version, "lastUpdated": "2026-11-23T00:00:00Z"}
    return {"resourceType": kind, "id": resource_id, "meta": meta, **more}


def of_run(run: StoredRun) -> list[dict[str, Any]]:
    """Every resource that a run's facts came from, in the version that was read."""
    return [bare(fact.source.reference, fact.source.version or "1") for fact in run.summary.facts]


@dataclass
class Chart:
    """The server and the user's rights on it."""

    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    hanging: set[str] = field(default_factory=set)
    outcomes: dict[str, str] = field(default_factory=dict)
    """Type → issue code of an outcome among its results."""
    unsearchable: set[str] = field(default_factory=set)
    """Types that are not searched by `_id`: 400."""
    is_over: bool = False
    is_down: bool = False
    page_size: int = 1000
    asked: list[str] = field(default_factory=list)
    profile: str = "user:abc"

    def put(self, *resources: dict[str, Any]) -> Chart:
        for one in resources:
            self.resources[f"{one['resourceType']}/{one['id']}"] = one
        return self

    def client(self) -> FhirClient:
        auth = NoAuth()
        auth.profile = self.profile
        return FhirClient(
            SERVER, auth=auth, transport=httpx.MockTransport(self._answer), limits=Limits(retries=0),
            patience=Patience(sleep=lambda seconds: asyncio.sleep(0)),
        )  # fmt: skip

    @asynccontextmanager
    async def open(self, launch: Launch) -> AsyncIterator[FhirClient]:
        async with self.client() as client:
            yield client

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        url = urlsplit(str(request.url))
        path = url.path.removeprefix("/fhir/").lstrip("/")
        kind, _, rest = path.partition("/")
        self.asked.append(f"{path}?{url.query}" if url.query else path)
        if self.is_down:
            raise httpx.ConnectError("down")
        if self.is_over:
            return _json(401, outcome("login"))
        if kind in self.hanging:
            await asyncio.Event().wait()
        if kind in self.refused:
            return _json(403, outcome("forbidden"))
        if kind in self.failing:
            return _json(500, outcome("exception"))
        if rest:
            found = self.resources.get(f"{kind}/{rest}")
            return _json(200, found) if found else _json(404, outcome("not-found"))
        return self._search(kind, dict(parse_qsl(url.query)))

    def _search(self, kind: str, query: Mapping[str, str]) -> httpx.Response:
        if "_id" in query and kind in self.unsearchable:
            return _json(400, outcome("not-supported"))
        found = [one for one in self.resources.values() if one["resourceType"] == kind]
        if "_id" in query:
            found = [one for one in found if one["id"] in query["_id"].split(",")]
        if "_lastUpdated" in query:
            since = query["_lastUpdated"].removeprefix("ge")
            found = [one for one in found if one.get("meta", {}).get("lastUpdated", "9") >= since]
        if "code" in query:
            wanted = set(query["code"].split(","))
            found = [one for one in found if wanted & set(_codes(one))]
        size = min(self.page_size, int(query.get("_count", "1000")))
        start = int(query.get("page", "0")) * size
        entries: list[dict[str, Any]] = [{"resource": one} for one in found[start : start + size]]
        if kind in self.outcomes:
            mode = {"mode": "outcome"}
            entries.append({"resource": outcome(self.outcomes[kind], "warning"), "search": mode})
        bundle: dict[str, Any] = {
            "resourceType": "Bundle", "type": "searchset", "total": len(found), "entry": entries
        }  # fmt: skip
        if start + size < len(found):
            more = "&".join(f"{k}={v}" for k, v in {**query, "page": str(start // size + 1)}.items())
            bundle["link"] = [{"relation": "next", "url": f"{SERVER}/{kind}?{more}"}]
        return _json(200, bundle)


def _codes(resource: dict[str, Any]) -> list[str]:
    codings = resource.get("code", {}).get("coding", [])
    return [f"{one.get('system')}|{one.get('code')}" for one in codings]


def _json(status: int, body: Any) -> httpx.Response:
    return httpx.Response(status, content=encode(body), headers={"content-type": "application/fhir+json"})


def sample_chart(**more: Any) -> Chart:
    """The chart of `sample_run`, every resource in the version that was read."""
    return Chart(**more).put(*of_run(sample_run()), sample_patient())
