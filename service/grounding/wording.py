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

from service.grounding.words import words_of
from service.record.facts import Kind

_ASIDE = re.compile(
    r"\[[^\]]*\]|\((?:[A-Z][A-Z\d-]{1,7}|adult|hemogram|disorder|finding|situation|procedure|regime/therapy|"
    r"physical object|record artifact|event|substance|product|morphologic abnormality|body structure|"
    r"organism)\)"
)
"""What of a name may go unsaid: LOINC's properties, abbreviations, semantic tags; not `(ruled out)`."""
_SEMANTIC_TAG = re.compile(
    r"\s\((?:disorder|finding|situation|procedure|regime/therapy|physical object|record artifact|event|"
    r"substance|product|morphologic abnormality|body structure)\)"
)
"""What SNOMED CT's fully specified names end with."""
_SIDED = re.compile(r"\b(left|right)[- ]sided\b", re.IGNORECASE)
_EVERY_KIND = "*"


class Wording(NamedTuple):
    """One way to say something: for which kinds, and what it is read as."""

    kinds: frozenset[Kind]
    pattern: re.Pattern[str]
    read: str


class Neutral(NamedTuple):
    """Words that carry nothing of their own around entries of these kinds."""

    kinds: frozenset[Kind]
    words: frozenset[str]
    alone: bool
    """True for words that carry nothing only where a single entry is cited."""


class Lexicon(NamedTuple):
    """All wordings, the longest of each sort first."""

    neutral: tuple[Neutral, ...]
    wordings: tuple[Wording, ...]
    """Statuses and frames; a frame is read as nothing."""
    often: tuple[tuple[str, ...], ...]
    units: tuple[tuple[str, re.Pattern[str]], ...]
    tails: re.Pattern[str]
    forms: frozenset[str]
    salts: frozenset[str]
    same: Mapping[str, tuple[str, ...]]
    """A name → the other names of the same thing, longest first."""
    drugs: tuple[tuple[str, ...], ...]


@cache
def lexicon() -> Lexicon:
    """Return the lexicon that ships with this package."""
    return read_lexicon(_shipped("lexicon.toml") | _shipped("names.toml"))


def _shipped(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files("service.grounding").joinpath(name).read_text(encoding="utf-8"))


def read_lexicon(data: dict[str, Any]) -> Lexicon:
    """Read a lexicon from a parsed TOML document. Raises KeyError or ValueError where it is wrong."""
    same = [entry["forms"] for entry in data["same"]]
    return Lexicon(
        tuple(
            Neutral(_kinds(entry), frozenset(words_of(entry["words"])), entry.get("alone", False))
            for entry in data["neutral"]
        ),
        tuple(_wordings([*data["said"], *data["frame"]])),
        tuple(tuple(entry["forms"]) for entry in data["often"]),
        tuple((entry["recorded"], _after_number(entry["say"])) for entry in data["unit"]),
        re.compile(
            "|".join(map(re.escape, _longest(t for entry in data["tail"] for t in entry["say"]))), re.I
        ),
        frozenset(form for entry in data["form"] for form in entry["say"]),
        frozenset(salt for entry in data["salt"] for salt in entry["say"]),
        {forms[0]: tuple(_longest(forms[1:])) for forms in same},
        tuple(tuple(entry["forms"]) for entry in data["drug"]),
    )


@cache
def neutral_words(kinds: frozenset[Kind], alone: bool) -> frozenset[str]:
    """Return the words that carry nothing around entries of all these kinds; `alone`: one entry is cited."""
    return frozenset(
        word
        for neutral in lexicon().neutral
        if kinds and kinds <= neutral.kinds and (alone or not neutral.alone)
        for word in neutral.words
    )


def plain_name(name: str) -> str:
    """Return a recorded name in small letters, without brackets and specimen: `hemoglobin`."""
    return " ".join(lexicon().tails.sub(" ", _ASIDE.sub(" ", name)).casefold().split()).rstrip(" -")


def without_asides(name: str) -> str:
    """Return a recorded name without what of it may go unsaid."""
    return " ".join(_ASIDE.sub(" ", name).split())


def recorded_forms(name: str) -> frozenset[str]:
    """Return a recorded name as it may be written: whole, without brackets, and without specimen."""
    return frozenset((name, without_asides(name), plain_name(name))) - {""}


def in_recorded_units(text: str, units: Iterable[str]) -> str:
    """Return a claim with each of its units written as one of the recorded `units` is."""
    own = frozenset(units)
    for recorded, pattern in lexicon().units:
        if recorded.casefold() in own:
            text = pattern.sub(rf"\1 {recorded}", text)
    return text


def by_recorded_names(text: str, kinds: frozenset[Kind], names: Iterable[str]) -> str:
    """Return a claim that calls what it cites by its recorded names, where it used another for the same."""
    for name in dict.fromkeys(names):
        if Kind.MEDICATION in kinds:
            text = _with_ingredient(text, name)
        told = (plain_name(name), name.casefold())
        if any(_said(form).search(text) for form in told):
            continue
        others = {other for form in told for other in lexicon().same.get(form, ())}
        for other in _longest(others):
            pattern = _said(other)
            if pattern.search(text):
                text = pattern.sub(told[0], text)
                break
    return text


def _with_ingredient(text: str, name: str) -> str:
    for forms in lexicon().drugs:
        recorded = next((form for form in forms if _said(form).search(name)), None)
        if recorded is not None and not _said(recorded).search(text):
            for other in forms:
                text = _said(other).sub(recorded, text)
    return text


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
    text = in_recorded_units(_SEMANTIC_TAG.sub("", text), units)
    if not any(_SIDED.search(line) for line in lines):
        text = _SIDED.sub(r"\1", text)
    text = by_recorded_names(text, cited, names)
    if cited == {Kind.MEDICATION}:
        text = _as_often(text, lines)
    for wording in words.wordings:
        if cited and cited <= wording.kinds and not any(wording.pattern.search(line) for line in lines):
            text = wording.pattern.sub(wording.read, text)
    return text


def _as_often(text: str, lines: Sequence[str]) -> str:
    for form, forms in _frequencies():
        recorded = next(
            (other for other in forms if any(_said(other).search(line) for line in lines)), forms[0]
        )
        text = _said(form).sub(f" {recorded} ", text) if form != recorded else text
    return text


@cache
def _frequencies() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return every form of a frequency, the longest first, with all forms of the same."""
    told = {form: forms for forms in lexicon().often for form in forms}
    return tuple((form, told[form]) for form in _longest(told))


@cache
def _said(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", re.I)


def _kinds(entry: Mapping[str, Any]) -> frozenset[Kind]:
    return frozenset(Kind) if _EVERY_KIND in entry["kinds"] else frozenset(map(Kind, entry["kinds"]))


def _wordings(entries: Iterable[dict[str, Any]]) -> list[Wording]:
    found = [(phrase, _kinds(entry), entry.get("word", "")) for entry in entries for phrase in entry["say"]]
    found.sort(key=lambda item: -len(item[0]))
    return [Wording(kinds, _said(phrase.strip()), f" {word} ") for phrase, kinds, word in found]


def _longest(phrases: Iterable[str]) -> list[str]:
    return sorted(phrases, key=lambda phrase: (-len(phrase), phrase))


def _after_number(phrases: Iterable[str]) -> re.Pattern[str]:
    told = "|".join(map(re.escape, _longest(phrases)))
    return re.compile(rf"(\d)\s*(?:{told})(?!\w)", re.I)
