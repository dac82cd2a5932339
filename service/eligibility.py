"""Whom a scheduled run summarises, and whom not, each with its reason. Pure: values in, a value out.

Not eligible is the answer to every doubt: a no that could not be read, a ward that could not be looked up, a
birth date that is not recorded (SAFETY, "Intended use", 1, 18, 20).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from connectors.admissions.consents import local_reference
from connectors.admissions.encounter import IN_CARE
from connectors.admissions.places import Surroundings, current_places
from connectors.admissions.preferences import Choice, references_of
from connectors.admissions.resolve import Unresolved
from connectors.admissions.sitelist import SiteList
from service.errors import SettingsError
from service.record.facts import Resource
from service.record.fhirjson import Concept, Element
from service.record.identity import age_on
from service.record.labels import is_restricted, security_codes

ADULT_YEARS = 18


class Reason(StrEnum):
    """Why a stay is not summarised by a scheduled run, in the order in which one of several is told.

    What restricts the stay comes before what would say why, so that its kind is not named (SAFETY 20).
    """

    SWITCHED_OFF = "switched_off"
    LIST_UNREADABLE = "list_unreadable"
    WRONG_PATIENT = "wrong_patient"
    INACTIVE = "inactive"
    DECEASED = "deceased"
    ENDED = "ended"
    NOT_BEGUN = "not_begun"
    RESTRICTED = "restricted"
    OPTED_OUT_BY_LIST = "opted_out_by_list"
    OPTED_OUT_BY_FLAG = "opted_out_by_flag"
    OPTED_OUT_BY_CONSENT = "opted_out_by_consent"
    WARD_OPTED_OUT = "ward_opted_out"
    PREFERENCES_UNKNOWN = "preferences_unknown"
    PLACE_UNKNOWN = "place_unknown"
    MINOR = "minor"
    AGE_UNKNOWN = "age_unknown"
    OBSTETRICS = "obstetrics"
    PSYCHIATRY = "psychiatry"


_SENTENCES: Mapping[StrEnum, str] = {
    Reason.SWITCHED_OFF: "Summaries are switched off for the whole house.",
    Reason.LIST_UNREADABLE: "The house's list of opt-outs cannot be read, so nobody is summarised.",
    Reason.WRONG_PATIENT: "The stay is recorded for another patient than the one asked for.",
    Reason.INACTIVE: "This patient record is not in use, or another record replaces it.",
    Reason.DECEASED: "The patient has died.",
    Reason.ENDED: "The stay is over, or was cancelled.",
    Reason.NOT_BEGUN: "The stay has not begun.",
    Reason.RESTRICTED: "Access to this stay is restricted.",
    Reason.OPTED_OUT_BY_LIST: "The patient is on the house's list of opt-outs.",
    Reason.OPTED_OUT_BY_FLAG: "A flag in the patient's record says no to summaries.",
    Reason.OPTED_OUT_BY_CONSENT: "A consent document in the patient's record says no to summaries.",
    Reason.WARD_OPTED_OUT: "This ward takes no part.",
    Reason.PREFERENCES_UNKNOWN: "It could not be read whether the patient said no. It is tried again.",
    Reason.PLACE_UNKNOWN: "It could not be read which ward this is. It is tried again.",
    Reason.MINOR: "The patient is under 18, and summaries for minors are not switched on.",
    Reason.AGE_UNKNOWN: "No birth date is recorded, and summaries for minors are not switched on.",
    Reason.OBSTETRICS: "Summaries for obstetrics are not switched on.",
    Reason.PSYCHIATRY: "Summaries for psychiatry are not switched on.",
    Unresolved.NAMES_NOBODY: "The message names neither a patient nor a stay.",
    Unresolved.UNKNOWN_PATIENT: "The patient's number is not known to the record system.",
    Unresolved.AMBIGUOUS_PATIENT: "The patient's numbers lead to more than one patient.",
    Unresolved.MERGE_UNCLEAR: "The patient record was merged, and it is not clear into which one.",
    Unresolved.UNKNOWN_STAY: "The visit number is not known to the record system.",
    Unresolved.AMBIGUOUS_STAY: "The visit number leads to more than one stay.",
    Unresolved.STAY_OF_ANOTHER_PATIENT: "The visit number belongs to another patient.",
    Unresolved.NO_STAY: "The patient has no stay in progress.",
    Unresolved.ANSWER_HIDDEN: "The record system did not show everything that was asked for.",
    Unresolved.NOT_READABLE: "The record system does not let this record be read.",
    Unresolved.NOT_SEARCHABLE: "The record system cannot be searched by this number.",
}


def sentence_of(reason: StrEnum) -> str:
    """Return what a `Reason` or an `Unresolved` means, for the people of a ward. Raises KeyError."""
    return _SENTENCES[reason]


class Subgroup(StrEnum):
    """Patients outside of the intended use until a site switches them on."""

    MINORS = "minors"
    OBSTETRICS = "obstetrics"
    PSYCHIATRY = "psychiatry"


@dataclass(frozen=True, slots=True)
class Marks:
    """What marks a stay as one of a subgroup: a code, or a word in a name."""

    codes: frozenset[tuple[str, str]] = frozenset()
    words: tuple[re.Pattern[str], ...] = ()

    def mark(self, concepts: Iterable[Concept]) -> bool:
        """Tell whether one of the concepts is marked, by a code or by a text of it."""
        return any(concept.has(self.codes) or any(map(self._names, _texts(concept))) for concept in concepts)

    def _names(self, text: str) -> bool:
        return any(words.search(text) for words in self.words)


@cache
def load_marks(own: Path | None = None) -> Mapping[Subgroup, Marks]:
    """Return what marks a stay as one of a subgroup: `eligibility.toml`, and a site's own file beside it.

    Raises SettingsError where the site's file is not of that form.
    """
    shipped = tomllib.loads(
        resources.files("service").joinpath("eligibility.toml").read_text(encoding="utf-8")
    )
    try:
        added = tomllib.loads(own.read_text(encoding="utf-8")) if own else {}
        if added.keys() - shipped.keys():
            raise ValueError("a table of another name")
        return {
            Subgroup(name): _marks([shipped[name], *([added[name]] if name in added else [])])
            for name in shipped
        }
    except (OSError, ValueError, TypeError, AttributeError, re.error):
        raise SettingsError(
            "The site's file of subgroups cannot be used.",
            'Give tables [obstetrics] and [psychiatry] with codes = ["system|code"] and words = "pattern".',
        ) from None


def _marks(entries: list[Mapping[str, Any]]) -> Marks:
    codes: set[tuple[str, str]] = set()
    words: list[re.Pattern[str]] = []
    for entry in entries:
        if entry.keys() - {"codes", "words"}:
            raise ValueError("a key of another name")
        for text in entry.get("codes", ()):
            system, _, code = text.rpartition("|")
            if not system or not code:
                raise ValueError("a code without its system")
            codes.add((system, code))
        if pattern := entry.get("words"):
            words.append(re.compile(pattern, re.IGNORECASE))
    return Marks(frozenset(codes), tuple(words))


@dataclass(frozen=True, slots=True)
class EligibilityRules:
    """What a site decided."""

    subgroups: frozenset[Subgroup] = frozenset()
    """Those that are switched on."""
    marks: Mapping[Subgroup, Marks] = field(default_factory=load_marks)
    allowed_labels: frozenset[tuple[str, str]] = frozenset()
    """Security labels that this site declared harmless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One stay that might be summarised, with all that was read about it."""

    patient: Resource = field(repr=False)
    encounter: Resource = field(repr=False)
    choice: Choice
    surroundings: Surroundings = field(default_factory=Surroundings)
    retired: tuple[str, ...] = field(default=(), repr=False)
    """Further references of records that this Patient replaces."""
    location: str = field(default="", repr=False)
    """Where the event says that the patient is: a reference, or point of care^room^bed of HL7 v2."""


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Whether a stay may be summarised by a scheduled run; if not, why not."""

    is_eligible: bool
    reason: Reason | None = None


