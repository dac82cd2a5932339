"""What a sentence derives from several values of one series: a change, a difference, a doubling, a count.

Each is computed again and then taken out of the sentence with the values and days that it spoke of, so that
what is left is judged as it stands. Where one number, day or turn of phrase is not understood, nothing is
taken out, and the sentence is refused as words that no source bears.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from service.grounding import phrases
from service.grounding.derive import Finding, Whole
from service.grounding.order import apart_from, blanked, name_spans
from service.grounding.source import OBSERVED, Source
from service.grounding.summary import Verdict
from service.grounding.words import DateToken, NumberToken, Piece, take_apart
from service.record.dates import show_day
from service.record.facts import Fact, Precision

_FROM_BEFORE = re.compile(r"\b(?:up|down|increased|decreased) from\b", re.IGNORECASE)
_GLUE = frozenset("from since between after reaching until result one what or interval".split())
_DAYS = (Precision.DAY, Precision.TIME)


class Two(NamedTuple):
    """Two values of one series, the older first."""

    old: Source
    new: Source

    @property
    def difference(self) -> Decimal:
        """The newer minus the older, in the recorded unit."""
        return _number(self.new) - _number(self.old)


@dataclass(frozen=True, slots=True)
class Place:
    """One value or day of a sentence: which of the two it can be, and the words since the one before it."""

    piece: Piece
    sides: frozenset[int]
    """0 for the older, 1 for the newer; both where it fits both, none for the difference itself."""
    before: str


def computed_of_several(text: str, sources: Sequence[Source], whole: Whole) -> tuple[str, list[Finding]]:
    """Return a sentence without what it derives rightly from several values, and a finding where wrongly."""
    series = [source for source in sources if source.fact.when is not None]
    if len(series) < 2 or len(series) != len(sources) or not _is_series(series, whole):
        return text, []
    counted = _counted(text, series, whole)
    if counted is not None:
        return counted
    two = _two(series)
    if two is None or not (phrases.MOVES.search(text) or phrases.TIMES.search(text)):
        return text, []
    places = _places(text, two)
    if places is None:
        return text, []
    findings = _compared(text, two, places)
    return (text, []) if findings is None else (_rest(text, places, name_spans(text, two)), list(findings))


_WRONG: tuple[Finding, ...] = ((Verdict.CONTRADICTED, "change_is_another"),)


def _is_series(sources: Sequence[Source], whole: Whole) -> bool:
    own = {source.fact.id for source in sources}
    return any(own.issubset(fact.id for fact in whole.series(source.fact)) for source in sources)


def _two(series: Sequence[Source]) -> Two | None:
    if len(series) != 2 or not all(_is_comparable(source.fact) for source in series):
        return None
    old, new = sorted(series, key=_instant)
    return Two(old, new) if _unit(old) == _unit(new) and _latest(old) < _instant(new) else None


def _is_comparable(fact: Fact) -> bool:
    """Say whether a fact is a plain number, measured on a day."""
    return (
        fact.kind in OBSERVED
        and fact.quantity is not None
        and fact.quantity.number is not None
        and not fact.quantity.comparator
        and fact.when is not None
        and fact.when.precision in _DAYS
    )


def _instant(source: Source) -> float:
    assert source.fact.when is not None
    return source.fact.when.earliest.timestamp()


def _latest(source: Source) -> float:
    assert source.fact.when is not None
    return source.fact.when.latest.timestamp()


def _number(source: Source) -> Decimal:
    assert source.fact.quantity is not None
    assert source.fact.quantity.number is not None
    return source.fact.quantity.number


def _unit(source: Source) -> str:
    assert source.fact.quantity is not None
    return source.fact.quantity.unit


def _places(text: str, two: Two) -> list[Place] | None:
    """Return every value and day of the sentence with what it can be; None where one of them is neither."""
    pieces = _pieces(text, two)
    found: list[Place] = []
    ends = [0]
    for index, piece in enumerate(pieces):
        before = text[ends[-1] : piece.start]
        follows = pieces[index + 1] if index + 1 < len(pieces) else None
        after = text[piece.end : follows.start if follows else len(text)]
        if isinstance(piece.token, DateToken):
            sides = _days_of(piece.token, two)
        else:
            token = _with_unit(piece.token, follows, after)
            sides = _values_of(token, two, text[: piece.start], after)
        if sides is None:
            return None
        found.append(Place(piece, sides, before))
        ends.append(piece.end)
    return found


def _pieces(text: str, sources: Sequence[Source]) -> list[Piece]:
    """Return the values and days of a sentence; a number within the name of what was measured is none."""
    spans = name_spans(text, sources)
    units = frozenset().union(*(source.units for source in sources))
    return apart_from(spans, take_apart(text, units).pieces)


def _with_unit(token: NumberToken, follows: Piece | None, after: str) -> NumberToken:
    """Return the first number of `from 6.1 to 8.2 %` with the unit that it shares with the second."""
    shares = not token.unit and follows is not None and isinstance(follows.token, NumberToken)
    if shares and after.strip().casefold() in ("to", "and"):
        assert follows is not None
        assert isinstance(follows.token, NumberToken)
        return NumberToken(token.text, follows.token.unit)
    return token


def _days_of(token: DateToken, two: Two) -> frozenset[int] | None:
    sides = frozenset(side for side, source in enumerate(two) if _is_day_of(token, source.fact))
    return sides or None


def _is_day_of(token: DateToken, fact: Fact) -> bool:
    assert fact.when is not None
    return any(token.within(day) for day in take_apart(show_day(fact.when)).dates)


def _values_of(token: NumberToken, two: Two, before: str, after: str) -> frozenset[int] | None:
    if phrases.TELLS_DIFFERENCE.search(before):
        return frozenset() if _is_difference(token, two) else None
    sides = frozenset(side for side, source in enumerate(two) if token in source.sentence.numbers)
    is_difference = _is_difference(token, two) and (
        phrases.BEFORE_DIFFERENCE.search(before) is not None
        or re.match(rf"\s*(?:{phrases.UP}|{phrases.DOWN})\b", after, re.IGNORECASE) is not None
    )
    if is_difference and not (sides and re.search(r"\b(?:to|from|was|is)\s*$", before, re.IGNORECASE)):
        return frozenset()
    return sides or None


def _is_difference(token: NumberToken, two: Two) -> bool:
    units = {number.unit for number in two.old.sentence.numbers}
    try:
        return token.unit in units and Decimal(token.text.replace(",", "")) == abs(two.difference)
    except InvalidOperation:  # `<5`: no plain number
        return False


def _compared(text: str, two: Two, places: Sequence[Place]) -> tuple[Finding, ...] | None:
    """Return no finding where what is said of the two holds, else one; None where it is not understood."""
    times = phrases.TIMES.search(text)
    plain = phrases.TIMES.sub(lambda match: " " * len(match.group()), text)
    pivot = phrases.PIVOT.search(plain) or phrases.PIVOT.search(
        text, times.start("times") if times else len(text)
    )
    roles = _across(places, pivot) if pivot else _in_order(text, places)
    if roles is None:
        return None
    first, second = roles
    if first & second:  # which of them is meant?
        return None
    return _judged(plain, times, two, bool(pivot), first, second)


def _judged(
    text: str, times: re.Match[str] | None, two: Two, is_comparison: bool, first: set[int], second: set[int]
) -> tuple[Finding, ...] | None:
    """Judge a change from `first` to `second`, or a comparison of `first` with `second`."""
    if not is_comparison and (first, second) != ({0}, {1}):
        return _WRONG
    start, end = (_number(two[next(iter(sides))]) for sides in (first, second))
    if is_comparison:
        start, end = end, start
    up, down = bool(phrases.RISES.search(text)), bool(phrases.FALLS.search(text))
    if up and down:
        return None
    if (up and end <= start) or (down and end >= start):
        return _WRONG
    return _multiplied(times, start, end) if times else ()


def _multiplied(times: re.Match[str], start: Decimal, end: Decimal) -> tuple[Finding, ...] | None:
    factor = next(
        value for stem, value in phrases.FACTORS.items() if times["times"].casefold().startswith(stem)
    )
    over = (times["over"] or "").casefold()
    if start <= 0:
        return None
    holds = end > factor * start if "than" in over or "over" in over else end == factor * start
    if "least" in over:
        holds = end >= factor * start
    return () if holds else _WRONG


def _across(places: Sequence[Place], pivot: re.Match[str]) -> tuple[set[int], set[int]] | None:
    """Return which values stand before `than` and which after it."""
    sides = [
        _common(place for place in places if place.sides and (place.piece.start < pivot.start()) is before)
        for before in (True, False)
    ]
    if sides[0] is None or sides[1] is None:
        return None
    return sides[0], sides[1]


def _common(places: Iterator[Place]) -> set[int] | None:
    """Return the side on which all of these are; None where there is none, or no common one."""
    found = [set(place.sides) for place in places]
    if not found:
        return None
    common = set.intersection(*found)
    return common or None


def _in_order(text: str, places: Sequence[Place]) -> tuple[set[int], set[int]] | None:
    """Return which values the change starts from and which it leads to, by the words before each."""
    starts: list[set[int]] = []
    ends: list[set[int]] = []
    role = starts
    heard: list[str] = []
    previous: Place | None = None
    for place in places:
        if not place.sides:  # the difference itself
            continue
        marks = [mark.casefold() for mark in phrases.MARK.findall(place.before)]
        heard += marks
        mark = marks[-1] if marks else None
        if mark in ("from", "since", "after", "between"):
            role = starts
        elif mark in ("to", "reaching", "until") or (
            mark == "and" and ("between" in heard or phrases.MOVES.search(place.before))
        ):
            role = ends
        elif previous is None:
            if phrases.MOVES.search(place.before):
                return None
            if _FROM_BEFORE.search(text, place.piece.end):
                role = ends  # `was 8.2 on …, up from 6.1`, else `was 6.1 on … and rose to …`
        elif isinstance(previous.piece.token, type(place.piece.token)):
            return None  # two values, or two days, and nothing that tells them apart
        role.append(set(place.sides))
        previous = place
    if not starts or not ends:
        return None
    first, second = set.intersection(*starts), set.intersection(*ends)
    return (first - second or first), (second - first or second)


def _rest(text: str, places: Sequence[Place], names: Sequence[tuple[int, int]]) -> str:
    """Return the sentence without its values, days and what was said of them: words are left to judge."""
    left, found, position = blanked(text, ((one.piece.start, one.piece.end) for one in places)), "", 0
    for start, end in [*names, (len(text), len(text))]:
        found += _without_glue(left[position:start]) + left[start:end]
        position = end
    return found


def _without_glue(text: str) -> str:
    left = phrases.MOVES.sub(" ", phrases.PIVOT.sub(" ", phrases.TIMES.sub(" ", text)))
    return re.sub(r"[\w'-]+", lambda match: " " if match.group().casefold() in _GLUE else match.group(), left)


def _counted(text: str, series: Sequence[Source], whole: Whole) -> tuple[str, list[Finding]] | None:
    """Judge `measured 3 times`, `three values are recorded`: of the whole series, all of it cited."""
    bare = text
    for start, end in name_spans(text, series):
        bare = bare[:start] + re.sub(r"\d", "x", bare[start:end]) + bare[end:]
    match = phrases.COUNTED.search(bare)
    if match is None:
        return None
    name = text[match.start("name") : match.end("name")] if match["name"] else ""
    rest = f"{text[: match.start()]} {name} {text[match.end() :]}"
    if _pieces(rest, series):
        return None
    said = (match["n"] or match["adverb"]).casefold()
    number = phrases.ADVERBS.get(said) or (
        phrases.NUMBERS.index(said) + 1 if said in phrases.NUMBERS else int(said)
    )
    everything = {fact.id for source in series for fact in whole.series(source.fact)}
    if not all(whole.has_all_of(source.fact) for source in series):
        return rest, [(Verdict.NOT_CHECKED, "record_not_read_whole")]
    if number != len(everything) or number != len(series):
        return rest, [(Verdict.CONTRADICTED, "count_is_another")]
    return phrases.IN_ALL.sub(" ", rest), []
