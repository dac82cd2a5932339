"""Which `Patient/id` and which `Encounter/id` of the FHIR server an event speaks of: exactly one, or none.

Two candidates are never weighed against each other: a draft about the wrong patient is worse than none. What
cannot be told apart comes back with its reason; only a server that cannot be asked is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from connectors.admissions.encounter import IN_CARE, Ward, parse_instant, read_encounter, read_subject
from connectors.admissions.events import Event, Identifier, Subject, Visit
from connectors.admissions.lookup import identifier_token, read_many
from connectors.admissions.stays import Phase
from connectors.errors import Forbidden, NotFoundError, RequestRejected
from connectors.fhir.client import FhirClient
from connectors.fhir.codec import dicts
from connectors.fhir.outcome import gap_of_outcome
from connectors.fhir.reference import parse_reference
from connectors.http import Params

Resource = dict[str, Any]

MAX_MERGES = 8
"""Longest chain of `replaced-by` that is followed."""
MAX_PAGES = 4
"""Pages of one search by identifier or patient: a longer answer is not about one patient."""
MAX_IDENTIFIERS = 5
"""Identifiers of one event that are asked for; further ones are the same patient's insurance and the like."""
_INPATIENT = frozenset({"IMP", "ACUTE", "NONAC"})
_OID = re.compile(r"[0-2](\.\d+)+", re.ASCII)


