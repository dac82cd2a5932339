"""Questions that the record can answer, made by code: each names something that is recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from service.ask.question import QuestionError, read_question
from service.context.pivot import in_order
from service.grounding.wording import plain_name
from service.record.facts import Fact, Kind, Status

MOST: Final = 5
_LONGEST_NAME: Final = 40


def suggest(facts: Iterable[Fact]) -> tuple[str, ...]:
    """Return up to five questions about these facts, none about what is not among them."""
    return tuple(islice(dict.fromkeys(_questions(list(facts))), MOST))


def _questions(facts: list[Fact]) -> Iterator[str]:
    kinds = Counter(fact.kind for fact in facts)
    if name := _telling(facts, Kind.RESULT):
        yield f"What was the last {name}?"
    if any(fact.kind is Kind.MEDICATION and fact.status is Status.ACTIVE for fact in facts):
        yield "Which medications are current?"
    if kinds[Kind.ALLERGY]:
        yield "Which allergies are recorded?"
    if any(fact.kind is Kind.ENCOUNTER and fact.category.startswith("inpatient") for fact in facts):
        yield "When was the last admission?"
    if name := _telling(facts, Kind.VITAL):
        yield f"What was the last {name}?"
    if name := _telling(facts, Kind.PROCEDURE):
        yield f"When was the last {name}?"
    if any(fact.kind is Kind.PROBLEM and fact.status is Status.ACTIVE for fact in facts):
        yield "Which problems are active?"
    if kinds[Kind.IMMUNIZATION]:
        yield "Which immunizations are recorded?"
    if kinds[Kind.ENCOUNTER]:
        yield "When was the last visit?"
    if kinds[Kind.ORDER]:
        yield "Which orders are pending?"
    if kinds[Kind.FAMILY_HISTORY]:
        yield "What is the family history?"


def _telling(facts: list[Fact], kind: Kind) -> str:
    """Return the name of the newest flagged fact of a kind, else of the one that is recorded most often."""
    named = [(fact, name) for fact in facts if fact.kind is kind and (name := _askable(fact.name))]
    flagged = [(in_order(fact), name) for fact, name in named if fact.flags]
    if flagged:
        return max(flagged)[1]
    often = Counter(name for _, name in named)
    return min(often, key=lambda name: (-often[name], name), default="")


def _askable(recorded: str) -> str:
    """Return a name as a question may hold it; empty where it is too long, or nobody could type it."""
    try:
        name = read_question(plain_name(recorded))
    except QuestionError:
        return ""
    return name if len(name) <= _LONGEST_NAME else ""
