"""What of a stored summary one user may see: claim by claim, as far as their token can read its sources now.

Made with another's rights, a summary may say more than its reader may know (SAFETY 21). What is taken out is
counted by kind, and nothing that was taken out is told by a count, a conflict or a "none recorded" either.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol

from connectors.fhir.compartment import COMPARTMENT
from connectors.fhir.pull import GapReason
from connectors.fhir.sight import Reach, Seen, ids_by_type
from service.context.chosen import LeftOut
from service.context.pictures import UNSEEN
from service.context.templates import open_library
from service.grounding.since import KEY as SINCE
from service.grounding.summary import Claim, Summary, SummarySection
from service.record.everyday import say_type
from service.record.facts import Absence, Fact, FactId, Kind
from service.record.rules import Rule, default_rules

TYPES_OF_KIND: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.PATIENT: frozenset({"Patient"}),
    Kind.PROBLEM: frozenset({"Condition", "ClinicalImpression"}),
    Kind.ALLERGY: frozenset({"AllergyIntolerance"}),
    Kind.MEDICATION: frozenset(
        {"MedicationRequest", "MedicationStatement", "MedicationAdministration", "MedicationDispense"}
    ),
    Kind.RESULT: frozenset({"Observation"}),
    Kind.VITAL: frozenset({"Observation"}),
    Kind.SOCIAL: frozenset({"Observation", "QuestionnaireResponse"}),
    Kind.PROCEDURE: frozenset({"Procedure"}),
    Kind.ENCOUNTER: frozenset({"Encounter"}),
    Kind.IMMUNIZATION: frozenset({"Immunization"}),
    Kind.REPORT: frozenset({"DiagnosticReport"}),
    Kind.NOTE: frozenset({"DocumentReference", "DiagnosticReport"}),
    Kind.IMAGING: frozenset({"ImagingStudy", "Media"}),
    Kind.ORDER: frozenset({"ServiceRequest"}),
    Kind.PLAN: frozenset({"CarePlan"}),
    Kind.GOAL: frozenset({"Goal"}),
    Kind.FAMILY_HISTORY: frozenset({"FamilyMemberHistory"}),
    Kind.DEVICE: frozenset({"Device", "DeviceUseStatement"}),
    Kind.FLAG: frozenset({"Flag"}),
    Kind.DIRECTIVE: frozenset({"Consent", "ServiceRequest", "Observation"}),
}
"""The types that facts of a kind are read from: a count of the kind tells of all of them."""
_ALL_TYPES: Final = frozenset(kind for types in TYPES_OF_KIND.values() for kind in types)
_AT_HAND: Final = "encounter"
"""Key of the required kind that no rule describes: the encounter at hand."""
_GONE_WORDS = re.compile(r" \(\d+ earlier statements? changed or gone\)$")


class Why(StrEnum):
    """Why something is withheld."""

    REFUSED = "your account may not read"
    FAILED = "could not be checked now"
    GONE = "not among what your account can read now"
    """The type can be read, these entries cannot: they were deleted, or are kept from this account."""


class Reads(Protocol):
    """Looks at one patient's record as one user."""

    async def see(self, wanted: Mapping[str, Collection[str]]) -> Mapping[str, Seen]:
        """Return what can be read of each type; without ids, whether the type can be read at all."""
        ...


