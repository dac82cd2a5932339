"""Reading one patient's record whole, or saying what is missing.

The Patient comes first: without it nothing is returned. After that no failure loses what already came; each
becomes a Gap. `$everything` where the server offers it, else one search per type of the compartment.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from connectors.errors import ConnectorError, Gone, NotFoundError, PatientMoved, UnknownPatient
from connectors.fhir.attachments import fetch_attachments
from connectors.fhir.capabilities import Capabilities
from connectors.fhir.client import FhirClient, Identity, Page, Progress, identity
from connectors.fhir.compartment import COMPARTMENT, search_param, searched_types
from connectors.fhir.outcome import gap_of_outcome, reason_of_error
from connectors.fhir.packed import Packed
from connectors.fhir.pull import Gap, GapReason, Pull
from connectors.fhir.reference import parse_patient_id, parse_reference, reference_of
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
        gathered = Gathered(on_progress or silent)
        patient, capabilities = await together(read_patient(client, wanted), client.capabilities(own=True))
        gathered.add("Patient", [patient])
        seen_until = seen_by(client, read_at)
        if not capabilities.everything or not await _read_everything(client, wanted, gathered):
            await _search_compartment(client, wanted, capabilities, gathered)
        broken = frozenset(gap.resource_type for gap in gathered.gaps if gap.resource_type)
        gathered.gaps += not_offered(capabilities, gathered.resources)
        await read_medications(client, gathered)
        attachments = await fetch_attachments(client, gathered.resources, gathered.on_progress)
    return Pull(
        patient_id=wanted,
        resources=gathered.resources,
        gaps=merge_gaps([*gathered.gaps, *attachments.gaps]),
        read_at=read_at,
        requests=meter.requests,
        bytes_received=meter.bytes,
        binaries=attachments.contents,
        whole_at=read_at,
        seen_until=seen_until,
        broken=broken,
        capabilities=capabilities,
    )


def seen_by(client: FhirClient, read_at: datetime) -> datetime:
    """Return the instant up to which searches that start now see every change, by the slower clock."""
    return read_at - timedelta(seconds=client.clock_lag_s)


async def together(patient: Coroutine[Any, Any, P], capabilities: Coroutine[Any, Any, C]) -> tuple[P, C]:
    """Await both at once, to their ends. What is wrong with the patient is said first."""
    found, offers = await asyncio.gather(patient, capabilities, return_exceptions=True)
    if isinstance(found, BaseException):
        raise found
    if isinstance(offers, BaseException):
        raise offers
    return found, offers


def silent(_what: str, _count: int) -> None:
    """Tell no one."""


@dataclass(slots=True)
class Gathered:
    """What came so far, each version once, in the order of arrival."""

    on_progress: Progress = silent
    resources: Packed = field(default_factory=Packed)
    gaps: list[Gap] = field(default_factory=list)
    _seen: set[Identity] = field(default_factory=set)
    _counts: Counter[str] = field(default_factory=Counter)

    def add(self, what: str, resources: Iterable[dict[str, Any]], size: int = 0) -> None:
        """Keep what is new among these, and tell how much of it there is by now."""
        seen, new = self._seen, []
        for resource in resources:
            key = identity(resource)
            if key not in seen or "id" not in resource:
                seen.add(key)
                new.append(resource)
        self.resources.extend(new, size)
        self._counts[what] += len(new)
        self.on_progress(what, self._counts[what])


async def read_patient(
    client: FhirClient, patient_id: str, known: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the Patient, `known` where that is still the one. Raises UnknownPatient, Gone, PatientMoved."""
    reference = reference_of(known)
    try:
        patient = await client.read_if_changed(
            f"Patient/{patient_id}", reference.version if reference else ""
        )
    except Gone:
        raise
    except NotFoundError as error:
        message = f"The server {client.session.origin} has no such patient."
        raise UnknownPatient(message, status=error.status) from None
    if patient is None and known is not None:
        return known
    if patient is None or patient.get("id") != patient_id:
        raise PatientMoved("The server answered with another patient than the one asked for.")
    return patient


