"""What is black and what is white in an MR: the same in all slices of a series, without fetching all of it.

The values of an MR have no unit: they mean something beside each other only, and a slice that is scaled alone
shows noise as bright as tissue. What is shown and an even few of the others are measured, and the range of
them all becomes the range of grey. A series of 400 slices thus costs a dozen files more than are shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from service.imaging.offer import Series
from service.imaging.picture import Spot
from service.imaging.reader import Span
from service.imaging.volume import to_measure

SCALED = "MR"
"""The modality whose values have no unit."""

Measure = Callable[[Spot, Sequence[int]], Awaitable[Span | None]]
"""Returns the range of values in frames of a file; None where it cannot be had, or is not the patient's."""


class Scale(NamedTuple):
    """Which values become black and white, and what they were measured over, in words."""

    span: Span
    over: str


class Scales:
    """The scales of one look. All of its measuring takes `seconds` at most; the rest is not measured."""

    def __init__(self, measure: Measure, seconds: float) -> None:
        self._measure, self._left_s = measure, seconds
        self._known: dict[tuple[Spot, tuple[int, ...]], Span | None] = {}
        self._made: dict[tuple[Spot, ...], Scale | None] = {}

    async def of(self, series: Series, shown: Collection[Spot]) -> Scale | None:
        """Return the scale of a series of which these are shown; None where nothing of it is measured."""
        if series.modality != SCALED:
            return None
        wanted = to_measure(series.frames, shown)
        if wanted not in self._made:
            self._made[wanted] = await self._scale(wanted, len(series.frames))
        return self._made[wanted]

    async def _scale(self, wanted: Sequence[Spot], count: int) -> Scale | None:
        spans: list[Span] = []
        measured = 0
        started = asyncio.get_running_loop().time()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._left_s)):
                for spot, frames in _by_file(wanted).items():
                    if span := await self._span(spot, tuple(frames)):
                        spans.append(span)
                        measured += len(frames)
        self._left_s -= asyncio.get_running_loop().time() - started
        if not spans:
            return None
        over = "the volume" if measured == count else f"{measured} of {count} slices"
        return Scale((min(low for low, _ in spans), max(high for _, high in spans)), over)

    async def _span(self, spot: Spot, frames: tuple[int, ...]) -> Span | None:
        if (spot, frames) not in self._known:
            self._known[spot, frames] = await self._measure(spot, frames)
        return self._known[spot, frames]


def _by_file(spots: Sequence[Spot]) -> dict[Spot, list[int]]:
    """Return the frames that are wanted of each file, files in the order in which they are first named."""
    found: dict[Spot, list[int]] = {}
    for spot in spots:
        found.setdefault(replace(spot, frame=1), []).append(spot.frame)
    return found
