"""Reading one patient's record whole, or saying what is missing.

The Patient comes first: without it nothing is returned. After that no failure loses what already came; each
becomes a Gap. `$everything` where the server offers it, else one search per type of the compartment.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from connectors.errors import ConnectorError, Gone, NotFoundError, PatientMoved, UnknownPatient
from connectors.fhir.attachments import fetch_attachments
from connectors.fhir.capabilities import Capabilities
from connectors.fhir.client import FhirClient, Identity, Page, Progress, identity
from connectors.fhir.compartment import COMPARTMENT, search_param
from connectors.fhir.outcome import gap_of_outcome, reason_of_error
from connectors.fhir.packed import Packed
from connectors.fhir.pull import Gap, GapReason, Pull
from connectors.fhir.reference import parse_patient_id, parse_reference
from connectors.http import Params, metered

P = TypeVar("P")
C = TypeVar("C")


async def pull_patient(
    client: FhirClient,
    patient_id: str,
    *,
    now: Callable[[], datetime],
    on_progress: Progress | None = None,
) -> Pull:
    """Return the record of `1` or `Patient/1` with its gaps.

    Raises ConnectorError only when the Patient itself cannot be read, or the server is not R4.
    """
    read_at = now()
    wanted = parse_patient_id(patient_id)
    with metered() as meter:
        gathered = _Gathered(on_progress or _silent)
        patient, capabilities = await _together(_read_patient(client, wanted), client.capabilities())
        gathered.add("Patient", [patient])
        if not capabilities.everything or not await _read_everything(client, wanted, gathered):
            await _search_compartment(client, wanted, capabilities, gathered)
        gathered.gaps += _not_offered(capabilities, gathered.resources)
        await _read_medications(client, gathered)
        attachments = await fetch_attachments(client, gathered.resources, gathered.on_progress)
    return Pull(
        patient_id=wanted,
        resources=gathered.resources,
        gaps=_merge_gaps([*gathered.gaps, *attachments.gaps]),
        read_at=read_at,
        requests=meter.requests,
        bytes_received=meter.bytes,
        binaries=attachments.contents,
    )


async def _together(patient: Coroutine[Any, Any, P], capabilities: Coroutine[Any, Any, C]) -> tuple[P, C]:
    """Await both at once, to their ends. What is wrong with the patient is said first."""
    found, offers = await asyncio.gather(patient, capabilities, return_exceptions=True)
    if isinstance(found, BaseException):
        raise found
    if isinstance(offers, BaseException):
        raise offers
    return found, offers


def _silent(_what: str, _count: int) -> None:
    return None


@dataclass(slots=True)
class _Gathered:
    """What came so far, each version once, in the order of arrival."""

    on_progress: Progress
    resources: Packed = field(default_factory=Packed)
    gaps: list[Gap] = field(default_factory=list)
    _seen: set[Identity] = field(default_factory=set)
    _counts: Counter[str] = field(default_factory=Counter)

    def add(self, what: str, resources: Iterable[dict[str, Any]], size: int = 0) -> None:
        seen, new = self._seen, []
        for resource in resources:
            key = identity(resource)
            if key not in seen or "id" not in resource:
                seen.add(key)
                new.append(resource)
        self.resources.extend(new, size)
        self._counts[what] += len(new)
        self.on_progress(what, self._counts[what])


async def _read_patient(client: FhirClient, patient_id: str) -> dict[str, Any]:
    try:
        patient = await client.read(f"Patient/{patient_id}")
    except Gone:
        raise
    except NotFoundError as error:
        message = f"The server {client.session.origin} has no such patient."
        raise UnknownPatient(message, status=error.status) from None
    if patient.get("id") != patient_id:
        raise PatientMoved("The server answered with another patient than the one asked for.")
    return patient


async def _read_everything(client: FhirClient, patient_id: str, gathered: _Gathered) -> bool:
    """Read `$everything`; False where it broke off, so that searches must complete it."""
    gaps: list[Gap] = []
    search = _Search(f"Patient/{patient_id}/$everything", (), None)
    complete = await _read_pages(client, search, gathered, gaps)
    gathered.gaps += [gap for gap in gaps if complete or gap.reason is GapReason.SUPPRESSED]
    return complete


class _Search(NamedTuple):
    """One paged request. `resource_type` is None where it concerns the whole record."""

    path: str
    query: Params
    resource_type: str | None


async def _search_compartment(
    client: FhirClient, patient_id: str, capabilities: Capabilities, gathered: _Gathered
) -> None:
    subject = f"Patient/{patient_id}"
    searches = [
        _Search(kind, ((search_param(kind, capabilities), subject),), kind)
        for kind in COMPARTMENT
        if capabilities.offers_search(kind)
    ]
    await asyncio.gather(*[_read_pages(client, search, gathered, gathered.gaps) for search in searches])


async def _read_pages(client: FhirClient, search: _Search, gathered: _Gathered, gaps: list[Gap]) -> bool:
    """Gather every page, and append to `gaps` what was hidden or broke off. True at the end."""
    resource_type = search.resource_type
    count = _PageCount(client.limits.page_size)
    query = (*search.query, ("_count", str(client.limits.page_size)))
    try:
        async for page in client.pages(search.path, query):
            gathered.add(resource_type or "record", page.resources, page.size)
            gaps += [gap for o in page.outcomes if (gap := gap_of_outcome(o, resource_type))]
            count.add(page)
    except ConnectorError as error:
        gaps.append(_gap_of_error(error, resource_type, count.pages))
        return False
    if count.fell_short:
        gaps.append(Gap(resource_type, GapReason.PAGING, "The server sent fewer results than it counted."))
        return False
    return True


@dataclass(slots=True)
class _PageCount:
    """Compares what came with what the server counted: a missing `next` link must not go unnoticed."""

    page_size: int
    pages: int = 0
    total: int | None = None
    matches: set[Identity] = field(default_factory=set)
    last_was_full: bool = False

    def add(self, page: Page) -> None:
        self.pages += 1
        self.total = page.total if self.pages == 1 else self.total
        self.matches.update(map(identity, page.resources))
        self.last_was_full = len(page.resources) - page.included == self.page_size

    @property
    def fell_short(self) -> bool:
        """Fewer than counted; or, uncounted, one exactly full page without a link to the next."""
        if self.total is None:
            return self.pages == 1 and self.last_was_full
        return len(self.matches) < self.total


def _gap_of_error(error: ConnectorError, resource_type: str | None, pages_read: int) -> Gap:
    if pages_read:
        return Gap(resource_type, GapReason.PAGING, error.message)
    unknown = isinstance(error, NotFoundError)
    return Gap(resource_type, GapReason.NOT_SUPPORTED if unknown else reason_of_error(error), error.message)


def _not_offered(capabilities: Capabilities, resources: Iterable[dict[str, Any]]) -> list[Gap]:
    """Name the types that could not be asked for. `$everything` finds only what a server indexes, too."""
    came = {str(resource.get("resourceType")) for resource in resources}
    missing = [t for t in COMPARTMENT if not capabilities.offers_search(t) and t not in came]
    detail = "The server's CapabilityStatement offers no search for this type."
    return [Gap(resource_type, GapReason.NOT_SUPPORTED, detail) for resource_type in missing]


async def _read_medications(client: FhirClient, gathered: _Gathered) -> None:
    """Read the Medications that prescriptions refer to and that did not come along: they name the drug."""
    here = {f"{r.get('resourceType')}/{r.get('id')}" for r in gathered.resources}
    wanted = [ref for ref in _medication_references(client, gathered.resources) if ref not in here]
    limit = client.limits.max_medications
    if len(wanted) > limit:
        detail = f"More than {limit} referenced medications; the rest was not read."
        gathered.gaps.append(Gap("Medication", GapReason.TOO_LARGE, detail))
    await asyncio.gather(*[_read_medication(client, ref, gathered) for ref in wanted[:limit]])


async def _read_medication(client: FhirClient, reference: str, gathered: _Gathered) -> None:
    try:
        gathered.add("Medication", [await client.read(reference)])
    except ConnectorError as error:
        gathered.gaps.append(Gap("Medication", reason_of_error(error), error.message))


def _medication_references(client: FhirClient, resources: Iterable[dict[str, Any]]) -> list[str]:
    found: dict[str, None] = {}
    for resource in resources:
        holder = resource.get("medicationReference")
        value = holder.get("reference") if isinstance(holder, dict) else None
        target = parse_reference(value, client.base_url)
        if target is not None and target.resource_type == "Medication":
            found[f"Medication/{target.id}"] = None
    return list(found)


def _merge_gaps(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """Name each (type, reason, detail) once, with how often it happened."""
    counts = Counter(gaps)
    return tuple(
        gap if times == 1 else replace(gap, detail=f"{gap.detail} ({times} times)")
        for gap, times in counts.items()
    )
