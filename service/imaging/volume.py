"""Which slices of a series stand for the whole volume. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from service.imaging.picture import Header

MOST_SLICES = 85
"""Of a volume, MedGemma was trained on no more."""
_SAME_PLACE_MM = 0.01
_SAME_NORMAL = 0.99
"""Cosine of the angle below which two slices are not of one stack: about 8 degrees."""


@dataclass(frozen=True, slots=True)
class Slices:
    """The slices that were chosen, in order along the volume, and what became of the others."""

    chosen: tuple[Header, ...]
    of: int
    """Slices of the volume, localizers not counted."""
    localizers: int = 0
    elsewhere: int = 0
    """Slices that lie across the volume, or of which nobody knows where they lie."""


def choose_slices(headers: Sequence[Header], most: int = MOST_SLICES) -> Slices:
    """Choose at most `most` slices, evenly over the millimetres of the volume; without positions by number.

    Where several slices lie in one place (phases, echoes), the one of the lowest number is taken.
    """
    proper = [header for header in headers if not header.is_localizer]
    placed = [header for header in proper if header.position is not None and header.normal]
    if not placed:
        by_number = sorted(proper, key=_number)
        chosen = tuple(by_number[place - 1] for place in spread(len(by_number), most))
        return Slices(chosen, len(proper), len(headers) - len(proper))
    stack = _one_place_each(_main_stack(placed))
    return Slices(
        tuple(_evenly(stack, most)), len(stack), len(headers) - len(proper), len(proper) - len(stack)
    )


def spread(count: int, most: int) -> tuple[int, ...]:
    """Return at most `most` of the numbers 1 to `count`, evenly, the first and the last among them."""
    if count <= 0 or most <= 0:
        return ()
    if count <= most:
        return tuple(range(1, count + 1))
    if most == 1:
        return ((count + 1) // 2,)
    return tuple(1 + round(place * (count - 1) / (most - 1)) for place in range(most))


def _main_stack(placed: Sequence[Header]) -> list[Header]:
    """Return the slices of the commonest direction: a scout without its mark lies across them."""
    directions = Counter(tuple(round(abs(part), 1) for part in header.normal) for header in placed)
    commonest = directions.most_common(1)[0][0]
    first = next(h for h in placed if tuple(round(abs(part), 1) for part in h.normal) == commonest)
    return [header for header in placed if _cosine(header, first) >= _SAME_NORMAL]


def _cosine(one: Header, other: Header) -> float:
    return abs(sum(a * b for a, b in zip(one.normal, other.normal, strict=True)))


def _one_place_each(stack: Sequence[Header]) -> list[Header]:
    found: list[Header] = []
    for header in sorted(stack, key=lambda one: (_place(one), _number(one))):
        if not found or _place(header) - _place(found[-1]) > _SAME_PLACE_MM:
            found.append(header)
    return found


def _evenly(stack: Sequence[Header], most: int) -> list[Header]:
    """Take the slice nearest to each of `most` places at equal distances, none twice."""
    if len(stack) <= most:
        return list(stack)
    first, last = _place(stack[0]), _place(stack[-1])
    step = (last - first) / (most - 1) if most > 1 else 0.0
    wanted = [first + step * place for place in range(most)] if most > 1 else [(first + last) / 2]
    chosen: list[Header] = []
    at = 0
    for target in wanted:
        while at + 1 < len(stack) and abs(_place(stack[at + 1]) - target) <= abs(_place(stack[at]) - target):
            at += 1
        if not chosen or chosen[-1] is not stack[at]:
            chosen.append(stack[at])
    return chosen


def _place(header: Header) -> float:
    return header.position if header.position is not None else 0.0


def _number(header: Header) -> tuple[bool, int, str]:
    return header.number is None, header.number or 0, header.spot.instance
