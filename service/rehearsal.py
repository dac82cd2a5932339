"""What a filing would come to on a server, found out with an invented run: nothing is written.

The run states one invented finding of a patient that does not exist.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from connectors.fhir.client import FhirClient
from connectors.fhir.write_offer import Complaint, validate_bundle
from service.filing.desk import Manner
from service.grounding.summary import Claim, Origin, Summary, SummarySection, Verdict
from service.ports import RunId, RunInputs, RunState, StoredRun
from service.record.facts import Absence, Fact, FactId, Identity, Kind, ResourceVersion, Status
from service.writeback.labels import WriteProfile
from service.writeback.profiles import Adapted, adapt
from service.writeback.transaction import build_transaction

_PATIENT = "Patient/epicrisis-rehearsal"
_SOURCE = "Condition/epicrisis-rehearsal"
_AT = datetime(2026, 1, 1, tzinfo=UTC)
_DIGEST = "0" * 64
_NOT_THERE = frozenset({"not-found"})
"""The code for what an invented reference leads to: no fault of what would be written."""


def dropped_by(profile: WriteProfile) -> tuple[str, ...]:
    """Return what a profile leaves out of a document, in words, each once: `attachment application/json`."""
    return _rehearsed(Manner("0", profile)).dropped


async def check_write(client: FhirClient, manner: Manner) -> list[Complaint] | None:
    """Return what the server's `$validate` has against what would be written; None where it offers none.

    Raises ConnectorError where the server does not answer.
    """
    complaints = await validate_bundle(client, _resolved(_rehearsed(manner).bundle))
    if complaints is None:
        return None
    return [one for one in complaints if not one.codes or not set(one.codes) <= _NOT_THERE]


def _rehearsed(manner: Manner) -> Adapted:
    """Return the transaction as this server would get it, whether or not its risk is signed."""
    profile = replace(manner.profile, risk_signed_by="rehearsal")
    bundle = build_transaction(
        _run(), software_version=manner.software_version, profile=profile, sign=manner.sign
    )
    return adapt(bundle, profile)


def _resolved(bundle: dict[str, Any]) -> dict[str, Any]:
    """Return the resources as they would be stored: with references to each other that a server knows."""
    names = {
        entry["fullUrl"]: f"{entry['resource']['resourceType']}/epicrisis-rehearsal"
        for entry in bundle["entry"]
    }
    return {**bundle, "entry": [_renamed(entry, names) for entry in bundle["entry"]]}


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _renamed(held, names) for name, held in value.items()}
    if isinstance(value, list):
        return [_renamed(held, names) for held in value]
    return names.get(value, value) if isinstance(value, str) else value


def _run() -> StoredRun:
    fact = Fact(
        FactId(_SOURCE), Kind.PROBLEM, ResourceVersion(_SOURCE, "1", _DIGEST), "Rehearsal (active)",
        "Rehearsal", status=Status.ACTIVE,
    )  # fmt: skip
    claim = Claim("problem", fact.text, (fact.id,), origin=Origin.RECORD, verdict=Verdict.SUPPORTED)
    summary = Summary(
        kind="history",
        identity=Identity(_PATIENT, "Rehearsal", "2000-01-01", "unknown", "0"),
        sections=(SummarySection("problem", "Active problems", (claim,), Absence.LISTED),),
        refused=(),
        facts=(fact,),
        left_out=(),
        gaps=(),
        incomplete=(),
        as_of=None,
        searched=1,
    )
    return StoredRun(RunId("rehearsal"), _inputs(), RunState.GENERATED, _AT, _AT, (), (), summary)


def _inputs() -> RunInputs:
    return RunInputs(
        key=_DIGEST,
        patient=_PATIENT,
        server="",
        kind="history",
        prompt_id="rehearsal",
        prompt_version="1",
        template_digest=_DIGEST,
        schema_digest=_DIGEST,
        model="rehearsal",
        model_digest=_DIGEST,
        engine_version="0",
        sampling={},
        record_digest=_DIGEST,
        rules_version="1",
        access_profile="system:none",
        budget_tokens=1,
        encounter="Encounter/epicrisis-rehearsal",
    )
