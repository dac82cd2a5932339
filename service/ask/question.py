"""A question as it was typed: bounded, without what nobody sees, and taken apart into what it asks for.

What is read here only decides which facts are looked at and in which order: a word that is read wrongly makes
an answer poorer, never untrue.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources
from typing import Final, NamedTuple

from service.errors import EpicrisisError
from service.grounding.words import PLAIN_WORDS, DateToken, fold, take_apart
from service.record.facts import Kind

LONGEST: Final = 300
"""Characters of a question. A longer one is a text that was pasted."""
_BREAKS = "\t\n\r"
_JOINERS = "\u200c\u200d"
"""Names in Persian and Hindi need them; they are invisible, and reorder nothing."""
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_WORD = re.compile(r"[^\W_]+(?:[.'’/-][^\W_]+)*")
_PARTING = re.compile(r"[,;&+?!]|\b(?:and|or|plus|versus|vs)\b")
_ENDINGS = ("ation", "ical", "ing", "ied", "ies", "ed", "er", "ic", "es", "s", "y", "e")
_LEAST_LETTERS = 4
_TIMES = ("newest", "oldest", "current", "flagged", "admitted")
"""Lists of words.toml that become a flag of Sought."""


class QuestionError(EpicrisisError):
    """A text that is not taken as a question. The message repeats nothing of it."""

    code = "question"
    exit_code = 3


@dataclass(frozen=True, slots=True)
class Sought:
    """What a question asks for. All words are small letters."""

    text: str
    """The question without its dates: where names are looked for."""
    groups: tuple[tuple[str, ...], ...] = ()
    """The words that should stand together in what answers it; `and`, `or` and commas part the groups."""
    kinds: frozenset[Kind] = frozenset()
    topics: tuple[tuple[str, frozenset[str]], ...] = ()
    """Words that stand for several recorded names, with these: `kidney function`."""
    dates: tuple[DateToken, ...] = ()
    newest: bool = False
    oldest: bool = False
    current: bool = False
    flagged: bool = False
    admitted: bool = False
    """True for a question about stays in hospital."""
    advice: bool = False
    """True for a question that asks what should be done, or for a judgement."""

    @property
    def terms(self) -> tuple[str, ...]:
        """The words of all groups."""
        return tuple(dict.fromkeys(term for group in self.groups for term in group))

    @property
    def names(self) -> frozenset[str]:
        """All names that its topics stand for."""
        return frozenset(name for _, names in self.topics for name in names)

    @property
    def is_vague(self) -> bool:
        """True where it names nothing of its own: `And before that?`"""
        return not (self.terms or self.kinds or self.topics or self.flagged)


class _Vocabulary(NamedTuple):
    kinds: Mapping[str, frozenset[Kind]]
    topics: Mapping[str, frozenset[str]]
    flags: Mapping[str, re.Pattern[str]]
    """By the names of Sought's flags."""
    frame: frozenset[str]
    advice: re.Pattern[str]


def read_question(text: str) -> str:
    """Return a question on one line. Raises QuestionError where it is none, too long, or not what it shows.

    Characters that nobody sees, or that turn what is read round, could make a question look like another.
    """
    shown = " ".join("".join(" " if character in _BREAKS else character for character in text).split())
    if not any(character.isalnum() for character in shown):
        raise QuestionError("There is no question.", "Type what you want to find in this chart.")
    if len(shown) > LONGEST:
        raise QuestionError(f"A question has at most {LONGEST} characters.", "Ask for one thing at a time.")
    if any(unicodedata.category(c) in _UNSEEN and c not in _JOINERS for c in shown):
        raise QuestionError(
            "The question holds characters that cannot be seen.", "Type it instead of pasting it."
        )
    return shown


def sought_in(question: str, former: str = "") -> Sought:
    """Return what a question asks for. One that names nothing takes that from the `former` one."""
    found = _sought(question)
    if not former or not found.is_vague:
        return found
    before = _sought(former)
    own_time = found.dates or found.newest or found.oldest
    return replace(
        before,
        dates=found.dates or (() if own_time else before.dates),
        newest=found.newest or (before.newest and not own_time),
        oldest=found.oldest or (before.oldest and not own_time),
        current=found.current or before.current,
        flagged=found.flagged or before.flagged,
        advice=found.advice,
    )


