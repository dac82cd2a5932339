"""A small chart with the canary surname, as a FHIR server would send it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.conftest import CANARY
from tests.integration.connectors.fault_server import FaultServer, Reply

READ_AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "meta": {"versionId": "3"},
    "name": [{"family": CANARY}],
}


def resource(kind: str, resource_id: str, **fields: Any) -> dict[str, Any]:
    """Return a resource in version 1."""
    return {"resourceType": kind, "id": resource_id, "meta": {"versionId": "1"}, **fields}


def bundle(*resources: dict[str, Any], next_link: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a searchset."""
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": "next", "url": next_link}] if next_link else [],
        "entry": [{"resource": r, "search": {"mode": "match"}} for r in resources],
        **fields,
    }


def outcome_entry(code: str) -> dict[str, Any]:
    """Return a Bundle entry that says what was left out."""
    issue = {"severity": "warning", "code": code, "diagnostics": f"{CANARY} was hidden"}
    return {
        "resource": {"resourceType": "OperationOutcome", "issue": [issue]},
        "search": {"mode": "outcome"},
    }


def capability_statement(
    *types: str,
    everything: bool = False,
    transaction: bool = False,
    conditional_create: bool = True,
    batch: bool = False,
) -> dict[str, Any]:
    """Return a CapabilityStatement that offers a search for each type."""
    operations = {"operation": [{"name": "everything"}]} if everything else {}
    resources = [
        {
            "type": kind,
            "interaction": [{"code": "search-type"}],
            "conditionalCreate": conditional_create,
            **(operations if kind == "Patient" else {}),
        }
        for kind in ("Patient", *types)
    ]
    offered = {"transaction": transaction, "batch": batch}
    interaction = [{"code": code} for code, is_offered in offered.items() if is_offered]
    rest = [{"mode": "server", "resource": resources, "interaction": interaction}]
    return {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": rest}


def serve_chart(server: FaultServer, *types: str, everything: bool = False) -> None:
    """Let the server offer the patient and an empty answer for each type."""
    server.on("GET", "/fhir/metadata", Reply(json=capability_statement(*types, everything=everything)))
    server.on("GET", "/fhir/Patient/p1", Reply(json=PATIENT))
    for kind in types:
        server.on("GET", f"/fhir/{kind}", Reply(json=bundle()))