async def _read_everything(client: FhirClient, patient_id: str, gathered: Gathered) -> bool:
    """Read `$everything`; False where it broke off, so that searches must complete it."""
    gaps: list[Gap] = []
    search = Search(f"Patient/{patient_id}/$everything", (), None)
    complete = await read_pages(client, search, gathered, gaps)
    gathered.gaps += [gap for gap in gaps if complete or gap.reason is GapReason.SUPPRESSED]
    return complete


class Search(NamedTuple):
    """One paged request. `resource_type` is None where it concerns the whole record."""

    path: str
    query: Params
    resource_type: str | None


async def _search_compartment(
    client: FhirClient, patient_id: str, capabilities: Capabilities, gathered: Gathered
) -> None:
    subject = f"Patient/{patient_id}"
    searches = [
        Search(kind, ((search_param(kind, capabilities), subject),), kind)
        for kind in searched_types(capabilities)
    ]
    await asyncio.gather(*[read_pages(client, search, gathered, gathered.gaps) for search in searches])


async def read_pages(
    client: FhirClient,
    search: Search,
    gathered: Gathered,
    gaps: list[Gap],
    fatal: tuple[type[ConnectorError], ...] = (),
) -> bool:
    """Gather every page, and append to `gaps` what was hidden or broke off. True at the end.

    Raises the errors of the kinds in `fatal`.
    """
    resource_type = search.resource_type
    count = _PageCount(client.limits.page_size)
    query = (*search.query, ("_count", str(client.limits.page_size)))
    try:
        async for page in client.pages(search.path, query):
            gathered.add(resource_type or "record", page.resources, page.size)
            gaps += [gap for o in page.outcomes if (gap := gap_of_outcome(o, resource_type))]
            count.add(page)
    except ConnectorError as error:
        if isinstance(error, fatal):
            raise
        gaps.append(gap_of_error(error, resource_type, count.pages))
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


def gap_of_error(error: ConnectorError, resource_type: str | None, pages_read: int) -> Gap:
    """Return the gap that an error leaves, which came after so many pages of a search."""
    if pages_read:
        return Gap(resource_type, GapReason.PAGING, error.message)
    unknown = isinstance(error, NotFoundError)
    return Gap(resource_type, GapReason.NOT_SUPPORTED if unknown else reason_of_error(error), error.message)


def not_offered(capabilities: Capabilities, resources: Iterable[dict[str, Any]]) -> list[Gap]:
    """Name the types that could not be asked for. `$everything` finds only what a server indexes, too."""
    came = {str(resource.get("resourceType")) for resource in resources}
    missing = [t for t in COMPARTMENT if not capabilities.offers_search(t) and t not in came]
    detail = "The server's CapabilityStatement offers no search for this type."
    return [Gap(resource_type, GapReason.NOT_SUPPORTED, detail) for resource_type in missing]


async def read_medications(client: FhirClient, gathered: Gathered) -> None:
    """Read the Medications that prescriptions refer to and that did not come along: they name the drug."""
    here = {f"{r.get('resourceType')}/{r.get('id')}" for r in gathered.resources}
    wanted = [ref for ref in _medication_references(client, gathered.resources) if ref not in here]
    limit = client.limits.max_medications
    if len(wanted) > limit:
        detail = f"More than {limit} referenced medications; the rest was not read."
        gathered.gaps.append(Gap("Medication", GapReason.TOO_LARGE, detail))
    await asyncio.gather(*[_read_medication(client, ref, gathered) for ref in wanted[:limit]])


async def _read_medication(client: FhirClient, reference: str, gathered: Gathered) -> None:
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


def merge_gaps(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """Name each (type, reason, detail) once, with how often it happened."""
    counts = Counter(gaps)
    return tuple(
        gap if times == 1 else replace(gap, detail=f"{gap.detail} ({times} times)")
        for gap, times in counts.items()
    )
