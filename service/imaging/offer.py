"""What there is to be shown: studies with their series and frames, and in which order they come. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from importlib import resources
from itertools import groupby
from typing import Any

from service.imaging.picture import Header, Spot
from service.imaging.volume import stack_of

PHOTOGRAPHS = "photographs"
"""What the pictures are that the record itself keeps."""
_PLAIN = frozenset({"CR", "DX", "RG"})
_WORD = re.compile(r"[^\W_]+")
_NO_MEANING = frozenset(
    "a an and at by for from in of on or the to with without no not new old left right both history finding "
    "disorder procedure situation examination exam study view views".split()
)
_DAYS = ((30, 3), (365, 2), (5 * 365, 1))
"""A study is worth these points within so many days of the patient's newest one."""
_POINTS_FOR_A_MATCH = 2
_MOST_MATCHES = 2


@dataclass(frozen=True, slots=True)
class Series:
    """One series, its frames in order: along the volume, else by Instance Number."""

    uid: str
    modality: str
    frames: tuple[Spot, ...]
    """Without its planning pictures."""
    places: tuple[float, ...] = ()
    """Millimetres along the volume, frame by frame; empty where they are not known."""
    scouts: tuple[Spot, ...] = ()
    """Its planning pictures: they show where the volume lies, not what is in it."""
    what: str = field(default="", repr=False)
    """Series Description."""
    body_part: str = ""
    laterality: str = ""
    view: str = ""

    @property
    def spots(self) -> tuple[Spot, ...]:
        """All of it, planning pictures last."""
        return (*self.frames, *self.scouts)


@dataclass(frozen=True, slots=True)
class Study:
    """One study as the record and the archive tell it. Unknown words are empty."""

    uid: str
    source: str
    """`ImagingStudy/7`, `Media/3`."""
    series: tuple[Series, ...]
    taken: str = ""
    """`20240131`, or empty."""
    description: str = field(default="", repr=False)
    reason: str = field(default="", repr=False)
    """Why it was ordered."""
    body_site: str = field(default="", repr=False)
    key: frozenset[Spot] = frozenset()
    """What a radiologist marked (Key Object Selection), by frame."""
    is_kept: bool = False
    """True for a picture that the record itself keeps: it has no UIDs, and is one of one."""

    @property
    def modality(self) -> str:
        """The modality of most of its frames that are no scouts; of equals the first by name."""
        counts: dict[str, int] = {}
        for series in self.series:
            counts[series.modality] = counts.get(series.modality, 0) + len(series.frames)
        return min(counts, key=lambda one: (-counts[one], one), default="")

    @property
    def group(self) -> str:
        """Pictures of which kind it holds: `CT`, `X-ray`, `photographs`."""
        if self.is_kept:
            return PHOTOGRAPHS
        return "X-ray" if self.modality in _PLAIN else self.modality

    @property
    def kind(self) -> tuple[str, frozenset[str]]:
        """What a study must share with a prior one to be compared with it: its group and regions."""
        places = (self.body_site, *(series.body_part for series in self.series))
        return self.group, regions_of(places) or regions_of((self.description,))


@dataclass(frozen=True, slots=True)
class Problem:
    """What is being written about: reason for the stay, active problems, a question, a section's heading."""

    words: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Placed:
    """A study in its place, and why it stands there."""

    study: Study
    why: str


def series_of(headers: Iterable[Header]) -> tuple[Series, ...]:
    """Group the headers of one study into series, every frame in its order, whatever order they came in."""
    ordered = sorted(headers, key=lambda one: one.spot.series)
    return tuple(_series(uid, tuple(group)) for uid, group in groupby(ordered, lambda one: one.spot.series))


def rank(studies: Iterable[Study], problem: Problem) -> tuple[Placed, ...]:
    """Order studies by what they have to do with the problem and by how new they are, each before its prior.

    A prior is the newest earlier study of the same kind: it is looked at beside, so it comes right after.
    Pictures that the record itself keeps come after all studies, in the same order among themselves.
    """
    known = list(studies)
    linked, kept = ([one for one in known if one.is_kept is is_kept] for is_kept in (False, True))
    return (*_rank(linked, problem), *_rank(kept, problem))