@dataclass(frozen=True, slots=True)
class Sight:
    """What one user could read at one moment."""

    types: Mapping[str, Seen]

    def can_read(self, reference: str) -> bool:
        """Tell whether the resource at `Type/id` was seen."""
        return self.version_of(reference) is not None

    def version_of(self, reference: str) -> str | None:
        """Return the version of a resource that was seen; None for one that was not."""
        seen = self.types.get(reference.partition("/")[0])
        return seen.versions.get(reference) if seen is not None else None

    def is_whole(self, resource_type: str) -> bool:
        """Tell whether a type can be read by this user as far as anybody can."""
        seen = self.types.get(resource_type)
        return seen is not None and seen.reach in (Reach.READ, Reach.NOT_OFFERED)

    def why(self, reference: str) -> Why:
        """Return why a resource was not seen."""
        return self.why_type(reference.partition("/")[0]) or Why.GONE

    def why_type(self, resource_type: str) -> Why | None:
        """Return why a type is not whole; None where it is."""
        seen = self.types.get(resource_type)
        if seen is not None and seen.reach is Reach.REFUSED:
            return Why.REFUSED
        return None if self.is_whole(resource_type) else Why.FAILED

    @property
    def has_ended(self) -> bool:
        """Tell whether the user's token is not good any more."""
        return any(seen.has_ended for seen in self.types.values())

    @property
    def has_failed(self) -> bool:
        """Tell whether nothing at all could be looked at, although nobody refused it."""
        return bool(self.types) and all(seen.reach is Reach.FAILED for seen in self.types.values())


@dataclass(frozen=True, slots=True)
class WithheldType:
    """What is withheld of one type, for one reason."""

    resource_type: str
    why: Why
    claims: int
    """Statements that rest on it; 0 where only a count or an absence rested on it."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """How much of a summary a user does not see, of which types, and what moved since it was made."""

    claims: int = 0
    types: tuple[WithheldType, ...] = ()
    changed: frozenset[FactId] = field(default_factory=frozenset)
    """Cited facts whose resource has another version now."""

    def __bool__(self) -> bool:
        return bool(self.claims or self.types)


async def look(reads: Reads, summary: Summary) -> Sight:
    """Return what the user behind `reads` can read of all that a summary's statements rest on."""
    return await look_at(reads, cited_facts(summary), _types_told(summary))


async def look_at(reads: Reads, facts: Iterable[Fact], types: Iterable[str] = ()) -> Sight:
    """Return what can be read of the sources of some facts, and whether further types can be read at all."""
    sources = (source.reference for fact in facts for source in fact.sources)
    wanted: dict[str, set[str]] = {kind: set() for kind in types if kind in COMPARTMENT or kind == "Patient"}
    for kind, ids in ids_by_type(sources).items():
        wanted.setdefault(kind, set()).update(ids)
    return Sight(await reads.see(wanted))


def cited_facts(summary: Summary) -> tuple[Fact, ...]:
    """Return the facts that published statements cite."""
    cited = {fact_id for claim in summary.published for fact_id in claim.citations}
    return tuple(fact for fact in summary.facts if fact.id in cited)


def sources_seen(fact: Fact, sight: Sight) -> Fact | None:
    """Return a fact with the sources that this user can read; None where its own source is not one."""
    if not sight.can_read(fact.source.reference):
        return None
    return replace(fact, copies=tuple(copy for copy in fact.copies if sight.can_read(copy.reference)))


def has_moved(fact: Fact, sight: Sight) -> bool:
    """Tell whether a fact's source has another version now than the one that was read."""
    now = sight.version_of(fact.source.reference)
    then = fact.source.version or fact.source.updated
    return bool(now) and bool(then) and now != then


def seen_by(summary: Summary, sight: Sight) -> tuple[Summary, Withheld]:
    """Return the summary as one user may see it, and an account of what they do not see.

    Facts that no statement cites are left out: nobody looked whether the user can read them.
    """
    return _View(summary, sight).seen()


