"""A server with one chart that falls short on purpose, as servers do. It also takes batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from connectors.fhir.pull import Pull
from tests.integration.connectors.chart import PATIENT, bundle, capability_statement
from tests.integration.connectors.fault_server import FaultServer, Reply, Request

LOADED = datetime(2026, 11, 24, 7, 0, tzinfo=UTC)
READ = LOADED + timedelta(hours=1)
LATER = READ + timedelta(hours=1)
TYPES = ("Observation", "Condition", "AllergyIntolerance", "Encounter", "DocumentReference", "CarePlan")
NOT_FOUND = {"resourceType": "OperationOutcome", "issue": [{"code": "not-found"}]}


@dataclass
class Hospital:
    """A server with one chart. Its flags are the ways in which servers fall short."""

    server: FaultServer
    types: tuple[str, ...] = TYPES
    searchable: tuple[str, ...] = TYPES
    everything: bool = False
    ignores_last_updated: bool = False
    ignores_since: bool = False
    counts: bool = True
    batches: bool = False
    chart: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, Reply] = field(default_factory=dict)
    """Type → what its searches answer instead."""

    def open(self) -> None:
        """Let the server answer for this hospital."""
        statement = capability_statement(*self.searchable, everything=self.everything, batch=self.batches)
        self.server.on("GET", "/fhir/metadata", Reply(json=statement))
        self.server.on("GET", "/fhir/Patient/p1", self._read)
        self.server.on("GET", "/fhir/Patient/p1/$everything", self._everything)
        for kind in self.searchable:
            self.server.on("GET", f"/fhir/{kind}", self._search)
        if self.batches:
            self.server.on("POST", "/fhir", self.answer_batch)
        if not self.chart:
            self.put(PATIENT["resourceType"], "p1", at=LOADED, name=PATIENT["name"])

    def put(self, kind: str, resource_id: str, at: datetime = LATER, **fields: Any) -> None:
        """Create a resource, or write its next version."""
        before = self.chart.get((kind, resource_id), {"meta": {"versionId": "0"}})
        version = str(int(before["meta"]["versionId"]) + 1)
        meta = {"versionId": version, "lastUpdated": at.isoformat()}
        self.chart[kind, resource_id] = {"resourceType": kind, "id": resource_id, "meta": meta, **fields}
        self.server.on("GET", f"/fhir/{kind}/{resource_id}", self._read)

    def delete(self, kind: str, resource_id: str) -> None:
        """Delete a resource: 410 from now on."""
        del self.chart[kind, resource_id]

    def held(self) -> set[tuple[str, str, str]]:
        """What a pull should hold."""
        return {(kind, i, r["meta"]["versionId"]) for (kind, i), r in self.chart.items()}

    def _read(self, request: Request) -> Reply:
        _, _, kind, resource_id = request.path.split("/")
        resource = self.chart.get((kind, resource_id))
        if resource is None:
            return Reply(410, json=NOT_FOUND)
        tag = f'W/"{resource["meta"]["versionId"]}"'
        return Reply(304) if request.headers.get("if-none-match") == tag else Reply(json=resource)

    def _everything(self, request: Request) -> Reply:
        since = dict(request.query).get("_since", "")
        found = [r for r in self.chart.values() if self.ignores_since or r["meta"]["lastUpdated"] >= since]
        return Reply(json=bundle(*found))

    def _search(self, request: Request) -> Reply:
        kind, query = request.path.removeprefix("/fhir/"), dict(request.query)
        if kind in self.answers:
            return self.answers[kind]
        since = "" if self.ignores_last_updated else query.get("_lastUpdated", "").removeprefix("ge")
        found = [r for (k, _), r in self.chart.items() if k == kind and r["meta"]["lastUpdated"] >= since]
        total: dict[str, Any] = {"total": len(found)} if self.counts else {}
        if query.get("_summary") == "count":
            return Reply(json=bundle(**total))
        if "_elements" in query:
            found = [{name: r[name] for name in ("resourceType", "id", "meta")} for r in found]
        return Reply(json=bundle(*found[: int(query["_count"])], **total))

    def answer_batch(self, request: Request) -> Reply:
        """Answer each entry as the request of its own would be answered."""
        said = [self._answer_entry(entry["request"]) for entry in request.json["entry"]]
        return Reply(json={"resourceType": "Bundle", "type": "batch-response", "entry": said})

    def _answer_entry(self, asked: dict[str, str]) -> dict[str, Any]:
        parts = urlsplit(asked["url"])
        headers = {"if-none-match": asked["ifNoneMatch"]} if "ifNoneMatch" in asked else {}
        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        answer = self.server.answer(Request(asked["method"], f"/fhir/{parts.path}", query, headers, b""))
        if not isinstance(answer, Reply):
            return {"response": {"status": "500 Internal Server Error"}}
        body = "resource" if answer.status == 200 else "outcome"
        response: dict[str, Any] = {"status": f"{answer.status} X"}
        if answer.json is None:
            return {"response": response}
        if body == "outcome":
            return {"response": {**response, "outcome": answer.json}}
        return {"response": response, "resource": answer.json}


def held(pull: Pull) -> set[tuple[str, str, str]]:
    """What a pull holds."""
    return {(r["resourceType"], r["id"], r["meta"]["versionId"]) for r in pull.resources}