def decide(candidate: Candidate, rules: EligibilityRules, listed: SiteList | None, day: date) -> Eligibility:
    """Return whether this stay may be summarised.

    `listed` is the site's list of opt-outs, None where it could not be read. `day` is the site's today.
    """
    reason = next(reasons_against(candidate, rules, listed, day), None)
    return Eligibility(reason is None, reason)


def reasons_against(
    candidate: Candidate, rules: EligibilityRules, listed: SiteList | None, day: date
) -> Iterator[Reason]:
    """Yield everything that speaks against a summary, what is told first at first."""
    if listed is None:
        yield Reason.LIST_UNREADABLE
    elif listed.is_everyone:
        yield Reason.SWITCHED_OFF
    patient, encounter = _element(candidate.patient), _element(candidate.encounter)
    yield from _against_patient(patient, candidate)
    yield from _against_stay(encounter)
    if any(is_restricted(security_codes(one), rules.allowed_labels) for one in (patient, encounter)):
        yield Reason.RESTRICTED
    yield from _against_wishes(candidate, listed)
    if not candidate.surroundings.is_known:
        yield Reason.PLACE_UNKNOWN
    if Subgroup.MINORS not in rules.subgroups:
        yield from _against_age(patient, day)
    yield from _against_service(encounter, candidate.surroundings, rules)