class _View:
    """One summary through one user's eyes."""

    def __init__(self, summary: Summary, sight: Sight) -> None:
        self._summary, self._sight = summary, sight
        self._askable = _can_be_asked(summary)
        self._cited = cited_facts(summary)
        seen = (sources_seen(fact, sight) for fact in self._cited)
        self._facts = {fact.id: fact for fact in seen if fact is not None}
        self._unseen = {fact.id: fact for fact in self._cited if fact.id not in self._facts}
        self._hidden_types = {fact.source.reference.partition("/")[0] for fact in self._unseen.values()}

    def seen(self) -> tuple[Summary, Withheld]:
        summary, withheld = self._summary, self._withheld()
        sections = tuple(filter(None, map(self._section, summary.sections)))
        refused = tuple(replace(claim, text="", citations=(), reasons=()) for claim in summary.refused)
        newly_missing = tuple(
            section.title for section in sections if self._is_essential(section) and self._is_cut(section)
        )
        return replace(
            summary,
            sections=sections,
            refused=refused,
            facts=tuple(self._facts.values()),
            left_out=tuple(filter(self._may_count, summary.left_out)),
            incomplete=tuple(dict.fromkeys((*summary.incomplete, *newly_missing))),
            as_of=None if withheld else summary.as_of,
            searched=0 if withheld else summary.searched,
            known=(),
        ), withheld

    def _withheld(self) -> Withheld:
        rests_on = [self._missing_of(claim) for claim in self._summary.published]
        counts = Counter(one for missing in rests_on for one in missing)
        told = {kind: why for kind in self._types_looked_at() if (why := self._sight.why_type(kind))}
        absent = ((kind, why) for kind, why in told.items() if (kind, why) not in counts)
        return Withheld(
            claims=sum(bool(missing) for missing in rests_on),
            types=tuple(
                WithheldType(kind, why, counts[kind, why]) for kind, why in sorted({*counts, *absent})
            ),
            changed=frozenset(fact.id for fact in self._facts.values() if has_moved(fact, self._sight)),
        )

    def _types_looked_at(self) -> frozenset[str]:
        return frozenset(self._sight.types) | _types_told(self._summary)

    def _missing_of(self, claim: Claim) -> frozenset[tuple[str, Why]]:
        """Return the (type, reason) pairs for which a claim is withheld; none where it is shown."""
        references = [
            self._unseen[fact_id].source.reference for fact_id in claim.citations if fact_id in self._unseen
        ]
        return frozenset((one.partition("/")[0], self._sight.why(one)) for one in references)

    def _section(self, section: SummarySection) -> SummarySection | None:
        claims = tuple(claim for claim in section.claims if not self._missing_of(claim))
        is_cut = self._is_cut(section) or len(claims) < len(section.claims)
        conflict = section.conflict if self._may_tell_conflict(section) else ""
        found = replace(section, claims=claims, conflict=conflict, hidden=0 if is_cut else section.hidden)
        if section.key == SINCE:
            return self._since(found)
        lacking = self._lacking(section)
        if section.state is None or not lacking:
            return found
        reason = "; ".join(filter(None, (_reason_words(lacking, bool(claims)), section.reason)))
        return replace(found, state=Absence.NOT_RETRIEVED, reason=reason)

    def _since(self, section: SummarySection) -> SummarySection:
        """Keep what is new, without counts of what the reader may not know of."""
        if not self._unseen and not self._lacking_any():
            return section
        return replace(section, title=_GONE_WORDS.sub("", section.title), hidden=0)

    def _lacking_any(self) -> bool:
        return any(not self._sight.is_whole(kind) for kind in self._sight.types)

    def _lacking(self, section: SummarySection) -> list[tuple[str, Why]]:
        """Return the types of a required section that this user cannot read whole."""
        types = sorted(_types_of(self._summary, section))
        missing = ((kind, self._sight.why_type(kind)) for kind in types if kind in self._askable)
        hidden = [
            (kind, Why.GONE) for kind in types if kind in self._hidden_types and self._sight.is_whole(kind)
        ]
        return [*((kind, why) for kind, why in missing if why), *hidden]

    def _is_cut(self, section: SummarySection) -> bool:
        if section.state is not None and self._lacking(section):
            return True
        return any(self._missing_of(claim) for claim in section.claims)

    def _is_essential(self, section: SummarySection) -> bool:
        rules = _rules_of(self._summary, section)
        return any(key == _AT_HAND or (rule is not None and rule.essential) for key, rule in rules)

    def _may_tell_conflict(self, section: SummarySection) -> bool:
        """Tell whether all that a conflict can be between is seen: its sentence names what it is between."""
        if not section.conflict:
            return True
        types = set(_types_of(self._summary, section))
        for _, rule in _rules_of(self._summary, section):
            if rule is not None and rule.conflict == "medications":
                types |= TYPES_OF_KIND[Kind.ALLERGY]
            if rule is not None and rule.conflict == "weights":
                types.add("Observation")
        asked = types & self._askable
        return all(self._sight.is_whole(kind) and kind not in self._hidden_types for kind in asked)

    def _may_count(self, left_out: LeftOut) -> bool:
        types = _types_counted(left_out) & self._askable
        return all(self._sight.is_whole(kind) and kind not in self._hidden_types for kind in types)


