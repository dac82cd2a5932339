"""Which day a sentence tells: a beginning, an end, or the day on which something was recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from service.grounding.source import Source
from service.grounding.summary import Verdict
from service.grounding.words import DateToken, Piece, take_apart, words_of
from service.record.dates import show_day
from service.record.facts import Kind

_BEGINS = frozenset(
    "began begin begun onset since started start starting admitted admission from diagnosed developed "
    "appeared emerged identified presented came hospitalized hospitalised occurred ordered prescribed "
    "authored first".split()
)
_ENDS = frozenset(
    "resolved ended end abated discharged discharge finished cleared recovered stopped discontinued "
    "completed inactive remission over longer held hold cancelled".split()
)
_ENDED_SINCE = re.compile(rf"\b(?:{'|'.join(sorted(_ENDS))})\s+(?:since|from|began|started)\b", re.IGNORECASE)
"""When something ended: `in remission since`, `on hold from`."""
_UNTIL = frozenset(("to", "until", "through"))
_RECORDED = frozenset("recorded record documented noted listed entered reported charted".split())
_ENDING_KINDS = (Kind.MEDICATION, Kind.PROBLEM, Kind.ALLERGY)

Finding = tuple[Verdict, str]


def misdated(text: str, units: frozenset[str], sources: Sequence[Source]) -> Iterator[Finding]:
    """Yield a finding for a day that is told as a beginning or an end and is that of something else."""
    pieces = take_apart(text, units).pieces
    told = [(piece, _role(text, pieces, place)) for place, piece in enumerate(pieces)]
    days = [(piece.token, role) for piece, role in told if isinstance(piece.token, DateToken)]
    if any(_is_misdated(token, role, source) for source in sources for token, role in days):
        yield Verdict.UNSUPPORTED, "date_of_something_else"


def _role(text: str, pieces: Sequence[Piece], place: int) -> str:
    """Return what the last such word before a piece makes of it: `begins`, `ends`, `recorded`, or nothing."""
    told = text[pieces[place - 1].end if place else 0 : pieces[place].start]
    before, bracket, within = told.rpartition("(")
    named = words_of(before)
    if bracket and named and named[-1] not in _ENDS:
        told = within  # `Resolved pneumonia (05-Jan-2019 to …)`: resolved is the pneumonia
    words = words_of(told)
    role, last = "", ""
    for word in words:
        if word in _BEGINS and last != "discharged":
            role = "begins"
        elif word in _ENDS:
            role = "ends"
        elif word in _RECORDED:
            role = "recorded"
        last = last if last == "discharged" else word
    ends = (words and words[-1] in _UNTIL) or _ENDED_SINCE.search(told)
    return "ends" if ends else role


def _is_misdated(token: DateToken, role: str, source: Source) -> bool:
    fact = source.fact
    if fact.when is None or fact.span is not None or not any(token.within(d) for d in source.sentence.dates):
        return False
    own = source.sentence.pieces
    roles = {_role(source.line, own, place) for place, piece in enumerate(own) if piece.token == token}
    if role in roles:
        return False
    start = take_apart(show_day(fact.when)).dates[0]
    if fact.kind is Kind.PROCEDURE and role == "ends":
        return False  # `completed on` the day of the procedure
    if fact.until is not None:
        end = take_apart(show_day(fact.until)).dates[0]
        if role == "ends":
            return not token.within(end)
        return role == "begins" and not token.within(start)
    if fact.kind not in _ENDING_KINDS or not token.within(start):
        return False
    if fact.kind is Kind.ALLERGY and roles == {"recorded"}:
        return True
    return role == "ends"
