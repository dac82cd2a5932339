"""What a reader must know before a stored text, read live with their own token (SAFETY 22).

Allergies and code status as they stand, critical results and medication changes since the summary had read
the chart. Whatever could not be read says so: nothing is ever silently empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from connectors.fhir.patient import Search
from connectors.fhir.pull import GapReason, Pull
from connectors.fhir.reference import parse_reference
from connectors.fhir.stamp import parse_instant, write_instant
from service.grounding.since import mark_of
from service.grounding.summary import Summary
from service.record.assemble import (
    READER_FAILED,
    UNREADABLE,
    WITHOUT_SUBJECT,
    Policy,
    assemble_record,
    stop_reason,
)
from service.record.conflicts import record_of
from service.record.facts import Fact, Identity, PatientRecord, RequiredKind
from service.record.required import call_previous, required_facts
from service.record.rules import default_rules

LIMIT_S: Final = 4.0
"""How long a reader waits; what has not come by then is said to have failed."""
WITHOUT_A_SUMMARY: Final = timedelta(days=7)
"""How far back results and medication changes go where nothing stored says since when."""
OVERLAP: Final = timedelta(minutes=5)
"""How far before the summary's reading a search begins: clocks differ, and transactions commit late."""
MOST: Final = 20
"""Lines of one part; the rest is counted."""
_ORDERED: Final = ("order", "statement")


class Part(StrEnum):
    """What is read live, in the order in which it is shown."""

    ALLERGIES = "allergies"
    CODE_STATUS = "directives"
    RESULTS = "results"
    MEDICATIONS = "medications"


_TYPES: Final[dict[Part, frozenset[str]]] = {
    Part.ALLERGIES: frozenset({"AllergyIntolerance"}),
    Part.CODE_STATUS: frozenset({"ServiceRequest", "Consent", "Flag", "Observation"}),
    Part.RESULTS: frozenset({"Observation", "DiagnosticReport"}),
    Part.MEDICATIONS: frozenset({"MedicationRequest", "MedicationStatement", "Medication"}),
}
"""Types that a part is read from; one that the server does not offer is no failure, unless it is needed."""
_NEEDED: Final[dict[Part, frozenset[str]]] = {
    Part.ALLERGIES: frozenset({"AllergyIntolerance"}),
    Part.CODE_STATUS: frozenset(),
    Part.RESULTS: frozenset({"Observation"}),
    Part.MEDICATIONS: frozenset({"MedicationRequest"}),
}


class Standing(StrEnum):
    """What a part says where it has no lines, and of the rest where it has some."""

    READ = "read"
    """Everything was read: without lines, there are none."""
    REFUSED = "not permitted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Line:
    """One statement of the chart as it is now."""

    fact: Fact
    text: str
    """The fact's own line; a directive of a former encounter says that it is one."""
    is_new: bool
    """True where the summary did not know of it."""


@dataclass(frozen=True, slots=True)
class LivePart:
    """One of the four, as far as it could be read."""

    part: Part
    lines: tuple[Line, ...]
    hidden: int = 0
    """How many further lines there are."""
    conflict: str = ""
    refused: tuple[str, ...] = ()
    """Resource types that this user may not read."""
    failed: tuple[str, ...] = ()
    """Resource types that could not be read, or not whole."""

    @property
    def standing(self) -> Standing:
        """Return how far it could be read; a failure is said before a refusal."""
        if self.failed:
            return Standing.FAILED
        return Standing.REFUSED if self.refused else Standing.READ


@dataclass(frozen=True, slots=True)
class Live:
    """The four parts, and whose chart they are of."""

    parts: tuple[LivePart, ...]
    identity: Identity | None
    read_at: datetime
    since: datetime
    stop: str = ""
    """Why nothing of this chart may be used: merged away, not active; empty otherwise."""
    is_since_summary: bool = True


class ReadsPart(Protocol):
    """Reads a part of one patient's record as one user."""

    async def pull(self, searches: Sequence[Search]) -> Pull:
        """Return what searches find, with the gaps. Raises ConnectorError without a Patient."""
        ...


async def read_live(
    reads: ReadsPart,
    patient: str,
    *,
    now: datetime,
    summary: Summary | None = None,
    read_up_to: datetime | None = None,
    encounter: str = "",
    policy: Policy | None = None,
    base_url: str = "",
) -> Live:
    """Read the four parts. `summary` had read the chart `read_up_to` then; without one, the last week counts.

    Raises ConnectorError only where the Patient cannot be read, or the token is not good any more.
    """
    since = read_up_to if summary is not None and read_up_to is not None else now - WITHOUT_A_SUMMARY
    pull = await reads.pull(searches_for(patient, since - OVERLAP, encounter))
    live = Live((), None, pull.read_at, since, is_since_summary=summary is not None)
    stop = stop_reason(pull.resources, pull.patient_id)
    if stop:
        return replace(live, stop=stop)
    as_user = replace(policy or Policy(), keep_restricted=True)
    record = await asyncio.to_thread(
        assemble_record, pull.resources, pull.patient_id,
        gaps=pull.gaps, policy=as_user, base_url=base_url, read_at=pull.read_at,
    )  # fmt: skip
    known = frozenset(summary.known) if summary is not None else frozenset()
    parts = parts_of(record, since - OVERLAP, known, encounter)
    return replace(live, parts=parts, identity=record.identity)


