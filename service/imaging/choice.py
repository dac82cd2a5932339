"""Which pictures the model is shown: few, the right ones, and for a reason that can be read. Pure.

Radiologists' key images come first, then one picture of each kind at hand: of each modality, and of the
record's own photographs. Studies share what is left by their order; within one, a volume is cut into
stretches of equal millimetres with one slice each, and other pictures are chosen for what they show and for
being unlike each other. What they show is measured by an image encoder against words; without one, rules
alone decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.imaging.offer import PHOTOGRAPHS, Placed, Problem, Series, Study, name_of, rank
from service.imaging.picture import Spot
from service.imaging.volume import MOST_SLICES, VOLUMES, middle_first, stretches

Vector: TypeAlias = NDArray[np.float32]
"""An embedding of length one."""

_MOST_OF_A_STUDY = 6
"""Pictures of a study that is no volume: views of a joint, planes of an ultrasound."""
_AT_A_TIME = {"volume": 8, "other": 2}
"""How many pictures a study takes when its turn comes: one slice of a volume shows little."""
_AT_A_TIME_OF_A_SERIES = 4
_RELEVANCE = 0.5
"""Weight of the score in maximal marginal relevance (Carbonell, Goldstein 1998); the rest is unlikeness."""
_MOST_PROMPTS = 8
_MOST_CHARACTERS = 160
_TO_CHOOSE_FROM = 4
"""Pictures that are embedded for each that may be shown."""
_MOST_TO_EMBED = 512

_FITS = "fits its words, and shows something else than the others"

BY_RULES = (
    "chosen by rules alone, without an image encoder: key images, one picture of each kind, then the middles "
    "of equal stretches of each series, of studies by problem, date and comparison"
)
BY_SIGHT = (
    "chosen with an image encoder: key images, one picture of each kind, then by likeness to the words of "
    "reason, body site and problem, and unlike each other, of studies by problem, date and comparison"
)

SCOUT = "planning picture of a volume, or lies across it"
NO_ROOM = "no room: its study comes after those that are shown"
NO_ROOM_KEPT = "no room: linked studies come first, then pictures of the record that are more to the point"
BETWEEN = "lies between slices that are shown"
LESS = "others of its study are more to the point"
ALIKE = "much like one that is shown"
UNSEEN = "could not be decoded, or was not looked at by the image encoder"


@dataclass(frozen=True, slots=True)
class Sight:
    """What an image encoder made of candidates and prompts, and how it turns likeness into a score."""

    images: Mapping[Spot, Vector] = field(repr=False)
    prompts: Mapping[str, Vector] = field(repr=False)
    scale: float = 1.0
    bias: float = 0.0

    def score(self, likeness: float) -> float:
        """Return 0 to 1 by the encoder's own sigmoid: a measure of fit, no probability of a disease."""
        at = max(-60.0, min(60.0, self.scale * likeness + self.bias))
        return 1 / (1 + exp(-at))


@dataclass(frozen=True, slots=True)
class Chosen:
    """One picture to be shown, why, and its score where an encoder gave one."""

    spot: Spot
    source: str
    why: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many pictures of a study are not shown, for one reason."""

    study: str
    source: str
    why: str
    count: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What is shown, study by study in their order, what is not, and how that was decided."""

    chosen: tuple[Chosen, ...]
    left_out: tuple[LeftOut, ...]
    how: str


def choose(studies: Iterable[Study], problem: Problem, most: int, sight: Sight | None = None) -> Choice:
    """Choose at most `most` pictures. The same studies, in any order, give the same choice.

    With a `sight`, only pictures that it holds can be chosen: embed those of `shortlist` before.
    """
    return _choose(studies, problem, most, sight, 1)


def shortlist(studies: Iterable[Study], problem: Problem, most: int) -> tuple[Spot, ...]:
    """Return which pictures are worth embedding before `choose`: at most 512, some for each that is shown."""
    wider = min(_TO_CHOOSE_FROM * most, _MOST_TO_EMBED)
    return tuple(one.spot for one in _choose(studies, problem, wider, None, _TO_CHOOSE_FROM).chosen)


def prompts_of(study: Study, problem: Problem) -> tuple[str, ...]:
    """Return the sentences that pictures of a study are measured against, at most eight, without repeats."""
    name = name_of(study.modality)
    site = study.body_site or next((one.body_part for one in study.series if one.body_part), "")
    where = f"{name} of the {site.lower()}" if site else name
    shown = [words for words in (study.reason, *problem.words) if words.strip()]
    prompts = [*(f"{where} showing {words.strip()}" for words in shown), where]
    return tuple(dict.fromkeys(prompt[:_MOST_CHARACTERS] for prompt in prompts))[:_MOST_PROMPTS]


