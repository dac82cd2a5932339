"""What a sentence must not lose of a fact: status, certainty, a denial, `as needed`, a whole dosage."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from service.grounding.order import says_refuted
from service.grounding.source import Source, content
from service.grounding.summary import Verdict
from service.grounding.words import NEGATIONS, NumberToken, Sentence, fold, take_apart, words_of
from service.record.facts import Kind, Status

Finding = tuple[Verdict, str]

MUST_SAY = frozenset(
    {
        Status.RESOLVED,
        Status.INACTIVE,
        Status.REFUTED,
        Status.PLANNED,
        Status.ON_HOLD,
        Status.STOPPED,
        Status.CANCELLED,
        Status.NOT_DONE,
        Status.PRELIMINARY,
    }
)
"""Statuses that a sentence must name: without the word it would say something else."""

STATUS_WORDS = frozenset(
    "active resolved inactive refuted planned hold completed stopped cancelled done preliminary corrected "
    "remission relapse recurrence confirmed provisional suspected ordered given dispensed".split()
)
_OWN_STATUS_WORDS = {
    Kind.MEDICATION: frozenset(("given", "dispensed")),
    Kind.ORDER: frozenset(("plan", "due")),
}
"""Words of a line that say its status as well as the status's name does."""
_PIECES = frozenset("tablet capsule pill puff patch suppository drop dose".split())
_TELLS_HOW_OFTEN = frozenset(
    "time every each per day daily hour hourly week weekly night nightly once twice".split()
)
_AS_NEEDED = re.compile(r"\bas needed\b|\bp\.?r\.?n\b", re.IGNORECASE)


def lost_status(sentence: Sentence, sources: Sequence[Source], plain: str) -> Iterator[Finding]:
    """No status and no negation of a cited fact is lost, and none is lent to another fact."""
    said = set(sentence.words)
    names = {source.fact.name for source in sources if source.fact.kind is Kind.PLAN}
    statuses = {
        source.fact.status
        for source in sources
        # A status beside a plan and what is done under it is the plan's.
        if source.fact.kind is not Kind.PATIENT and dict(source.fact.details).get("plan") not in names
    }
    if len(statuses) > 1 and said & (STATUS_WORDS | NEGATIONS):
        yield Verdict.NOT_CHECKED, "whose_status_is_unclear"
    for source in sources:
        fact = source.fact
        must = fact.status in MUST_SAY or (fact.kind is Kind.MEDICATION and fact.status is Status.COMPLETED)
        named = content(words_of(f"{fact.status.value} {fact.recorded_status}")) - {"active"}
        named |= _OWN_STATUS_WORDS.get(fact.kind, frozenset()) & source.own_words
        is_not_done = fact.status is Status.NOT_DONE
        is_said = bool(named & said) and (not is_not_done or bool(NEGATIONS & said))
        is_said = is_said or (is_not_done and "refused" in said & source.own_words)
        current = any(other.fact.status is Status.ACTIVE for other in sources)
        if fact.kind is Kind.MEDICATION and "active" in said and not current:
            yield Verdict.CONTRADICTED, "status_not_in_source:active"
        if must and not is_said:
            yield Verdict.CONTRADICTED, f"status_lost:{fact.status.value.replace(' ', '_')}"
        lost = fact.certainty not in ("", "confirmed") and fold(fact.certainty) not in said
        if lost or (fact.certainty and _is_of_the_date(fact.certainty, plain)):
            yield Verdict.CONTRADICTED, "certainty_lost"
        if _loses_as_needed(source, sentence, plain):
            yield Verdict.CONTRADICTED, "as_needed_lost"
        if _tells_half_a_dosage(source, sentence):
            yield Verdict.UNSUPPORTED, "dosage_not_whole"
        negated = NEGATIONS & source.own_words and not says_refuted(fact, said)
        if negated and not NEGATIONS & said:
            yield Verdict.CONTRADICTED, "negation_lost"


def _is_of_the_date(certainty: str, plain: str) -> bool:
    """Say whether a sentence calls the day uncertain, and not what it is the day of."""
    word = re.escape(certainty)
    told = rf"\b(?:date|onset)\W+(?:(?:is|was)\W+)?{word}\b|\b{word}\W+(?:date|onset)\b"
    return re.search(told, plain, re.IGNORECASE) is not None


def _tells_half_a_dosage(source: Source, sentence: Sentence) -> bool:
    """Say whether a sentence tells how often a drug is taken without a number that the dosage holds."""
    if source.fact.kind is not Kind.MEDICATION or not set(sentence.words) & _TELLS_HOW_OFTEN:
        return False
    dosages = [text for label, text in source.fact.details if label == "dosage"]
    told = {number for text in dosages for number in take_apart(text, source.units).numbers}
    return not {number for number in told if not _is_one_piece(number)}.issubset(sentence.numbers)


def _is_one_piece(number: NumberToken) -> bool:
    """Say whether this is one tablet, one capsule: what `twice daily` leaves unsaid."""
    return number.text == "1" and number.unit.rstrip("s") in _PIECES


def _loses_as_needed(source: Source, sentence: Sentence, plain: str) -> bool:
    """Say whether a sentence tells how a drug is taken that is taken as needed, and not that it is."""
    if source.fact.kind is not Kind.MEDICATION or "needed" not in source.sentence.words:
        return False
    said = set(sentence.words)
    tells_how = bool(said & _TELLS_HOW_OFTEN) and source.fact.status is not Status.STOPPED
    return tells_how and not _AS_NEEDED.search(plain)
