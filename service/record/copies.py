"""Copied-forward text: which passages of a patient's notes are new, and which repeat an earlier note.

A passage that was pasted from note to note counts from its first appearance and cannot support a claim about
today. What must never happen is the reverse, that a new statement is taken for a copy because it is short and
common: `No fever.` of today is not the one of last week, unless it came along in a run of copied text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from service.record.notes import Passage, is_section, split_note

_LEAST_WORDS, _LEAST_CHARACTERS = 5, 30
"""A passage of this length is not written twice by chance."""
_BULLET = re.compile(
    r"(?:[-*•·◦▪‣●○■□–—→]\s*|o\s+|\(?[a-z]\)\s+|\d{1,2}[.)]\s+(?!tag\b|woche\b|monat\b|jahr\b|ssw\b))"
)
"""Not `2. Tag`: in German a full stop makes an ordinal, and day 2 is not day 3."""
_SENSES = {
    "family": ("family", "fh", "fhx", "fmh"),
    "allergies": ("allergies", "allergy", "allergens", "intolerances", "reactions"),
    "home": ("home", "admission", "admitting"),
    "discharge": ("discharge", "final"),
    "past": ("past", "previous", "prior", "pmh", "pmhx", "psh"),
    "possible": ("differential", "ddx"),
    "planned": ("plan", "orders", "goals", "instructions", "recommendation", "recommendations"),
}
"""Words of a heading that change what the same words below it say: whose, whether tolerated, when taken,
whether only thought of or planned."""


@dataclass(frozen=True, slots=True)
class Note:
    """The text of one note."""

    key: str
    """Names the note; two notes of one patient have different keys."""
    when: datetime | None
    """The earliest aware instant at which it may have been written; None where none is recorded."""
    text: str


@dataclass(frozen=True, slots=True)
class Appearance:
    """A passage where it was first written."""

    note: str
    passage: Passage
    copies: tuple[str, ...]
    """Keys of the later notes that repeat it, by (when, key)."""


@dataclass(slots=True)
class _Found:
    note: str
    passage: Passage
    copies: dict[str, None] = field(default_factory=dict)


class _Origin(NamedTuple):
    """Where two passages stood next to each other first."""

    left: _Found
    right: _Found


class _Written(NamedTuple):
    passage: Passage
    key: int
    """The same for passages that differ in case, white space and bullet only, in sections of one sense."""
    long: bool


def first_appearances(notes: Sequence[Note]) -> tuple[Appearance, ...]:
    """Return every distinct passage once, where it first stands, with the later notes that repeat it.

    Notes are read by (when, key), whatever their order. A note without an instant, or with a naive one, comes
    last: it cannot take the date from a passage that a dated note bears, nor date it earlier than any source
    shows. What it alone holds stays without a date, and its key among the copies tells the caller that an
    original of unknown age exists.
    """
    reader = _Reader()
    for note in sorted(notes, key=_age):
        reader.read(note)
    return tuple(Appearance(f.note, f.passage, tuple(f.copies)) for f in reader.found)


def _age(note: Note) -> tuple[bool, float, str, str]:
    when = note.when
    if when is None or when.utcoffset() is None:
        return True, 0.0, note.key, note.text
    return False, when.timestamp(), note.key, note.text


class _Reader:
    """Reads notes from the oldest on, and knows all that was read before."""

    def __init__(self) -> None:
        self.found: list[_Found] = []
        self._keys: dict[tuple[str, str], int] = {}
        self._senses: dict[str, str] = {}
        self._first: dict[int, _Found] = {}
        """Where each long passage was first written."""
        self._side_by_side: dict[tuple[int, int], _Origin] = {}

    def read(self, note: Note) -> None:
        """Read one note: what is new in it is found, what is not counts as a copy."""
        written = [self._written(note.text, passage) for passage in split_note(note.text)]
        pairs = self._known_pairs(written)
        copied = self._copied(written, pairs)
        here: list[_Found] = []
        for place, item in enumerate(written):
            origin = self._origin(place, written, copied, pairs, here) if copied[place] else None
            here.append(origin or self._new(note, item))
            if origin and origin.note != note.key:
                origin.copies[note.key] = None
        for place, (left, right) in enumerate(pairwise(written)):
            pair = (left.key, right.key)
            if pair not in self._side_by_side:
                self._side_by_side[pair] = _Origin(here[place], here[place + 1])

    def _written(self, text: str, passage: Passage) -> _Written:
        sense = self._senses.get(passage.section)
        if sense is None:
            sense = self._senses[passage.section] = sense_of(passage.section)
        said = _said(text[passage.start : passage.end])
        long = len(said) >= _LEAST_CHARACTERS and said.count(" ") >= _LEAST_WORDS - 1
        return _Written(passage, self._keys.setdefault((sense, said), len(self._keys)), long)

    def _new(self, note: Note, item: _Written) -> _Found:
        found = _Found(note.key, item.passage)
        self.found.append(found)
        if item.long:
            self._first[item.key] = found
        return found

    def _known_pairs(self, written: Sequence[_Written]) -> list[_Origin | int | None]:
        """For each passage and the next: where they stood together before, in a note or here (its place)."""
        here: dict[tuple[int, int], int] = {}
        pairs: list[_Origin | int | None] = []
        for place, (left, right) in enumerate(pairwise(written)):
            pair = (left.key, right.key)
            pairs.append(self._side_by_side.get(pair) or here.get(pair))
            here.setdefault(pair, place)
        return pairs

    def _copied(self, written: Sequence[_Written], pairs: Sequence[_Origin | int | None]) -> list[bool]:
        """Long passages seen before, and the short ones beside them that stood beside them before."""
        seen: set[int] = set()
        copied = []
        for item in written:
            copied.append(item.long and (item.key in self._first or item.key in seen))
            seen.add(item.key)
        for place in range(1, len(written)):
            if copied[place - 1] and pairs[place - 1] is not None:
                copied[place] = True
        for place in range(len(written) - 2, -1, -1):
            if copied[place + 1] and pairs[place] is not None:
                copied[place] = True
        return copied

    def _origin(
        self,
        place: int,
        written: Sequence[_Written],
        copied: Sequence[bool],
        pairs: Sequence[_Origin | int | None],
        here: Sequence[_Found],
    ) -> _Found:
        """Return where a copied passage was first written: a short one, beside the neighbour it came with."""
        if written[place].long:
            return self._first[written[place].key]
        before = pairs[place - 1] if place and copied[place - 1] else None
        if before is not None:
            return before.right if isinstance(before, _Origin) else here[before + 1]
        after = pairs[place]
        assert after is not None
        return after.left if isinstance(after, _Origin) else here[after]


def _said(written: str) -> str:
    """Return the words of a passage without case, bullet, and white space beyond one space."""
    said = " ".join(written.casefold().split())
    bullet = _BULLET.match(said)
    return said[bullet.end() :] if bullet and bullet.end() < len(said) else said


def sense_of(section: str) -> str:
    """Return what a heading adds to the words below it; the whole of one that is no section's name."""
    if not section:
        return ""
    folded = section.casefold()
    if not is_section(section):
        return folded
    words = set(re.findall(r"\w+", folded))
    if "assessment" in words:
        words.discard("plan")  # under both stands also what is so today
    return " ".join(sense for sense, names in _SENSES.items() if not words.isdisjoint(names))