def _sought(question: str) -> Sought:
    known = vocabulary()
    text = question.casefold().replace("’", "'")
    dates = take_apart(text).dates
    asked = rest = _without_dates(text)
    kinds: set[Kind] = set()
    topics: dict[str, frozenset[str]] = {}
    for phrase, of_kinds in known.kinds.items():
        if said(phrase).search(rest):
            kinds |= of_kinds
            rest = said(phrase).sub(" ", rest)
    for phrase, of_names in known.topics.items():
        if said(phrase).search(rest):
            topics[phrase] = of_names
            rest = said(phrase).sub(" ", rest)
    flags = {name: pattern.search(rest) is not None for name, pattern in known.flags.items()}
    for pattern in known.flags.values():
        rest = pattern.sub(" ", rest)
    return Sought(
        text=" ".join(asked.split()),
        groups=tuple(_groups(rest, known.frame)),
        kinds=frozenset(kinds | ({Kind.ENCOUNTER} if flags["admitted"] else set())),
        topics=tuple(topics.items()),
        dates=dates,
        advice=bool(known.advice.search(text)),
        **flags,
    )


def _without_dates(text: str) -> str:
    rest = text
    for piece in reversed(take_apart(text).pieces):
        if isinstance(piece.token, DateToken):
            rest = f"{rest[: piece.start]} {rest[piece.end :]}"
    return rest


def _groups(text: str, frame: frozenset[str]) -> Iterator[tuple[str, ...]]:
    for part in _PARTING.split(text):
        terms = tuple(dict.fromkeys(_terms(part, frame)))
        if terms:
            yield terms


def _terms(text: str, frame: frozenset[str]) -> Iterator[str]:
    for found in _WORD.finditer(text):
        word = found.group().removesuffix("'s")
        if (
            word not in frame
            and fold(word) not in frame
            and fold(word) not in PLAIN_WORDS
            and not word.isdigit()
        ):
            yield word


@lru_cache(maxsize=16_384)
def said(phrase: str) -> re.Pattern[str]:
    """Return a pattern for a phrase as whole words, in any case."""
    return re.compile(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", re.IGNORECASE)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return what words of one root have in common, roughly: `smok` of smoking, `diabet` of diabetic.

    Only for finding what to look at; what is said is judged by whole words.
    """
    folded = fold(word)
    for ending in _ENDINGS:
        if folded.endswith(ending) and len(folded) - len(ending) >= _LEAST_LETTERS:
            return folded[: -len(ending)]
    return folded


@cache
def vocabulary() -> _Vocabulary:
    """Return how questions are read, as it ships with this package."""
    data = tomllib.loads(resources.files("service.ask").joinpath("words.toml").read_text(encoding="utf-8"))
    kinds = {phrase: frozenset(map(Kind, one["kinds"])) for one in data["kind"] for phrase in one["say"]}
    topics = {phrase: frozenset(one["names"]) for one in data["topic"] for phrase in one["say"]}
    return _Vocabulary(
        kinds={phrase: kinds[phrase] for phrase in _longest(kinds)},
        topics={phrase: topics[phrase] for phrase in _longest(topics)},
        flags={name: _any_of(data[name]) for name in _TIMES},
        frame=frozenset(data["frame"].split()),
        advice=re.compile("|".join(data["advice"]), re.IGNORECASE),
    )


def _any_of(phrases: Sequence[str]) -> re.Pattern[str]:
    told = "|".join(map(re.escape, _longest(phrases)))
    return re.compile(rf"(?<![\w-])(?:{told})(?![\w-])", re.IGNORECASE)


def _longest(phrases: Iterable[str]) -> list[str]:
    return sorted(phrases, key=lambda phrase: (-len(phrase), phrase))
