"""Who is left out, decided before the chart is read, and for all who are admitted at once: few requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, tzinfo

from connectors.admissions.consents import PreferenceRules
from connectors.admissions.encounter import IN_CARE
from connectors.admissions.lookup import CHUNK, read_many
from connectors.admissions.places import Places, Resource, read_places
from connectors.admissions.preferences import Preferences, read_preferences, read_preferences_of
from connectors.admissions.sitelist import ListFile, SiteList, SiteListUnreadable
from connectors.fhir.client import FhirClient
from connectors.fhir.codec import decode, encode
from service.eligibility import Candidate, EligibilityRules, Reason, decide
from service.ports import Admission, AdmissionStore, Clock, DocumentStore, StopScope
from service.summarize import Ready

STOPPED = "stopped"
"""Publishing is stopped for everything: nothing is generated that could not be filed."""
FRESH_S = 300.0
"""For how long what was read of people's wishes holds for the visits of one pass."""
MOST_SINGLY = 500
AT_ONCE = 10 * CHUNK
"""Resources that are objects at a time; a few searches run beside each other."""
_log = logging.getLogger(__name__)


class _Shelf(Mapping[str, Resource]):
    """Resources by reference, each kept as its JSON: as objects, those of ten thousand stays take 40 MB."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def __getitem__(self, reference: str) -> Resource:
        resource: Resource = decode(self._kept[reference])
        return resource

    def __contains__(self, reference: object) -> bool:
        return reference in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, reference: str, resource: Resource) -> None:
        """Keep a resource in place of the one before."""
        self._kept[reference] = encode(resource)


@dataclass
class _Known:
    """What was read, and when."""

    at: float
    patients: _Shelf = field(default_factory=_Shelf)
    encounters: _Shelf = field(default_factory=_Shelf)
    preferences: Preferences = field(default_factory=Preferences)
    places: Places = field(default_factory=Places)
    unread: set[str] = field(default_factory=set)
    """Patients and encounters that could not be read, for another reason than that they are gone."""


@dataclass
class EligibilityScreen:
    """The Screen of a site's rules. What it reads it reads for all admissions at once."""

    client: FhirClient
    store: AdmissionStore
    documents: DocumentStore
    clock: Clock
    zone: tzinfo
    rules: EligibilityRules = field(default_factory=EligibilityRules)
    wishes: PreferenceRules = field(default_factory=PreferenceRules)
    site_list: ListFile | None = None
    fresh_s: float = FRESH_S
    monotonic: Callable[[], float] = time.monotonic
    _known: _Known | None = None
    _one: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def renew(self) -> frozenset[str]:
        """Read anew what people want, for all who are admitted, and return the stays that are seen to go on.

        What cannot be read counts as a no.
        """
        async with self._one:
            known = await self._renew()
        for why, count in known.preferences.odd.items():
            if count:
                _log.warning("Of what patients want: %s %d", why, count)
        return frozenset(one for one, stay in known.encounters.items() if stay.get("status") in IN_CARE)

    async def before(self, admission: Admission) -> str:
        """Return why nobody may read this chart, in one word; empty where it may be read."""
        if any(stop.scope is StopScope.ALL for stop in await asyncio.to_thread(self.documents.stops)):
            return STOPPED
        async with self._one:
            known = await self._fresh()
            if admission.encounter not in known.encounters and admission.encounter not in known.unread:
                await self._read(known, [admission])
        return self._judge(known, admission)

    def after(self, admission: Admission, ready: Ready) -> str:
        """Return why nothing is made of what was read: nothing more is known than before."""
        return ""

    async def _fresh(self) -> _Known:
        if self._known is not None and self.monotonic() - self._known.at <= self.fresh_s:
            return self._known
        return await self._renew()

    async def _renew(self) -> _Known:
        self._known = None  # never twice at once, not in a caller's hand either: ten thousand stays take room
        known = _Known(self.monotonic())
        known.preferences = await read_preferences(self.client, self.wishes)
        admissions = await asyncio.to_thread(self.store.admissions, self.client.base_url)
        await self._read(known, admissions)
        self._known = known
        return known

    async def _read(self, known: _Known, admissions: Sequence[Admission]) -> None:
        """Read patients, stays, their places, and what patients want where that is asked for one by one."""
        await self._read_kind("Patient", {one.patient for one in admissions}, known.patients, known.unread)
        await self._read_kind(
            "Encounter", {one.encounter for one in admissions}, known.encounters, known.unread
        )
        stays = (one.encounter for one in admissions if one.encounter in known.encounters)
        here = (known.encounters[stay] for stay in stays)
        known.places = await read_places(self.client, here, known.places)
        if known.preferences.unknown:
            patients = [known.patients[one.patient] for one in admissions if one.patient in known.patients]
            known.preferences = await read_preferences_of(
                self.client, self.wishes, known.preferences, patients
            )

    async def _read_kind(self, kind: str, references: set[str], shelf: _Shelf, unread: set[str]) -> None:
        ids, singly = sorted(one.partition("/")[2] for one in references if one), MOST_SINGLY
        for start in range(0, len(ids), AT_ONCE):
            lookup = await read_many(self.client, kind, ids[start : start + AT_ONCE], max_singly=singly)
            singly -= lookup.singly
            unread |= {f"{kind}/{one}" for one in lookup.unread}
            for one, resource in lookup.found.items():
                try:
                    shelf.put(f"{kind}/{one}", resource)
                except ValueError:  # no JSON could hold it: nobody can say what it says
                    unread.add(f"{kind}/{one}")

    def _judge(self, known: _Known, admission: Admission) -> str:
        patient, encounter = known.patients.get(admission.patient), known.encounters.get(admission.encounter)
        if patient is None or encounter is None:
            is_unread = {admission.patient, admission.encounter} & known.unread
            return "not_readable" if is_unread else str(Reason.ENDED)
        surroundings = known.places.around(encounter)
        choice = known.preferences.of(
            patient, now=self.clock(), encounter=encounter, places=surroundings.references
        )
        candidate = Candidate(
            patient=patient, encounter=encounter, choice=choice, surroundings=surroundings,
            location=admission.location,
        )  # fmt: skip
        reason = decide(candidate, self.rules, self._listed(), self._today()).reason
        return "" if reason is None else str(reason)

    def _listed(self) -> SiteList | None:
        if self.site_list is None:
            return SiteList()
        try:
            return self.site_list.read()
        except SiteListUnreadable as error:
            _log.error("%s %s", error.message, error.advice)
            return None

    def _today(self) -> date:
        return self.clock().astimezone(self.zone).date()
