"""Our own words in a text that a person filed: found, and put out of evidence (SAFETY 25).

An AI's sentence must never come back as a source. In a clinician's note only the words that were pasted are
blanked; every other word stays where it stood, so that the offsets of what is left are those of the note as
filed. What is compared is words alone: a paste that was reflowed, or lost its bullets or its citations, is
the same paste.

A passage that the record itself bears is no echo of ours merely because a draft repeats it. So a note counts
as a place to paste into only where it may be younger than the draft, words that a draft quotes (“…”) are the
record's own, and a short line is ours only beside another one.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from service.record.notes import Passage, split_note

BANNER = "AI-GENERATED DRAFT, NOT REVIEWED"
"""What begins and ends every text that we write (SAFETY 16)."""
ELIDED = "[…]"
"""Stands for our words inside a sentence that holds words of a person's too."""
ALWAYS, UNDATED, NEVER = float("-inf"), 1e18, float("inf")
"""Instants in seconds: before all drafts; later than all; not at all."""

_GRAM = 6
_LEAST_RUN = 8
"""Words that a person does not write in the same order by chance."""
_LEAST_WORDS, _LEAST_CHARACTERS = 6, 30
"""From this length on a whole line of ours is known wherever it stands; a shorter one only beside another."""
_NEAR = 60
"""Characters before a closing banner that hold the end of the lines of identity."""

_PART = re.compile(r"\[\d{1,3}\]|[^\W_]+")
_QUOTE = re.compile("“[^”]*”")
_MARK = re.compile(r"\((?:added from the record|citation corrected)\)")
_MARKS = ("added from the record", "citation corrected")
_BANNER = re.compile(r"AI-GENERATED\s+DRAFT,?\s+NOT\s+REVIEWED")
_OPENS = re.compile(r"[\s·]*(?:INCOMPLETE: [^\n·]*[\s·]+)?Patient: [^\n·]*·")
_CLOSES = re.compile(r"\d UTC[\s·]*\Z")
_HEAD = re.compile(
    _BANNER.pattern
    + r"(?:[\s·]+(?:INCOMPLETE: [^\n·]*|Patient: [^\n·]*·[^\n·]*· record number (?:not recorded|\S+)"
    r"|Chart\s+read\s+up\s+to\s+[\w: -]{4,20}UTC|Draft\s+expires\s+[\w: -]{4,20}UTC))*"
)
_CITED = re.compile(
    r"^[^\n]{1,2000}\[\d{1,3}\][ \t]*(?:\([a-z ]{1,30}\)[ \t]*){0,2}$|^\[\d{1,3}\] [^\n]+ · [^\n]+$",
    re.MULTILINE,
)
_TAIL = re.compile(r"(?:\[\d{1,3}\]|[^\w\n“(\[])*")


class Line(NamedTuple):
    """One line that an AI wrote."""

    text: str
    is_heading: bool = False


class Word(NamedTuple):
    """One word of a text, folded, with its place there."""

    folded: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Stripped:
    """A text without what was pasted into it: as long as before, each word that is left in its old place."""

    text: str
    passages: int = 0
    """Sentences and lines of the text that were blanked, wholly or in part."""
    is_open: bool = False
    """True where a banner opens a draft that has no end: only what was surely ours is blanked then."""