def _types_told(summary: Summary) -> frozenset[str]:
    """Return the types of which a summary says something that it does not cite: an absence, a count."""
    told = [_types_of(summary, section) for section in summary.sections if section.state is not None]
    told += [_types_counted(left_out) for left_out in summary.left_out]
    if any(section.conflict for section in summary.sections):
        told.append(TYPES_OF_KIND[Kind.ALLERGY] | {"Observation"})
    return frozenset(kind for types in told for kind in types) & _can_be_asked(summary)


def _can_be_asked(summary: Summary) -> frozenset[str]:
    """Return the types that can be searched for a patient; not those that the server has for nobody."""
    never = {gap.resource_type for gap in summary.gaps if gap.reason is GapReason.NOT_SUPPORTED}
    return frozenset({*COMPARTMENT, "Patient"} - never)


def _types_counted(left_out: LeftOut) -> frozenset[str]:
    if left_out.kind.startswith("ai_"):  # counts of what an AI wrote into documents and notes
        return TYPES_OF_KIND[Kind.NOTE]
    if left_out.kind == UNSEEN:  # documents keep pictures too
        return TYPES_OF_KIND[Kind.IMAGING] | {"DocumentReference"}
    try:
        return TYPES_OF_KIND[Kind(left_out.kind)]
    except ValueError:
        return _ALL_TYPES


def _types_of(summary: Summary, section: SummarySection) -> frozenset[str]:
    """Return the types that a required section speaks of; all of them where nobody knows the section."""
    rules = _rules_of(summary, section)
    if section.state is not None and not rules:
        return _ALL_TYPES
    types = [TYPES_OF_KIND[Kind.ENCOUNTER] if rule is None else rule.types | rule.also for _, rule in rules]
    return frozenset(kind for of_rule in types for kind in of_rule)


def _rules_of(summary: Summary, section: SummarySection) -> list[tuple[str, Rule | None]]:
    """Return the required kinds under a heading: by its template set, or by its own key."""
    known = {rule.key: rule for rule in default_rules().rules}
    try:
        rules = open_library().load(summary.kind).sections
    except KeyError:
        rules = ()
    keys = next((rule.required for rule in rules if rule.key == section.key), (section.key,))
    return [(key, known.get(key)) for key in keys if key in known or key == _AT_HAND]


def _reason_words(lacking: Iterable[tuple[str, Why]], has_claims: bool) -> str:
    """`not shown: your account may not read allergies`"""
    parts: dict[Why, list[str]] = {}
    for kind, why in lacking:
        parts.setdefault(why, []).append(say_type(kind))
    said = {
        Why.REFUSED: "your account may not read {}",
        Why.FAILED: "what your account may read of {} could not be checked now",
        Why.GONE: "some {} are not among what your account can read now",
    }
    words = "; ".join(said[why].format(", ".join(names)) for why, names in parts.items())
    return f"not shown{' in part' if has_claims else ''}: {words}"
