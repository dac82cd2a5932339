"""A claim in the record's own words: wordings that say the same are read as what the record says.

The rules then judge the plain sentence. Only wordings of the lexicon are read so, and only where every cited
fact is of a kind for which they mean nothing else.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from service.record.facts import Kind

_ASIDE = re.compile(r"\([^)]*\)|\[[^\]]*\]")


class Wording(NamedTuple):
    """One way to say something: for which kinds, and what it is read as."""

    kinds: frozenset[Kind]
    pattern: re.Pattern[str]
    read: str


class Lexicon(NamedTuple):
    """All wordings, the longest of each sort first."""

    said: tuple[Wording, ...]
    frames: tuple[Wording, ...]
    units: tuple[tuple[str, re.Pattern[str]], ...]
    tails: re.Pattern[str]
    forms: frozenset[str]
    same: Mapping[str, tuple[str, ...]]
    """A name → the other names of the same thing, longest first."""


@cache
def lexicon() -> Lexicon:
    """Return the lexicon that ships with this package."""
    text = resources.files("service.grounding").joinpath("lexicon.toml").read_text(encoding="utf-8")
    return read_lexicon(tomllib.loads(text))


def read_lexicon(data: dict[str, Any]) -> Lexicon:
    """Read a lexicon from a parsed TOML document. Raises KeyError or ValueError where it is wrong."""
    return Lexicon(
        tuple(_wordings(data["said"])),
        tuple(_wordings(data["frame"])),
        tuple((entry["recorded"], _after_number(entry["say"])) for entry in data["unit"]),
        re.compile(
            "|".join(re.escape(tail) for entry in data["tail"] for tail in _longest(entry["say"])), re.I
        ),
        frozenset(form for entry in data["form"] for form in entry["say"]),
        {
            form: tuple(_longest(other for other in entry["forms"] if other != form))
            for entry in data["same"]
            for form in entry["forms"]
        },
    )


def plain_name(name: str) -> str:
    """Return a recorded name in small letters, without brackets and specimen: `hemoglobin`."""
    return " ".join(lexicon().tails.sub(" ", _ASIDE.sub(" ", name)).casefold().split())


def said_plainly(
    text: str,
    kinds: Iterable[Kind],
    units: Iterable[str],
    names: Iterable[str] = (),
    lines: Sequence[str] = (),
) -> str:
    """Return a claim in the record's words, where all it cites is of these kinds and has these units.

    `names` are the recorded names of what it cites: another name of the same thing is read as the recorded.
    `lines` are the recorded lines: a wording that the record uses itself stays as it is.
    """
    words, cited = lexicon(), frozenset(kinds)
    for name in dict.fromkeys(map(plain_name, names)):
        if not _said(name).search(text):
            for other in words.same.get(name, ()):
                text = _said(other).sub(name, text)
    own = frozenset(units)
    for recorded, pattern in words.units:
        if recorded.casefold() in own:
            text = pattern.sub(rf"\1 {recorded}", text)
    for wording in (*words.said, *words.frames):
        if cited and cited <= wording.kinds and not any(wording.pattern.search(line) for line in lines):
            text = wording.pattern.sub(wording.read, text)
    return text


@cache
def _said(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", re.I)


def _wordings(entries: Iterable[dict[str, Any]]) -> list[Wording]:
    found = [
        (phrase, frozenset(map(Kind, entry["kinds"])), entry.get("word", ""))
        for entry in entries
        for phrase in entry["say"]
    ]
    found.sort(key=lambda item: -len(item[0]))
    return [Wording(kinds, _said(phrase.strip()), f" {word} ") for phrase, kinds, word in found]


def _any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, _longest(phrases))), re.I)


def _longest(phrases: Iterable[str]) -> list[str]:
    return sorted(phrases, key=len, reverse=True)


def _after_number(phrases: Iterable[str]) -> re.Pattern[str]:
    told = "|".join(map(re.escape, _longest(phrases)))
    return re.compile(rf"(\d)\s*(?:{told})(?!\w)", re.I)