def searches_for(patient: str, changed_since: datetime, encounter: str = "") -> list[Search]:
    """Return the searches that the four parts need, each of one type of one patient."""
    subject = ("patient", patient)
    changed = ("_lastUpdated", f"ge{write_instant(changed_since)}")
    directives = ("code", ",".join(_directive_codes()))
    found = [
        Search("AllergyIntolerance", (subject,), "AllergyIntolerance"),
        *(Search(kind, (subject,), kind) for kind in ("ServiceRequest", "Consent", "Flag")),
        Search("Observation", (subject, directives), "Observation"),
        *(
            Search(kind, (subject, changed), kind)
            for kind in ("Observation", "DiagnosticReport", "MedicationRequest", "MedicationStatement")
        ),
    ]
    at_hand = parse_reference(encounter)
    if at_hand is not None:  # by its start a directive is known to be of a former stay
        found.append(Search("Encounter", (subject, ("_id", at_hand.id)), "Encounter"))
    return found


def parts_of(
    record: PatientRecord, changed_since: datetime, known: frozenset[str], encounter: str = ""
) -> tuple[LivePart, ...]:
    """Return the four parts of a partial record. `known` are the marks of what a summary knew."""
    required = {kind.key: kind for kind in required_facts(record, encounter=encounter or None)}

    def is_new(fact: Fact) -> bool:
        return bool(known) and mark_of(fact) not in known

    def has_changed(fact: Fact) -> bool:
        changed_at = parse_instant(fact.updated)
        is_recent = changed_at is None or changed_at >= changed_since
        return is_recent and (not known or mark_of(fact) not in known)

    critical = [fact for fact in _facts(record, required["results"]) if has_changed(fact)]
    drugs = [fact for fact in record.facts if record_of(fact) in _ORDERED and has_changed(fact)]
    drugs.sort(key=lambda fact: (fact.updated, fact.id), reverse=True)
    told = {
        Part.ALLERGIES: _facts(record, required["allergies"]),
        Part.CODE_STATUS: _facts(record, required["directives"]),
        Part.RESULTS: critical,
        Part.MEDICATIONS: drugs,
    }
    return tuple(_part(part, told[part], record, required[part], is_new) for part in Part)


def _part(
    part: Part,
    facts: Sequence[Fact],
    record: PatientRecord,
    required: RequiredKind,
    is_new: Callable[[Fact], bool],
) -> LivePart:
    standing = part in (Part.ALLERGIES, Part.CODE_STATUS)
    shown = facts if standing else facts[:MOST]  # what stands is never cut: the last may be the one
    previous = frozenset(required.previous)
    refused, failed = _missing(record, part)
    return LivePart(
        part=part,
        lines=tuple(
            Line(fact, call_previous(fact) if fact.id in previous else fact.text, is_new(fact))
            for fact in shown
        ),
        hidden=len(facts) - len(shown) + (required.hidden if standing else 0),
        conflict=required.conflict if standing else "",
        refused=refused,
        failed=failed,
    )


def _missing(record: PatientRecord, part: Part) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the types of a part that were refused, and those that could not be read, or not whole."""
    refused: dict[str, None] = {}
    failed: dict[str, None] = {}
    for gap in record.gaps:
        kind = gap.resource_type or ""
        if kind not in _TYPES[part]:
            continue
        if gap.reason in (GapReason.REFUSED, GapReason.SUPPRESSED):
            refused[kind] = None
        elif gap.reason is not GapReason.NOT_SUPPORTED or kind in _NEEDED[part]:
            failed[kind] = None
    for problem in record.problems:
        kind, _, what = problem.partition(": ")
        if kind in _TYPES[part] and what in (UNREADABLE, READER_FAILED, WITHOUT_SUBJECT):
            failed[kind] = None
    return tuple(refused), tuple(failed)


def _directive_codes() -> list[str]:
    """Return the codes by which an observation tells a code status: all observations would be too many."""
    return sorted(f"{system}|{code}" for system, code in default_rules().rule("directives").match.codes)


def _facts(record: PatientRecord, kind: RequiredKind) -> list[Fact]:
    return [record.fact(fact_id) for fact_id in kind.facts]
