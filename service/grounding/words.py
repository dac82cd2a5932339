"""Taking a sentence apart: dates, measured values and the words between them.

Nothing is normalised away that a clinician would miss: a number is compared as written, with its
comparator, and a unit stays with its number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"

_DATE = re.compile(
    rf"""
      \b(?P<iso_year>(?:18|19|20|21)\d\d)-(?P<iso_month>\d\d)(?:-(?P<iso_day>\d\d))?(?![\d-])
    | \b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[\s-]+(?P<month>{_MONTH})[\s,-]+(?P<year>(?:18|19|20|21)\d\d)\b
    | \b(?P<us_month>{_MONTH})\s+(?P<us_day>\d{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<us_year>(?:18|19|20|21)\d\d)\b
    | \b(?P<my_month>{_MONTH})[\s,-]+(?P<my_year>(?:18|19|20|21)\d\d)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NUMBER = re.compile(
    r"(?P<comparator>[<>≤≥]=?|~)?\s?(?P<number>(?<![\w.])(?<![^\W\d_]-)[+-]?\d[\d,]*(?:\.\d+)?|(?<![\w.])\.\d+)"
)
_WORD = re.compile(r"[^\W\d_][\w%\[\]{}/^.'*-]*|[%‰]|\d+[^\W\d_]\w*", re.UNICODE)
_ANNOTATION = re.compile(r"\{[^{}]*\}")
_NO_UNITS = frozenset({"ph", "[ph]"})
_YEAR = re.compile(r"(?:18|19|20|21)\d\d")

_AFTER_NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?\s?([^\s,;:().\d–-][^\s,;()]*)")

PLAIN_WORDS = frozenset(
    "a an the of on in at to and as by is was are were be been has had have it its this that which these "
    "those there patient patients patient's record records recorded documented noted date dated value "
    "values level measured".split()
)
"""Words that carry no clinical content of their own. Short on purpose: `for`, `with`, `since`, `from`,
`history` and `reported` are not among them, because each changes what a sentence says."""

NEGATIONS = frozenset("no not never none without denie denied negative refused declined absent nor".split())
"""Folded, as words are compared: `denie` is `denies`."""

RELATIVE_DATE = re.compile(
    r"\b(today|yesterday|tomorrow|tonight|ago|(?<!most )recently|day\s+\d+|"
    r"(?:last|this|next|past|previous)\s+(?:(?:\d+|few|couple of|several|two|three|four|five|six)\s+)?"
    r"(?:day|night|week|month|year|monday|tuesday|wednesday|thursday|friday|saturday|sunday)s?)\b",
    re.IGNORECASE,
)
"""Time words that are wrong as soon as the text is stored (SAFETY 11)."""


@dataclass(frozen=True, slots=True)
class DateToken:
    """A date as written: year, and month and day where they were written."""

    year: int
    month: int | None = None
    day: int | None = None

    def within(self, other: DateToken) -> bool:
        """True when this date says the same as `other`, or less; never when it says more."""
        return self.year == other.year and self.month in (None, other.month) and self.day in (None, other.day)


@dataclass(frozen=True, slots=True)
class NumberToken:
    """A number as written, with comparator (`<0.01`) and the unit that follows it, lower case."""

    text: str
    unit: str


@dataclass(frozen=True, slots=True)
class Piece:
    """One date or number of a sentence, with the words since the one before it: its window."""

    token: DateToken | NumberToken
    window: frozenset[str]
    start: int
    """Where it stands in the text: its first character…"""
    end: int
    """…and its last-plus-one, the unit included."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence taken apart. `words` are all of it, folded; `tail` those after the last piece."""

    pieces: tuple[Piece, ...]
    words: tuple[str, ...]
    tail: frozenset[str]

    @property
    def dates(self) -> tuple[DateToken, ...]:
        """The dates, in order."""
        return tuple(piece.token for piece in self.pieces if isinstance(piece.token, DateToken))

    @property
    def numbers(self) -> tuple[NumberToken, ...]:
        """The numbers that are not part of a date, in order."""
        return tuple(piece.token for piece in self.pieces if isinstance(piece.token, NumberToken))


def take_apart(text: str, units: frozenset[str] = frozenset()) -> Sentence:
    """Take a sentence apart. `units` are the words which, right after a number, are its unit."""
    spans: dict[int, tuple[int, DateToken | NumberToken]] = {}
    rest = list(text)
    for match in _DATE.finditer(text):
        token = _date(match)
        if token is not None:
            spans[match.start()] = match.end(), token
            rest[match.start() : match.end()] = " " * (match.end() - match.start())
    remaining = "".join(rest)
    consumed = 0
    for match in _NUMBER.finditer(remaining):
        if match.start("number") < consumed:  # within a unit: `4.1 10*6/uL`
            continue
        start, end = match.start("number"), match.end("number")
        if match["comparator"]:
            start = match.start("comparator")
        number = (match["comparator"] or "") + match["number"].rstrip(",")
        if _YEAR.fullmatch(number) and not _unit_after(remaining, end, units):
            spans[start] = end, DateToken(int(number))
        else:
            unit = _unit_after(remaining, end, units)
            end += unit[1] if unit else 0
            spans[start] = end, NumberToken(number, unit[0] if unit else "")
            consumed = end
        rest[start:end] = " " * (end - start)
    return _assemble("".join(rest), spans)


def fold(word: str) -> str:
    """Fold a word for comparison: lower case, trailing punctuation and a plural s removed."""
    word = word.casefold().strip(".'*-/").removesuffix("'s")
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def words_of(text: str) -> tuple[str, ...]:
    """Return the folded words of a text, in order; hyphenated and slashed words also in their parts."""
    found: list[str] = []
    for match in _WORD.finditer(text):
        word = match.group()
        folded = fold(word)
        if folded:
            found.append(folded)
        found.extend(part for part in map(fold, re.split(r"[-/]", word)) if part and part != folded)
    return tuple(found)


def units_of(text: str) -> frozenset[str]:
    """Return the folded words that stand right after a number in a source, where they are not plain words."""
    found = (match.group(1).rstrip(".:").casefold() for match in _AFTER_NUMBER.finditer(_DATE.sub(" ", text)))
    return frozenset(unit for unit in found if unit and unit not in PLAIN_WORDS | NEGATIONS)


def _assemble(rest: str, spans: Mapping[int, tuple[int, DateToken | NumberToken]]) -> Sentence:
    pieces: list[Piece] = []
    ends = [0]
    for start in sorted(spans):
        end, token = spans[start]
        pieces.append(Piece(token, frozenset(words_of(rest[ends[-1] : start])), start, end))
        ends.append(end)
    return Sentence(tuple(pieces), words_of(rest), frozenset(words_of(rest[ends[-1] :])))


def _unit_after(text: str, end: int, units: frozenset[str]) -> tuple[str, int] | None:
    """Return the folded unit that follows a number, and how many characters it takes."""
    glued = re.match(r"[^\W\d_]+", text[end:])
    if glued is not None:  # `2.5mg`: whatever the source's units are, these letters belong to the number
        return glued.group().casefold(), glued.end()
    match = re.match(r"\s?([^\s,;()]+)", text[end:])
    if match is None:
        return None
    unit = match.group(1).rstrip(".:")
    if unit.casefold() not in units:
        return None
    # UCUM annotates what has no unit: `3 {score}` is a plain 3.
    said = "" if _ANNOTATION.fullmatch(unit) or unit.casefold() in _NO_UNITS else unit.casefold()
    return said, match.start(1) + len(unit)


def _date(match: re.Match[str]) -> DateToken | None:
    if match["iso_year"]:
        year, month, day = match["iso_year"], int(match["iso_month"]), match["iso_day"]
    elif match["day"]:
        year, month, day = match["year"], _month(match["month"]), match["day"]
    elif match["us_day"]:
        year, month, day = match["us_year"], _month(match["us_month"]), match["us_day"]
    else:
        year, month, day = match["my_year"], _month(match["my_month"]), None
    if not 1 <= month <= 12 or (day is not None and not 1 <= int(day) <= 31):
        return None
    return DateToken(int(year), month, int(day) if day is not None else None)


def _month(name: str) -> int:
    return MONTHS.index(name[:3].casefold()) + 1
