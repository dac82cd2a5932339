"""What an EHR sent along or lets us read, as far as it is whole and of this patient; and what it shows.

A list counts only where nothing is missing from it: a page of a longer one is none. What is of another
patient refuses the call, for then nobody can tell whose card this would be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from connectors.errors import ConnectorError, NotFoundError
from connectors.fhir.client import FhirClient, parse_page
from connectors.fhir.reference import parse_reference
from service.api.cds.call import Call, Grant
from service.api.cds.outcome import CallRefused
from service.api.cds.services import LISTS, PATIENT
from service.ports import StoredRun

Resource = Mapping[str, Any]
Opener = Callable[[Grant], AbstractAsyncContextManager[FhirClient]]
"""A FHIR client with a grant's token, which is sent to the EHR's own server alone."""
FETCH_S: Final = 1.5
"""How long is waited for the EHR. A card without a comparison is better than one that comes too late."""


@dataclass(frozen=True, slots=True)
class Chart:
    """What is known of a chart now."""

    patient: Resource | None = field(default=None, repr=False)
    lists: Mapping[str, Sequence[Resource]] = field(default_factory=dict, repr=False)
    """Type → all of it. What is not here was not sent whole."""
    refused: frozenset[str] = frozenset()
    """Types that the EHR says it cannot give: they are not asked for again."""


class Change(StrEnum):
    """What comparing a summary with the chart found."""

    NONE = "none"
    SOME = "some"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether the chart has changed, and of which types that could not be told."""

    change: Change
    unread: tuple[str, ...] = ()


def read_prefetch(call: Call, base_url: str) -> Chart:
    """Return what was sent along. Raises CallRefused: another patient (400), or none (412)."""
    patient = _patient(call)
    lists: dict[str, Sequence[Resource]] = {}
    refused: set[str] = set()
    for key, kind in LISTS.items():
        if key not in call.prefetch:
            continue
        sent = call.prefetch[key]
        if isinstance(sent, dict) and sent.get("resourceType") == "OperationOutcome":
            refused.add(kind)
        elif (found := _whole_list(sent, kind)) is not None:
            _check_owners(found, call.patient, base_url)
            lists[kind] = found
    return Chart(patient, lists, frozenset(refused))


async def fetch_missing(call: Call, chart: Chart, open_client: Opener) -> Chart:
    """Read what was not sent, as far as the EHR grants it and answers in time. Raises CallRefused."""
    if call.grant is None:
        return chart
    kinds = [kind for kind in LISTS.values() if kind not in chart.lists and kind not in chart.refused]
    wanted = [kind for kind in kinds if call.grant.may_read(kind)]
    wants_patient = chart.patient is None and call.grant.may_read("Patient")
    if not wanted and not wants_patient:
        return chart
    async with open_client(call.grant) as client:
        patient, found = await asyncio.gather(
            _read_patient(client, call.patient if wants_patient else ""),
            asyncio.gather(*(_read_list(client, kind, call.patient) for kind in wanted)),
        )
    if isinstance(patient, CallRefused):
        raise patient
    lists = {kind: one for kind, one in zip(wanted, found, strict=True) if one is not None}
    for one in lists.values():
        _check_owners(one, call.patient, client.base_url)
    return replace(chart, patient=chart.patient or patient, lists={**chart.lists, **lists})


def is_same_person(run: StoredRun, patient: Resource | None) -> bool:
    """Tell whether a chart is still of the person that was summarised, and in use (SAFETY 1)."""
    if patient is None:
        return True
    links = patient.get("link")
    is_replaced = any(
        isinstance(link, dict) and link.get("type") == "replaced-by"
        for link in (links if isinstance(links, list) else ())
    )
    born = patient.get("birthDate")
    then = run.summary.identity.birth_date
    is_other = isinstance(born, str) and bool(then) and born != then
    return not is_replaced and patient.get("active") is not False and not is_other


