"""From checked claims to an answer: what the record bears out of the model's words, then its own lines.

What the question names is told whole or counted: an answer that told one allergy of three would be read as
all of them. Where nothing answers, what was searched is said, and never that there is nothing (SAFETY 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

from service.ask.match import Matched
from service.ask.question import Sought
from service.context.chosen import Context
from service.grounding.complete import RESTRICTED
from service.grounding.summary import Claim, Origin, Verdict
from service.ports.questions import Answer, Standing
from service.record.facts import Absence, Fact, FactId, Kind, PatientRecord, RequiredKind, Status
from service.record.required import call_previous
from service.record.rules import default_rules

LINES: Final = 12
"""Facts that an answer tells; what else matches is counted…"""
LISTED: Final = frozenset(
    {Kind.ALLERGY, Kind.MEDICATION, Kind.PROBLEM, Kind.DIRECTIVE, Kind.FLAG, Kind.DEVICE}
)
LINES_LISTED: Final = 40
"""…but of these kinds so many: a thirteenth allergy may be the one."""
LINES_BESIDE: Final = 5
SECTION: Final = "answer"


def to_tell(matched: Matched) -> tuple[Fact, ...]:
    """Return the facts that an answer tells, by the model's words or by their own lines."""
    first, rest = matched.named[:LINES], matched.named[LINES:]
    return (*first, *(fact for fact in rest if fact.kind in LISTED))[:LINES_LISTED]


def to_ask(matched: Matched) -> tuple[Fact, ...]:
    """Return the facts that a guided model is asked about, one by one."""
    return matched.named[:LINES]


def answer_of(
    sought: Sought,
    matched: Matched,
    record: PatientRecord,
    required: Sequence[RequiredKind],
    context: Context | None,
    judged: Sequence[Claim],
    read_at: datetime,
    engine: str = "",
) -> Answer:
    """Return the answer of a question. `judged` are the model's claims, each with its verdict.

    `context` is what the model was shown; None where it was not asked.
    """
    previous = {fact_id for kind in required for fact_id in kind.previous}
    # What a former encounter ordered is told by its own line alone, which says so (SAFETY 7).
    stands = [c for c in judged if c.verdict is Verdict.SUPPORTED and previous.isdisjoint(c.citations)]
    claims = tuple(_in_order(matched, [*stands, *_own_lines(to_tell(matched), stands, previous)]))
    told = {fact_id for claim in claims for fact_id in claim.citations}
    near = [fact for fact in matched.touched if fact.id not in told]
    beside = () if claims else tuple(_line(fact, previous) for fact in near[:LINES_BESIDE])
    shown = {fact.id for fact in context.facts.values()} if context is not None else set()
    cited = told | {fact_id for claim in beside for fact_id in claim.citations}
    kept = {id(claim) for claim in stands}
    rest = [fact for fact in (matched.named if claims else near[LINES_BESIDE:]) if fact.id not in told]
    return Answer(
        claims=claims,
        beside=beside,
        refused=tuple(claim for claim in judged if id(claim) not in kept),
        facts=tuple(fact for fact in record.facts if fact.id in cited | shown or _is_stay_at_hand(fact)),
        searched=len(record.facts),
        nowhere=matched.nowhere,
        elsewhere=matched.elsewhere,
        standings=tuple(_standings(sought, required)),
        unshown=len(rest),
        advice=sought.advice,
        gaps=record.gaps,
        left_out=context.left_out if context is not None else (),
        restricted=bool(record.skipped.get(RESTRICTED)),
        as_of=record.as_of,
        read_at=read_at,
        engine=engine,
    )


def _is_stay_at_hand(fact: Fact) -> bool:
    """Say whether a fact is a stay that lasts: a ward that is stopped is known by it (SAFETY 24)."""
    return fact.kind is Kind.ENCOUNTER and fact.status is Status.IN_PROGRESS


def _own_lines(facts: Iterable[Fact], claims: Sequence[Claim], previous: set[FactId]) -> Iterator[Claim]:
    """Yield the line of each fact that no sentence of the model tells."""
    told = {fact_id for claim in claims for fact_id in claim.citations}
    return (_line(fact, previous) for fact in facts if fact.id not in told)


def _line(fact: Fact, previous: set[FactId]) -> Claim:
    text = call_previous(fact) if fact.id in previous else fact.text
    return Claim(SECTION, text, (fact.id,), Origin.RECORD, Verdict.SUPPORTED)


def _in_order(matched: Matched, claims: Sequence[Claim]) -> list[Claim]:
    """Sort claims as their facts match; what the model found by itself comes last."""
    place = {fact.id: n for n, fact in enumerate(matched.named)}
    return sorted(claims, key=lambda claim: min(place.get(cite, len(place)) for cite in claim.citations))


def _standings(sought: Sought, required: Sequence[RequiredKind]) -> Iterator[Standing]:
    """Yield what may be said of each kind asked for that is not simply listed, or whose list is cut."""
    keys = {rule.key: rule.kinds for rule in default_rules().rules}
    for kind in required:
        # Identity and results gather many kinds: only those that a question means by name are told.
        is_asked = sought.kinds & keys.get(kind.key, frozenset()) - {Kind.PATIENT, Kind.NOTE}
        if (
            is_asked
            and kind.key not in ("identity", "results", "weight")
            and kind.state is not Absence.LISTED
        ):
            yield Standing(kind.title, kind.state.value, kind.reason)
        elif is_asked and kind.conflict:
            yield Standing(kind.title, "Conflict in the record", kind.conflict)