def _choose(studies: Iterable[Study], problem: Problem, most: int, sight: Sight | None, wide: int) -> Choice:
    looks = [_Look(one, problem, sight, wide) for one in rank(studies, problem)]
    keys = _deal([len(look.keys) for look in looks], [max(1, most)] * len(looks), _room_for_keys(looks, most))
    rest = most - sum(keys)
    free = [look.capacity(key) for look, key in zip(looks, keys, strict=True)]
    kept = _one_of_each(looks, keys, free, rest)
    quotas = _deal(free, [look.turn for look in looks], rest, kept)
    chosen: list[Chosen] = []
    left: list[LeftOut] = []
    for look, key, quota in zip(looks, keys, quotas, strict=True):
        picked = look.pick(key, quota)
        chosen += picked
        left += look.leave(picked)
    return Choice(tuple(chosen), tuple(left), BY_RULES if sight is None else BY_SIGHT)


class _Look:
    """One study looked at: what of it can be shown, and how well each picture fits."""

    def __init__(self, placed: Placed, problem: Problem, sight: Sight | None, wide: int) -> None:
        self.study, self._why, self._sight = placed.study, placed.why, sight
        self._series = [one for one in _in_order(self.study) if one.frames]
        self._at = {
            spot: at for one in self._series for spot, at in zip(one.frames, one.places, strict=False)
        }
        seen = [spot for one in self.study.series for spot in one.spots]
        self._shown = [spot for spot in seen if sight is None or spot in sight.images]
        self._likeness = self._measure(problem)
        self.keys = [spot for spot in self._shown if spot in self.study.key]
        self.is_volume = self.study.modality in VOLUMES
        self.turn = _AT_A_TIME["volume" if self.is_volume else "other"]
        self._most = wide * (MOST_SLICES if self.is_volume else _MOST_OF_A_STUDY)

    def capacity(self, keys: int) -> int:
        """Return how many it may give beside so many key images."""
        free = sum(len(frames) for _, frames in self._free(keys))
        return max(0, min(free, self._most - keys))

    def pick(self, keys: int, quota: int) -> list[Chosen]:
        """Return the key images and then so many others."""
        marked = [Chosen(spot, self.study.source, "key image, marked by the radiologist", self._score(spot))
                  for spot in self.keys[:keys]]  # fmt: skip
        free = self._free(keys)
        if self._sight is None or self.is_volume:
            return marked + self._evenly(free, quota)
        return marked + self._unlike([spot for _, frames in free for spot in frames], quota)

    def leave(self, picked: Sequence[Chosen]) -> list[LeftOut]:
        """Count what is not shown, by reason."""
        shown = {one.spot for one in picked}
        scouts = {spot for one in self.study.series for spot in one.scouts}
        frames = [spot for one in self.study.series for spot in one.spots if spot not in shown]
        counts = Counter(self._why_not(spot, shown, scouts) for spot in frames)
        return [LeftOut(self.study.uid, self.study.source, why, counts[why]) for why in sorted(counts)]

    def _why_not(self, spot: Spot, shown: set[Spot], scouts: set[Spot]) -> str:
        if spot in scouts:
            return SCOUT
        if self._sight is not None and spot not in self._sight.images:
            return BETWEEN if self.is_volume and shown else UNSEEN
        if not shown:
            return NO_ROOM_KEPT if self.study.is_kept else NO_ROOM
        if self.is_volume:
            return BETWEEN if spot.series in {one.series for one in shown} else LESS
        least = min((self._likeness.get(one, 0.0) for one in shown), default=0.0)
        return ALIKE if self._sight is not None and self._likeness[spot] > least else LESS

    def _free(self, keys: int) -> list[tuple[Series, list[Spot]]]:
        allowed = set(self._shown) - set(self.keys[:keys])
        return [(one, [spot for spot in one.frames if spot in allowed]) for one in self._series]

    def _evenly(self, series: Sequence[tuple[Series, Sequence[Spot]]], quota: int) -> list[Chosen]:
        # A CT is one volume told in several reconstructions: the first with room is shown. The sequences of
        # an MR and the views of an X-ray each show something else: they take turns.
        turn = MOST_SLICES if self.study.modality == "CT" else _AT_A_TIME_OF_A_SERIES if self.is_volume else 1
        shares = _deal([len(frames) for _, frames in series], [turn] * len(series), quota)
        return [
            Chosen(spot, self.study.source, self._why_shown(number, share), self._score(spot))
            for (_, frames), share in zip(series, shares, strict=True)
            for number, spot in enumerate(self._of_stretches(frames, share), 1)
        ]  # fmt: skip

    def _why_shown(self, number: int, share: int) -> str:
        if self.study.is_kept:  # there is no series that it could be a part of
            return self._why
        return f"{self._why}; {_stretch(number, share, self.is_volume)}"

    def _of_stretches(self, frames: Sequence[Spot], share: int) -> list[Spot]:
        at = [self._at[spot] for spot in frames] if all(spot in self._at for spot in frames) else []
        orders = [middle_first(stretch, at) for stretch in stretches(len(frames), at, share)]
        return [max((frames[n] for n in order), key=self._fits) for order in orders]

    def _fits(self, spot: Spot) -> float:
        return self._likeness.get(spot, 0.0)

    def _unlike(self, frames: Sequence[Spot], quota: int) -> list[Chosen]:
        why = self._why if self.study.is_kept else f"{self._why}; {_FITS}"
        picked = _marginal([self._vector(spot) for spot in frames],
                           [self._likeness[spot] for spot in frames], quota)  # fmt: skip
        return [Chosen(frames[n], self.study.source, why, self._score(frames[n])) for n in sorted(picked)]

    def _measure(self, problem: Problem) -> dict[Spot, float]:
        if self._sight is None:
            return {}
        known = [self._sight.prompts.get(prompt) for prompt in prompts_of(self.study, problem)]
        prompts = [one for one in known if one is not None]
        if not prompts:
            return dict.fromkeys(self._shown, 0.0)
        matrix = np.stack(prompts)
        return {spot: float(np.max(matrix @ self._vector(spot))) for spot in self._shown}

    def _vector(self, spot: Spot) -> Vector:
        assert self._sight is not None
        return self._sight.images[spot]

    def _score(self, spot: Spot) -> float | None:
        return None if self._sight is None else self._sight.score(self._likeness[spot])