class Unresolved(StrEnum):
    """Why an event has no patient, or no stay, on the FHIR server."""

    NAMES_NOBODY = "names_nobody"
    UNKNOWN_PATIENT = "unknown_patient"
    AMBIGUOUS_PATIENT = "ambiguous_patient"
    MERGE_UNCLEAR = "merge_unclear"
    """The record was replaced, but not by one other record that can be found."""
    UNKNOWN_STAY = "unknown_stay"
    AMBIGUOUS_STAY = "ambiguous_stay"
    STAY_OF_ANOTHER_PATIENT = "stay_of_another_patient"
    NO_STAY = "no_stay"
    """The patient is known, and has no stay in progress of the watched classes."""
    ANSWER_HIDDEN = "answer_hidden"
    """The server left results out: what was left out may be a second patient."""
    NOT_READABLE = "not_readable"
    """The server refuses this one record."""
    NOT_SEARCHABLE = "not_searchable"
    """The server takes no such search, or answers it with everything."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """One event, resolved. `encounter` is empty where `reason` says why; so is `patient`, but for NO_STAY."""

    patient: str = field(default="", repr=False)
    """`Patient/1`, the surviving record."""
    encounter: str = field(default="", repr=False)
    """`Encounter/1`; one that the event names may have ended."""
    reason: Unresolved | None = None
    patient_resource: Resource | None = field(default=None, repr=False)
    """As it was read on the way."""
    encounter_resource: Resource | None = field(default=None, repr=False)
    retired: tuple[str, ...] = field(default=(), repr=False)
    """`Patient/…` that were passed on the way to the surviving one."""


class _Unclear(Exception):
    """Ends the resolving of one event."""

    def __init__(self, reason: Unresolved) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Person:
    resource: Resource
    retired: tuple[str, ...]

    @property
    def reference(self) -> str:
        return f"Patient/{self.resource['id']}"

    @property
    def references(self) -> tuple[str, ...]:
        return (self.reference, *self.retired)


class Resolver:
    """One session of resolving; what it read once it does not read again, so keep it for one sweep only.

    `authorities` maps an HL7 v2 assigning authority (CX-4) or the system of a census to the URI that the FHIR
    server uses. An authority without one is asked for by its value alone.
    """

    def __init__(
        self, client: FhirClient, ward: Ward | None = None, authorities: Mapping[str, str] | None = None
    ) -> None:
        self.client = client
        self.ward = replace(ward or Ward(), locations=(), providers=(), services=())
        self.authorities = dict(authorities or {})
        self.counts: Counter[str] = Counter()
        """How many events ended how: `resolved`, or the reason; and doubts that were no reason."""
        self._patients: dict[str, Resource] = {}
        self._encounters: dict[str, Resource] = {}
        self._by_identifier: dict[tuple[str, str], tuple[Resource, ...]] = {}
        self._stays: dict[str, tuple[Resource, ...]] = {}

    async def prefetch(self, events: Iterable[Event]) -> None:
        """Read the Patients and Encounters that events name by reference, many with one request."""
        events = list(events)
        stays = {id_ for e in events if (id_ := self._id_of(e.visit.reference, "Encounter"))}
        found = await read_many(self.client, "Encounter", stays - self._encounters.keys(), max_singly=0)
        self._encounters |= found.found
        subjects = [e.patient for e in events]
        subjects += [read_subject(r.get("subject"), self.client.base_url) for r in found.found.values()]
        patients = {id_ for subject in subjects if (id_ := self._id_of(subject.reference, "Patient"))}
        people = await read_many(self.client, "Patient", patients - self._patients.keys(), max_singly=0)
        self._patients |= people.found

    async def resolve(self, event: Event) -> Resolved:
        """Return the patient and the stay of one event, or why there is none.

        Raises ConnectorError where the server cannot be asked (unreachable, not authorized, no FHIR).
        """
        try:
            resolved = await self._resolve(event)
        except _Unclear as unclear:
            resolved = Resolved(reason=unclear.reason)
        self.counts[resolved.reason or "resolved"] += 1
        return resolved

    async def _resolve(self, event: Event) -> Resolved:
        person = await self._person(event.patient) if event.patient else None
        encounter = await self._named_stay(event.visit, person) if event.visit else None
        if person is None:
            if encounter is None:
                raise _Unclear(Unresolved.UNKNOWN_STAY if event.visit else Unresolved.NAMES_NOBODY)
            person = await self._person(read_subject(encounter.get("subject"), self.client.base_url))
        elif encounter is not None:
            await self._check_same(encounter, person)
        if encounter is None:
            encounter = await self._stay_in_progress(person, is_numbered=bool(event.visit))
        resolved = Resolved(person.reference, "", None, person.resource, None, person.retired)
        if encounter is None:
            return replace(resolved, reason=Unresolved.NO_STAY)
        return replace(resolved, encounter=f"Encounter/{encounter['id']}", encounter_resource=encounter)

    async def _person(self, subject: Subject) -> _Person:
        if not subject:
            raise _Unclear(Unresolved.NAMES_NOBODY)
        if not subject.reference:
            return await self._person_by_identifiers(subject.identifiers)
        patient_id = self._id_of(subject.reference, "Patient")
        if not patient_id:
            raise _Unclear(Unresolved.UNKNOWN_PATIENT)
        person = await self._survivor(await self._read("Patient", patient_id))
        if any(self._denies(person.resource, one) for one in subject.identifiers):
            raise _Unclear(Unresolved.AMBIGUOUS_PATIENT)
        return person

    async def _person_by_identifiers(self, identifiers: tuple[Identifier, ...]) -> _Person:
        """Ask for each identifier of a known system, else for each by value; all must mean one patient."""
        named = tuple(one for one in identifiers if one.value.strip())
        known = [one for one in named if self._system_of(one)]
        people: dict[str, _Person] = {}
        for identifier in (known or _records_first(named))[:MAX_IDENTIFIERS]:
            for patient in await self._search("Patient", identifier):
                person = await self._survivor(patient)
                people.setdefault(person.reference, person)
        if len(people) > 1:
            raise _Unclear(Unresolved.AMBIGUOUS_PATIENT)
        if not people:
            raise _Unclear(Unresolved.UNKNOWN_PATIENT)
        return next(iter(people.values()))

    async def _survivor(self, patient: Resource) -> _Person:
        """Follow `Patient.link` `replaced-by` (R4 Patient 8.1.6) to the record that is not replaced."""
        passed: list[str] = []
        while targets := self._replacements(patient):
            passed.append(str(patient["id"]))
            (target, *others) = targets
            if others or not target or target in passed or len(passed) > MAX_MERGES:
                raise _Unclear(Unresolved.MERGE_UNCLEAR)
            try:
                patient = await self._read("Patient", target)
            except _Unclear:
                raise _Unclear(Unresolved.MERGE_UNCLEAR) from None
        return _Person(patient, tuple(f"Patient/{one}" for one in passed))

    def _replacements(self, patient: Resource) -> list[str]:
        """Return the id of each record that replaces this one; empty for one that cannot be read."""
        links = [link for link in dicts(patient.get("link")) if link.get("type") == "replaced-by"]
        subjects = [read_subject(link.get("other"), self.client.base_url) for link in links]
        return list(dict.fromkeys(self._id_of(subject.reference, "Patient") for subject in subjects))

    async def _named_stay(self, visit: Visit, person: _Person | None) -> Resource | None:
        """Return the stay that is named by reference or number; None where no stay has this number."""
        encounter_id = self._id_of(visit.reference, "Encounter")
        if encounter_id:
            return await self._read("Encounter", encounter_id)
        if visit.number is None or not visit.number.value.strip():
            raise _Unclear(Unresolved.UNKNOWN_STAY)
        stays = await self._search("Encounter", visit.number)
        if len(stays) > 1 and person is not None:
            stays = tuple([stay for stay in stays if await self._is_of(stay, person)])
        if len(stays) > 1:
            stays = tuple(stay for stay in stays if str(stay.get("status")) in IN_CARE)
            if len(stays) != 1:
                raise _Unclear(Unresolved.AMBIGUOUS_STAY)
        return stays[0] if stays else None

    async def _check_same(self, encounter: Resource, person: _Person) -> None:
        if not await self._is_of(encounter, person):
            raise _Unclear(Unresolved.STAY_OF_ANOTHER_PATIENT)

    async def _is_of(self, encounter: Resource, person: _Person) -> bool:
        subject = read_subject(encounter.get("subject"), self.client.base_url)
        if subject.reference in person.references:
            return True
        try:
            return (await self._person(subject)).reference == person.reference
        except _Unclear:
            return False

    async def _stay_in_progress(self, person: _Person, *, is_numbered: bool) -> Resource | None:
        """Return the stay that is in progress: inpatient before others, the newest first.

        Where the event gives a number that the server does not know, only if there is no other stay that it
        could mean.
        """
        stays = [stay for reference in person.references for stay in await self._open_stays(reference)]
        if not is_numbered:
            return max(stays, key=_precedence, default=None)
        if len(stays) != 1:
            raise _Unclear(Unresolved.UNKNOWN_STAY)
        self.counts["visit_number_unknown"] += 1
        return stays[0]

    async def _open_stays(self, reference: str) -> tuple[Resource, ...]:
        if reference not in self._stays:
            statuses = ",".join(dict.fromkeys((*(self.ward.statuses or sorted(IN_CARE)), "onleave")))
            params = (("patient", reference), ("status", statuses))
            stays = await self._pages("Encounter", params, lambda stay: self._is_open(stay, reference))
            self._encounters |= {str(stay["id"]): stay for stay in stays}
            self._stays[reference] = stays
        return self._stays[reference]

    def _is_open(self, encounter: Resource, reference: str) -> bool:
        stay = read_encounter(encounter, self.ward, self.client.base_url).stay
        return stay is not None and stay.phase is Phase.OPEN and stay.patient.reference == reference

    async def _search(self, resource_type: str, identifier: Identifier) -> tuple[Resource, ...]:
        system, value = self._system_of(identifier), identifier.value.strip()
        key = (resource_type, identifier_token(system, value))
        if key not in self._by_identifier:
            params = (("identifier", key[1]),)
            self._by_identifier[key] = await self._pages(
                resource_type, params, lambda found: _carries(found, system, value)
            )
        return self._by_identifier[key]

    async def _pages(
        self, resource_type: str, params: Params, wanted: Callable[[Resource], bool]
    ) -> tuple[Resource, ...]:
        """Return what a search brings and what is wanted, each once. A server may ignore the parameter."""
        found: dict[str, Resource] = {}
        try:
            async for page in self.client.pages(resource_type, params):
                if any(gap_of_outcome(outcome, resource_type) for outcome in page.outcomes):
                    raise _Unclear(Unresolved.ANSWER_HIDDEN)
                for resource in page.resources:
                    if resource.get("resourceType") == resource_type and isinstance(resource.get("id"), str):
                        found |= {resource["id"]: resource} if wanted(resource) else {}
                if page.number >= MAX_PAGES and page.next_link:
                    raise _Unclear(Unresolved.NOT_SEARCHABLE)
        except (RequestRejected, NotFoundError):
            raise _Unclear(Unresolved.NOT_SEARCHABLE) from None
        return tuple(found.values())

    async def _read(self, resource_type: str, one: str) -> Resource:
        kept = self._patients if resource_type == "Patient" else self._encounters
        if one not in kept:
            try:
                resource = await self.client.read(f"{resource_type}/{one}")
            except NotFoundError:
                raise _Unclear(_UNKNOWN[resource_type]) from None
            except Forbidden:
                raise _Unclear(Unresolved.NOT_READABLE) from None
            if resource.get("id") != one:
                raise _Unclear(_UNKNOWN[resource_type])
            kept[one] = resource
        return kept[one]

    def _id_of(self, reference: str, resource_type: str) -> str:
        found = parse_reference(reference, self.client.base_url)
        return found.id if found and found.resource_type == resource_type else ""

    def _system_of(self, identifier: Identifier) -> str:
        """Return the URI of an identifier's system; empty where nobody said which it is."""
        mapped = self.authorities.get(identifier.system, "")
        if mapped:
            return mapped
        if _OID.fullmatch(identifier.system):
            return f"urn:oid:{identifier.system}"
        return identifier.system if ":" in identifier.system else ""

    def _denies(self, patient: Resource, identifier: Identifier) -> bool:
        """Tell whether a Patient has other identifiers of this system, and not this one."""
        system = self._system_of(identifier)
        same = [one for one in dicts(patient.get("identifier")) if system and one.get("system") == system]
        return bool(same) and not any(
            _carries({"identifier": [one]}, system, identifier.value) for one in same
        )


_UNKNOWN = {"Patient": Unresolved.UNKNOWN_PATIENT, "Encounter": Unresolved.UNKNOWN_STAY}


def _records_first(identifiers: tuple[Identifier, ...]) -> list[Identifier]:
    """Return the medical record numbers (HL7 table 0203, MR and PI) alone, where there are any.

    By value alone an insurance number finds whoever has the same digits as a record number.
    """
    return [one for one in identifiers if one.kind in ("MR", "PI")] or list(identifiers)


def _carries(resource: Resource, system: str, value: str) -> bool:
    wanted = value.strip()
    return any(
        isinstance(one.get("value"), str)
        and one["value"].strip() == wanted
        and (not system or one.get("system") == system)
        for one in dicts(resource.get("identifier"))
    )


def _precedence(encounter: Resource) -> tuple[bool, float, str]:
    held = encounter.get("class")
    code = held.get("code") if isinstance(held, dict) else ""
    period = encounter.get("period")
    start = parse_instant(period.get("start")) if isinstance(period, dict) else None
    return (str(code) in _INPATIENT, start.timestamp() if start else float("-inf"), str(encounter["id"]))
