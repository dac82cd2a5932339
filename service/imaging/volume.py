"""The slices of one series as a volume: which are planning pictures, in what order, and what stands for all.

The one rule for each, whoever shows slices. Pure.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

from service.imaging.picture import Header, Spot

VOLUMES = frozenset({"CT", "MR", "PT"})
"""Modalities whose series are stacks of slices through a body."""
MOST_SLICES = 85
"""Of a volume, MedGemma was trained on no more."""
MOST_MEASURED = 12
"""Slices that stand for the brightness of a whole series, beside those that are shown."""
_SCOUT = re.compile(
    r"\b(scout|localizer|localiser|topogram|surview|scanogram|loc|3[ -]?plane)\b", re.IGNORECASE
)
_SAME_NORMAL = 0.99
"""Cosine of the angle below which millimetres of two slices are not of one line: about 8 degrees."""
_ACROSS = math.cos(math.radians(45))
_MOST_OF_THEM = 2 / 3
"""A volume has a direction where so many of its slices share it; slices that turn about an axis have none."""


class Stack(NamedTuple):
    """One series: its slices in order, where each lies, and what shows only where they lie."""

    slices: tuple[Header, ...]
    places: tuple[float, ...]
    """Millimetres along the normal, slice by slice; empty where they do not all lie on one line."""
    localizers: tuple[Header, ...]

    @property
    def all(self) -> tuple[Header, ...]:
        """Every instance, localizers last."""
        return (*self.slices, *self.localizers)


def stack_of(headers: Sequence[Header]) -> Stack:
    """Put the headers of one series in order, along the normal or else by Instance Number.

    A localizer is what says so (Image Type, or its series' description), or lies across the others.
    """
    ordered = sorted(headers, key=_number)
    named = [header for header in ordered if is_localizer(header)]
    rest = [header for header in ordered if not is_localizer(header)]
    direction = _direction(rest)
    across = [header for header in rest if _lies_across(header, direction)]
    slices = [header for header in rest if not _lies_across(header, direction)]
    places = _places(slices)
    if places:
        places, slices = _along(places, slices)
    return Stack(tuple(slices), tuple(places), (*named, *across))


def is_localizer(header: Header) -> bool:
    """Tell whether a slice calls itself a planning picture: of where a volume lies, not of what is in it."""
    words = header.series_description.replace("_", " ")
    return header.modality in VOLUMES and ("LOCALIZER" in header.image_type or bool(_SCOUT.search(words)))


def stretches(count: int, places: Sequence[float], share: int) -> list[range]:
    """Cut the slices of a stack into so many stretches of equal millimetres, none of them empty.

    Without places each slice counts as thick as the others. There are no more stretches than slices.
    """
    share = min(share, count)
    if share < 1:
        return []
    at = places if len(places) == count and places[-1] > places[0] else range(count)
    half = (at[-1] - at[0]) / (count - 1) / 2 if count > 1 else 0.5
    first, length = at[0] - half, at[-1] - at[0] + 2 * half
    bounds = [0]
    for number in range(1, share):
        found = bisect_left(at, first + length * number / share)
        bounds.append(min(max(found, bounds[-1] + 1), count - share + number))
    return [range(start, end) for start, end in pairwise([*bounds, count])]


def middle_first(stretch: range, places: Sequence[float]) -> list[int]:
    """Return the slices of a stretch, the one nearest to its middle first."""
    at = [places[n] if places else float(n) for n in stretch]
    middle = (at[0] + at[-1]) / 2
    return [n for _, n in sorted((abs(place - middle), n) for place, n in zip(at, stretch, strict=True))]


def to_measure(frames: Sequence[Spot], shown: Collection[Spot]) -> tuple[Spot, ...]:
    """Return which frames of a series tell what is dark and bright in it: what is shown, then an even few."""
    sample = (frames[number - 1] for number in spread(len(frames), MOST_MEASURED))
    return tuple(dict.fromkeys((*(spot for spot in frames if spot in shown), *sample)))


def spread(count: int, most: int) -> tuple[int, ...]:
    """Return at most `most` of the numbers 1 to `count`, evenly, the first and the last among them."""
    if count <= 0 or most <= 0:
        return ()
    if count <= most:
        return tuple(range(1, count + 1))
    if most == 1:
        return ((count + 1) // 2,)
    return tuple(1 + round(place * (count - 1) / (most - 1)) for place in range(most))


def _direction(headers: Sequence[Header]) -> tuple[float, ...]:
    """Return the normal that most slices share but for a tilt, as one of them has it; else none."""
    placed = [header for header in headers if header.modality in VOLUMES and header.normal]
    if not placed:
        return ()
    commonest = Counter(header.normal for header in placed).most_common(1)[0][0]
    along = sum(abs(_cosine(header.normal, commonest)) >= _ACROSS for header in placed)
    return commonest if along >= _MOST_OF_THEM * len(placed) else ()


def _lies_across(header: Header, direction: tuple[float, ...]) -> bool:
    return bool(direction and header.normal) and abs(_cosine(header.normal, direction)) < _ACROSS


def _places(slices: Sequence[Header]) -> list[float]:
    """Return where each slice lies; nothing where one is not known, or they do not lie on one line.

    Discs of a spine are cut at angles of their own: only their numbers tell the order.
    """
    found = []
    for header in slices:
        cosine = _cosine(header.normal, slices[0].normal)
        if header.position is None or abs(cosine) < _SAME_NORMAL:
            return []
        found.append(math.copysign(1, cosine) * header.position)
    return found


def _along(places: Sequence[float], slices: Sequence[Header]) -> tuple[list[float], list[Header]]:
    order = sorted(range(len(slices)), key=places.__getitem__)  # of one place the lowest number first
    return [places[n] for n in order], [slices[n] for n in order]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    if one == other:
        return 1.0
    return sum(a * b for a, b in zip(one, other, strict=True)) if one and other else 0.0


def _number(header: Header) -> tuple[int, str]:
    return header.number or 0, header.spot.instance
