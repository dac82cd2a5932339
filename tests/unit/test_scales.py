"""What an MR series is scaled by: what is shown and an even few, within a time, each file measured once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from service.imaging.offer import Series
from service.imaging.picture import Spot
from service.imaging.reader import Span
from service.imaging.volume import MOST_MEASURED
from service.scales import Scale, Scales

MR = Series("1.2.3", "MR", tuple(Spot("1.2", "1.2.3", f"1.2.3.{number}") for number in range(400)))


def number_of(spot: Spot) -> int:
    return int(spot.instance.rpartition(".")[2])


@dataclass
class Meter:
    """Files whose values are their number and ten more; some hang, some cannot be had."""

    hangs: Callable[[Spot], bool] = lambda spot: False
    fails: Callable[[Spot], bool] = lambda spot: False
    asked: list[tuple[Spot, tuple[int, ...]]] = field(default_factory=list)

    async def measure(self, spot: Spot, frames: Sequence[int]) -> Span | None:
        self.asked.append((spot, tuple(frames)))
        if self.hangs(spot):
            await asyncio.Event().wait()
        return None if self.fails(spot) else (float(number_of(spot)), number_of(spot) + 10.0)


async def test_a_dozen_files_more_than_are_shown_scale_a_series_of_four_hundred() -> None:
    meter = Meter()
    scale = await Scales(meter.measure, 5).of(MR, MR.frames[100:104])
    assert scale == Scale((0.0, 409.0), f"{MOST_MEASURED + 4} of 400 slices")
    assert [number_of(spot) for spot, _ in meter.asked[:4]] == [100, 101, 102, 103]


async def test_a_file_is_measured_once_whatever_is_shown_beside() -> None:
    meter = Meter()
    scales = Scales(meter.measure, 5)
    wide = await scales.of(MR, MR.frames[::40])
    assert await scales.of(MR, MR.frames[::40]) == wide
    await scales.of(MR, MR.frames[::80])
    assert len(meter.asked) == len(set(meter.asked))


async def test_what_is_measured_before_time_is_over_is_the_scale_and_says_so() -> None:
    meter = Meter(hangs=lambda spot: number_of(spot) == 36 or spot.series == "1.2.4")
    scales = Scales(meter.measure, 0.2)
    assert await scales.of(MR, MR.frames[200:202]) == Scale((0.0, 211.0), "3 of 400 slices")
    other = replace(MR, uid="1.2.4", frames=tuple(replace(spot, series="1.2.4") for spot in MR.frames))
    before = len(meter.asked)
    assert await scales.of(other, other.frames[:1]) is None  # one time for all series of a look
    assert len(meter.asked) <= before + 1


async def test_what_cannot_be_had_is_left_out_and_nothing_is_no_scale() -> None:
    some = await Scales(Meter(fails=lambda spot: number_of(spot) > 100).measure, 5).of(MR, MR.frames[:1])
    assert some == Scale((0.0, 83.0), "3 of 400 slices")
    assert await Scales(Meter(fails=lambda spot: True).measure, 5).of(MR, MR.frames[:1]) is None


async def test_values_with_a_unit_are_not_measured() -> None:
    meter = Meter()
    assert await Scales(meter.measure, 5).of(replace(MR, modality="CT"), MR.frames[:1]) is None
    assert meter.asked == []


async def test_frames_of_one_file_are_asked_for_at_once() -> None:
    meter = Meter()
    file = Series("1.2.3", "MR", tuple(Spot("1.2", "1.2.3", "1.2.3.7", frame) for frame in range(1, 9)))
    assert await Scales(meter.measure, 5).of(file, file.frames[:1]) == Scale((7.0, 17.0), "the volume")
    assert meter.asked == [(Spot("1.2", "1.2.3", "1.2.3.7"), tuple(range(1, 9)))]