def compare(run: StoredRun, chart: Chart) -> Comparison:
    """Compare a stored summary with what is known of its chart now. One change is enough to say so."""
    found = {kind: _changed(run, kind, chart.lists[kind]) for kind in LISTS.values() if kind in chart.lists}
    unread = tuple(kind for kind in LISTS.values() if found.get(kind) is None)
    if any(found.values()):
        return Comparison(Change.SOME, unread)
    return Comparison(Change.UNKNOWN if unread else Change.NONE, unread)


def _patient(call: Call) -> Resource | None:
    """Return the Patient that was sent; None where none was."""
    if PATIENT not in call.prefetch:
        return None
    sent = call.prefetch[PATIENT]
    if not isinstance(sent, dict) or sent.get("resourceType") == "OperationOutcome":
        raise CallRefused(412, "not-found", "The EHR has no record of this patient to send.")
    if sent.get("resourceType") != "Patient" or f"Patient/{sent.get('id')}" != call.patient:
        raise CallRefused(400, "invalid", "The prefetched patient is not the one of the context.")
    return sent


def _whole_list(sent: Any, kind: str) -> Sequence[Resource] | None:
    """Return all of a search's matches; None where something may be missing."""
    if sent is None:
        return ()  # "no data", by the specification: an empty list
    if not isinstance(sent, dict) or sent.get("resourceType") != "Bundle":
        return None
    page = parse_page(sent)
    matches = [one for one in page.resources if one.get("resourceType") == kind]
    is_part = page.next_link is not None or bool(page.outcomes) or (page.total or 0) > len(matches)
    return None if is_part else matches


def _check_owners(resources: Sequence[Resource], patient: str, base_url: str) -> None:
    for one in resources:
        subject = one.get("patient") if "patient" in one else one.get("subject")
        named = subject.get("reference") if isinstance(subject, dict) else None
        found = parse_reference(named, base_url)
        if found is None or str(found._replace(version="")) != patient:
            raise CallRefused(400, "invalid", "What was prefetched is not all of this patient.")


async def _read_patient(client: FhirClient, reference: str) -> Resource | CallRefused | None:
    """Return the Patient; None where it could not be read in time, and why not where there is none."""
    if not reference:
        return None
    try:
        async with asyncio.timeout(FETCH_S):
            patient = await client.read(reference)
    except NotFoundError:
        return CallRefused(412, "not-found", "The EHR's server has no record of this patient.")
    except (ConnectorError, TimeoutError):
        return None
    if f"Patient/{patient.get('id')}" != reference:
        return CallRefused(412, "not-found", "The EHR's server answered with another patient.")
    return patient


async def _read_list(client: FhirClient, kind: str, patient: str) -> Sequence[Resource] | None:
    """Return all of a type; None where it could not be read whole and in time."""
    found: list[Resource] = []
    try:
        async with asyncio.timeout(FETCH_S):
            async for page in client.pages(kind, [("patient", patient.removeprefix("Patient/"))]):
                if page.outcomes:
                    return None
                found += [one for one in page.resources if one.get("resourceType") == kind]
    except (ConnectorError, TimeoutError):
        return None
    return found


def _changed(run: StoredRun, kind: str, resources: Sequence[Resource]) -> bool | None:
    """Tell whether a type has changed since; None where that cannot be told."""
    then = {
        source.reference: source
        for fact in run.summary.facts
        for source in fact.sources
        if source.reference.startswith(f"{kind}/")
    }
    is_unclear = False
    now: set[str] = set()
    for one in resources:
        reference, meta = f"{kind}/{one.get('id')}", one.get("meta")
        meta = meta if isinstance(meta, dict) else {}
        now.add(reference)
        known = then.get(reference)
        if known is not None and known.version and isinstance(meta.get("versionId"), str):
            if known.version != meta["versionId"]:
                return True
            continue
        updated = _instant(meta.get("lastUpdated"))
        if updated is None:
            is_unclear = True
        elif updated > run.read_at:
            return True
    if then.keys() - now:
        return True
    return None if is_unclear else False


def _instant(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else None