@dataclass(slots=True)
class OwnWords:
    """The lines of every AI-written document of a chart, each known since it was first written."""

    _lines: dict[str, dict[int, dict[tuple[str, ...], tuple[float, bool]]]] = field(default_factory=dict)
    """First word → length in words → words → (instant in seconds, is a heading)."""
    _grams: dict[tuple[str, ...], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add([Line(mark) for mark in _MARKS], ALWAYS)

    def add(self, lines: Iterable[Line], written: float = ALWAYS) -> None:
        """Take over the lines of one document, written at an instant (seconds)."""
        for line in lines:
            text = _MARK.sub(" ", line.text)
            words = tuple(word.folded for word in words_of(text))
            if not words:
                continue
            same = self._lines.setdefault(words[0], {}).setdefault(len(words), {})
            before = same.get(words, (written, True))
            same[words] = (min(before[0], written), before[1] and line.is_heading)
            for part in _QUOTE.split(text):
                said = [word.folded for word in words_of(part)]
                for gram in _grams(said):
                    self._grams[gram] = min(written, self._grams.get(gram, written))

    def strip(self, text: str, newest: float = UNDATED) -> Stripped:
        """Blank what was pasted into a note, which was last changed at an instant (seconds)."""
        if not self._grams and "AI-GENERATED" not in text:  # most charts hold nothing of ours: cost nothing
            return Stripped(text)
        spans, is_open = banner_spans(text)
        words = words_of(text)
        ours = [any(start <= word.start < end for start, end in spans) for word in words]
        self._mark(words, ours, newest, with_runs=True)
        if True not in ours:
            return Stripped(text, 0, is_open)
        return _blank(text, words, ours, is_open)

    def strip_lines(self, text: str) -> Stripped:
        """Blank whole lines of ours alone: in a text that a person edited, half a line is that person's."""
        words = words_of(text)
        starts = [word.start for word in words]
        ours = [False] * len(words)
        for start, end in _line_spans(text):
            said = tuple(word.folded for word in words_of(_MARK.sub(" ", text[start:end])))
            if said and said in self._lines.get(said[0], {}).get(len(said), {}):
                first, last = bisect_left(starts, start), bisect_left(starts, end)
                ours[first:last] = [True] * (last - first)
        self._mark(words, ours, UNDATED, with_runs=False)
        return _blank(text, words, ours, False) if True in ours else Stripped(text)

    def _mark(self, words: Sequence[Word], ours: list[bool], newest: float, *, with_runs: bool) -> None:
        weak: list[tuple[int, int, bool]] = []
        for first, last, is_heading in self._whole_lines(words, newest):
            length = words[last - 1].end - words[first].start
            if last - first >= _LEAST_WORDS and length >= _LEAST_CHARACTERS:
                ours[first:last] = [True] * (last - first)
            else:
                weak.append((first, last, is_heading))
        for first, last in self._runs(words, newest) if with_runs else ():
            ours[first:last] = [True] * (last - first)
        for first, last, _ in reversed(weak):
            if last < len(ours) and ours[last]:
                ours[first:last] = [True] * (last - first)
        for first, last, is_heading in weak:
            if not is_heading and first and ours[first - 1]:
                ours[first:last] = [True] * (last - first)

    def _whole_lines(self, words: Sequence[Word], newest: float) -> Iterator[tuple[int, int, bool]]:
        """Yield (first, last plus one, is a heading) of the longest line of ours from each word on."""
        place = 0
        folded = [word.folded for word in words]
        while place < len(words):
            step = 1
            for length, lines in sorted(self._lines.get(folded[place], {}).items(), reverse=True):
                found = lines.get(tuple(folded[place : place + length]))
                if found is not None and found[0] <= newest:
                    yield place, place + length, found[1]
                    step = length
                    break
            place += step

    def _runs(self, words: Sequence[Word], newest: float) -> Iterator[tuple[int, int]]:
        """Yield (first, last plus one) of words that stand so, one after another, in a line of ours."""
        folded = [word.folded for word in words]
        first = last = -1
        for place, gram in enumerate(_grams(folded)):
            if self._grams.get(gram, NEVER) > newest:
                continue
            if place != last - _GRAM + 1:
                if last - first >= _LEAST_RUN:
                    yield first, last
                first = place
            last = place + _GRAM
        if last - first >= _LEAST_RUN:
            yield first, last


def words_of(text: str) -> list[Word]:
    """Return the words of a text without citations (`[3]`), folded, each with its place."""
    return [
        Word(found[0].casefold(), found.start(), found.end())
        for found in _PART.finditer(text)
        if found[0][0] != "["
    ]


def _grams(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for place in range(len(words) - _GRAM + 1):
        yield tuple(words[place : place + _GRAM])


def banner_spans(text: str) -> tuple[list[tuple[int, int]], bool]:
    """Return what stands between an opening and a closing banner, both included, and whether one has no end.

    A banner opens only where lines of identity follow it at once, and closes only right after them: a
    sentence that mentions it does neither. One without an end claims, after its lines of identity, only the
    lines that have our form, those with a citation: a forged one, or one whose end was cut off, must not take
    the sentences of a clinician away.
    """
    spans: list[tuple[int, int]] = []
    start, is_open = -1, False
    for found in _BANNER.finditer(text):
        if start >= 0 and _CLOSES.search(text, max(0, found.start() - _NEAR), found.start()):
            spans.append((start, found.end()))
            start = -1
        elif _OPENS.match(text, found.end()):
            if start >= 0:
                spans += _without_end(text, start, found.start())
                is_open = True
            start = found.start()
    if start >= 0:
        spans += _without_end(text, start, len(text))
    return spans, is_open or start >= 0


def _without_end(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield a banner with the identity that follows it at once, and the cited lines up to an offset."""
    head = _HEAD.match(text, start)
    yield start, head.end() if head else start + len(BANNER)
    yield from (found.span() for found in _CITED.finditer(text, start, end))


def _line_spans(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for line in text.split("\n"):
        yield start, start + len(line)
        start += len(line) + 1


def _blank(text: str, words: Sequence[Word], ours: Sequence[bool], is_open: bool) -> Stripped:
    """Blank the marked words with what belongs to them, and say how many passages that touched."""
    shown = list(text)
    ranges = list(_ranges(text, words, ours))
    for start, end in ranges:
        _clear(shown, start, end)
    starts = [word.start for word in words]
    touched = 0
    for passage in split_note(text):
        inside = range(bisect_left(starts, passage.start), bisect_left(starts, passage.end))
        if not any(ours[place] for place in inside):
            continue
        touched += 1
        if any(not ours[place] and not words[place].folded.isdigit() for place in inside):
            _elide(shown, ranges, passage)
        else:
            _clear(shown, passage.start, passage.end)
    return Stripped("".join(shown), touched, is_open)


def _clear(shown: list[str], start: int, end: int) -> None:
    for place in range(start, end):
        if shown[place] != "\n":
            shown[place] = " "


def _ranges(text: str, words: Sequence[Word], ours: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each stretch of marked words, with the signs that follow it on its line."""
    start = -1
    for place, word in enumerate(words):
        if ours[place] and start < 0:
            start = word.start
        if start >= 0 and (place + 1 == len(words) or not ours[place + 1]):
            tail = _TAIL.match(text, word.end)
            yield start, tail.end() if tail else word.end
            start = -1


def _elide(shown: list[str], ranges: Sequence[tuple[int, int]], passage: Passage) -> None:
    """Put a sign that something is left out where our words stood inside a person's sentence."""
    before = bisect_left(ranges, (passage.start, 0))
    for start, end in ranges[max(0, before - 1) :]:
        if start >= passage.end:
            break
        first, last = max(start, passage.start), min(end, passage.end)
        if last - first >= len(ELIDED):
            shown[first : first + len(ELIDED)] = ELIDED