def _against_patient(patient: Element, candidate: Candidate) -> Iterator[Reason]:
    subject = local_reference(_element(candidate.encounter).child("subject").text("reference"))
    if subject not in (*references_of(candidate.patient), *candidate.retired):
        yield Reason.WRONG_PATIENT
    is_replaced = any(link.text("type") == "replaced-by" for link in patient.children("link"))
    if is_replaced or patient.flag("active") is False:
        yield Reason.INACTIVE
    died = patient.raw.get("deceasedDateTime") is not None or patient.flag("deceasedBoolean") is True
    disposition = _element(candidate.encounter).child("hospitalization").concept("dischargeDisposition")
    if died or any(code.code == "exp" for code in disposition.codes):
        yield Reason.DECEASED


def _against_stay(encounter: Element) -> Iterator[Reason]:
    status = encounter.text("status")
    if status == "planned":
        yield Reason.NOT_BEGUN
    elif status not in IN_CARE:
        yield Reason.ENDED


def _against_wishes(candidate: Candidate, listed: SiteList | None) -> Iterator[Reason]:
    references = (*references_of(candidate.patient), *candidate.retired)
    choice = candidate.choice
    if listed is not None and listed.names_patient(references, candidate.patient):
        yield Reason.OPTED_OUT_BY_LIST
    if choice.flagged:
        yield Reason.OPTED_OUT_BY_FLAG
    if choice.refused:
        yield Reason.OPTED_OUT_BY_CONSENT
    here = (*candidate.surroundings.references, *_names_of_place(candidate.location))
    if choice.ward_flagged or (listed is not None and listed.names_ward(here)):
        yield Reason.WARD_OPTED_OUT
    if not choice.is_known:
        yield Reason.PREFERENCES_UNKNOWN


def _names_of_place(location: str) -> Iterator[str]:
    """Yield a reference as it is; of HL7 v2 the point of care, with its room, and with its bed."""
    if "/" in location and "^" not in location:
        yield local_reference(location)
        return
    parts = location.split("^")
    yield from ("^".join(parts[:count]).rstrip("^") for count in range(1, len(parts) + 1) if parts[0])


def _against_age(patient: Element, day: date) -> Iterator[Reason]:
    age = age_on(patient.text("birthDate"), day)
    if age is None:
        yield Reason.AGE_UNKNOWN
    elif age < ADULT_YEARS:
        yield Reason.MINOR


def _against_service(encounter: Element, around: Surroundings, rules: EligibilityRules) -> Iterator[Reason]:
    concepts = [one for key in ("class", "type", "serviceType") for one in encounter.concepts(key)]
    concepts += _of_places(encounter, around)
    for subgroup, reason in _BY_SERVICE.items():
        if subgroup not in rules.subgroups and rules.marks[subgroup].mark(concepts):
            yield reason


_BY_SERVICE = {Subgroup.OBSTETRICS: Reason.OBSTETRICS, Subgroup.PSYCHIATRY: Reason.PSYCHIATRY}


def _of_places(encounter: Element, around: Surroundings) -> Iterator[Concept]:
    """Yield what is said of the places of a stay, their names too.

    Of the organizations above the provider only the types: a whole hospital may be named after one service.
    """
    provider = encounter.child("serviceProvider")
    here = [_element(place).child("location") for place in current_places(encounter.raw)]
    for holder in (*here, provider):
        yield from holder.concepts("display")
    direct = local_reference(provider.text("reference"))
    for place in map(_element, around.resources):
        yield from place.concepts("type")
        is_location = place.text("resourceType") == "Location"
        if is_location or f"Organization/{place.text('id')}" == direct:
            yield from (*place.concepts("name"), *place.concepts("alias"))


def _texts(concept: Concept) -> tuple[str, ...]:
    return (concept.name, *(code.display for code in concept.codes))


def _element(resource: Any) -> Element:
    return Element(resource if isinstance(resource, dict) else {}, "", set())