def _in_order(study: Study) -> list[Series]:
    """Return its series: what speaks of the body site first, then the largest; the same on every day."""
    site = study.body_site.lower()
    return sorted(
        study.series,
        key=lambda one: (not (one.body_part and one.body_part.lower() in site), -len(one.frames), one.uid),
    )


def _room_for_keys(looks: Sequence[_Look], most: int) -> int:
    """Return how many key images fit: half of the room where there is something beside them, else all."""
    marked = sum(len(look.keys) for look in looks)
    others = sum(look.capacity(len(look.keys)) for look in looks)
    return min(marked, max((most + 1) // 2, most - others))


def _one_of_each(looks: Sequence[_Look], keys: Sequence[int], free: Sequence[int], most: int) -> list[int]:
    """Return one picture for the first study of each kind that shows no key image, as far as there is room.

    Otherwise one volume takes all, and photographs of the record, which come last, have no room in a chart
    of many studies. They are the second kind where not every kind has room.
    """
    firsts: dict[str, int] = {}
    for place, look in enumerate(looks):
        if free[place]:
            firsts.setdefault(look.study.group, place)
    marked = {look.study.group for look, key in zip(looks, keys, strict=True) if key}
    linked = [kind for kind in firsts if kind != PHOTOGRAPHS]
    kinds = (*linked[:1], PHOTOGRAPHS, *linked[1:])
    wanted = [firsts[kind] for kind in kinds if kind in firsts and kind not in marked]
    given = wanted[: max(0, most)]
    return [int(place in given) for place in range(len(looks))]


def _deal(capacities: Sequence[int], turns: Sequence[int], most: int, kept: Sequence[int] = ()) -> list[int]:
    """Deal out so many in turns, each taking its own number at a time, until all is given or all are full.

    What is `kept` for one is given before, and counts as part of its first turn.
    """
    given = list(kept) or [0] * len(capacities)
    before = list(given)
    while (left := most - sum(given)) > 0 and given != list(capacities):
        for place, turn in enumerate(turns):
            taken = min(turn - before[place], capacities[place] - given[place], left)
            given[place] += taken
            left -= taken
        before = [0] * len(capacities)
    return given


def _marginal(vectors: Sequence[Vector], likeness: Sequence[float], most: int) -> list[int]:
    """Choose by maximal marginal relevance; of equals the first.

    Scores, and likeness among the pictures, are each spread over 0 to 1: pictures of one study all look much
    alike to an encoder, and none much like a sentence.
    """
    if not vectors or most < 1:
        return []
    matrix = np.stack(vectors)
    relevance, alike = _spread(np.asarray(likeness)), _spread(matrix @ matrix.T)
    nearest = np.zeros(len(vectors))
    picked: list[int] = []
    while len(picked) < min(most, len(vectors)):
        worth = _RELEVANCE * relevance - (1 - _RELEVANCE) * nearest
        worth[picked] = -np.inf
        picked.append(int(np.argmax(worth)))
        nearest = np.maximum(nearest, alike[picked[-1]])
    return picked


def _spread(values: NDArray[Any]) -> NDArray[np.float64]:
    exact = np.asarray(values, np.float64)
    spread: NDArray[np.float64] = (exact - exact.min()) / (np.ptp(exact) or 1.0)
    return spread


def _stretch(number: int, share: int, is_volume: bool) -> str:
    if is_volume:
        return f"stretch {number} of {share} of the volume"
    return "the middle of its series" if share == 1 else f"part {number} of {share} of its series"