def _rank(studies: Iterable[Study], problem: Problem) -> tuple[Placed, ...]:
    waiting = sorted(studies, key=lambda one: one.uid)
    newest = max((_day(one.taken) for one in waiting), default=date.min)
    waiting.sort(key=lambda one: (_points(one, problem, newest), _day(one.taken)), reverse=True)
    placed: list[Placed] = []
    while waiting:
        study = waiting.pop(0)
        placed.append(Placed(study, _why(study, problem, newest)))
        if prior := _prior(study, waiting):
            waiting.remove(prior)
            placed.append(Placed(prior, f"earlier {_noun(prior)} of the same kind, to compare"))
    return tuple(placed)


def regions_of(texts: Iterable[str]) -> frozenset[str]:
    """Return the regions of the body that these words speak of."""
    words = _words_of(texts)
    return frozenset(region for region, meant in _data()["regions"].items() if words & set(meant))


def name_of(modality: str) -> str:
    """Return what a picture of a modality is called."""
    return str(_data()["modalities"].get(modality, "medical picture"))


def _series(uid: str, headers: tuple[Header, ...]) -> Series:
    stack = stack_of(headers)
    first = stack.all[0]
    are_single = all(one.frames <= 1 for one in stack.slices)  # of several frames a header places the first
    said = (first.series_description, first.body_part, first.laterality, first.view)
    return Series(
        uid, first.modality, _frames(stack.slices), stack.places if are_single else (),
        _frames(stack.localizers), *said,
    )  # fmt: skip


def _frames(headers: Iterable[Header]) -> tuple[Spot, ...]:
    return tuple(
        replace(one.spot, frame=frame) for one in headers for frame in range(1, max(1, one.frames) + 1)
    )


def _points(study: Study, problem: Problem, newest: date) -> int:
    age = (newest - _day(study.taken)).days
    recent = next((points for days, points in _DAYS if age <= days), 0)
    return recent + bool(study.key) + _POINTS_FOR_A_MATCH * min(_matches(study, problem), _MOST_MATCHES)


def _matches(study: Study, problem: Problem) -> int:
    parts = (series.body_part for series in study.series)
    told = (study.reason, study.body_site, study.description, *parts)
    shared = _words_of(told) & _words_of(problem.words)
    return len(shared) + len(regions_of(told) & regions_of(problem.words))


def _why(study: Study, problem: Problem, newest: date) -> str:
    noun = _noun(study)
    if _matches(study, problem):
        return f"{noun} that has to do with the problem at hand"
    return f"newest {noun}" if study.taken and _day(study.taken) == newest else f"{noun} by its date"


def _noun(study: Study) -> str:
    return "picture of the record" if study.is_kept else "study"


def _prior(study: Study, others: list[Study]) -> Study | None:
    kind, day = study.kind, _day(study.taken)
    earlier = [one for one in others if one.taken and _day(one.taken) < day and _is_same(one.kind, kind)]
    return max(earlier, key=lambda one: (_day(one.taken), one.uid), default=None)


def _is_same(one: tuple[str, frozenset[str]], other: tuple[str, frozenset[str]]) -> bool:
    return one[0] == other[0] and bool(one[1] & other[1] or not (one[1] or other[1]))


def _day(taken: str) -> date:
    """Return the day, the earliest one of all where there is none: what has no date is not new."""
    try:
        return date(int(taken[:4]), int(taken[4:6] or 1), int(taken[6:8] or 1))
    except ValueError:
        return date.min


def _words_of(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in _WORD.findall(text.lower())} - _NO_MEANING


@cache
def _data() -> Mapping[str, Any]:
    return tomllib.loads((resources.files("service.imaging") / "regions.toml").read_text("utf-8"))
