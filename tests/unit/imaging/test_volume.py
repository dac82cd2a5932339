"""The slices of a series as a volume: planning pictures, order, even stretches, what is measured."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.imaging.offer import series_of
from service.imaging.picture import Header, Spot
from service.imaging.volume import (
    MOST_MEASURED,
    is_localizer,
    middle_first,
    spread,
    stack_of,
    stretches,
    to_measure,
)

Normal = tuple[float, ...]
ALONG, ACROSS, BACK = (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, -1.0)


def a_slice(
    number: int, position: float | None, normal: Normal = ALONG, *kinds: str, what: str = ""
) -> Header:
    spot = Spot("1.2", "1.2.3", f"1.2.3.{number:05}")
    return Header(
        spot, "", "CT", number=number, position=position, normal=normal, image_type=kinds,
        series_description=what,
    )  # fmt: skip


def tilted(degrees: float) -> Normal:
    return (math.sin(math.radians(degrees)), 0.0, math.cos(math.radians(degrees)))


def numbers(headers: Sequence[Header]) -> list[int | None]:
    return [header.number for header in headers]


def test_a_stack_is_in_the_order_of_its_millimetres_whatever_its_numbers() -> None:
    slices = [a_slice(number, -2.5 * number) for number in range(1, 30)]
    random.Random(1).shuffle(slices)
    stack = stack_of(slices)
    assert numbers(stack.slices) == list(range(29, 0, -1))
    assert stack.places == tuple(-2.5 * number for number in range(29, 0, -1))
    assert stack.localizers == ()


def test_localizers_are_left_out_marked_described_or_lying_across() -> None:
    volume = [a_slice(number, float(number)) for number in range(10)]
    marked = a_slice(90, 4.5, ALONG, "ORIGINAL", "PRIMARY", "LOCALIZER")
    described = a_slice(91, 4.5, what="SCOUT_5.0")
    across = a_slice(92, 100.0, ACROSS)
    stack = stack_of([across, marked, described, *volume])
    assert numbers(stack.slices) == list(range(10))
    assert numbers(stack.localizers) == [90, 91, 92]
    assert stack.places == tuple(float(number) for number in range(10))


def test_only_a_slice_of_a_volume_is_a_planning_picture() -> None:
    xray = Header(Spot("1", "2", "3"), "", "DX", series_description="Scout", image_type=("LOCALIZER",))
    assert not is_localizer(xray)
    assert is_localizer(a_slice(1, None, (), what="3-plane"))


def test_slices_that_turn_about_an_axis_are_no_localizers_and_follow_their_numbers() -> None:
    turning = [a_slice(number, float(-number), tilted(10 * number)) for number in range(18)]
    stack = stack_of(turning)
    assert numbers(stack.slices) == list(range(18))
    assert (stack.places, stack.localizers) == ((), ())


def test_discs_that_are_cut_at_angles_of_their_own_are_a_stack_without_millimetres() -> None:
    discs = [a_slice(number, 300.0 - number, tilted(12 * (number // 4))) for number in range(1, 12)]
    stack = stack_of(discs)
    assert numbers(stack.slices) == list(range(1, 12))
    assert (stack.places, stack.localizers) == ((), ())


def test_a_normal_that_points_the_other_way_is_the_same_line() -> None:
    stack = stack_of([a_slice(1, 1.0), a_slice(2, -2.0, BACK), a_slice(3, 3.0)])
    assert numbers(stack.slices) == [1, 2, 3]
    assert stack.places == (1.0, 2.0, 3.0)


def test_without_all_positions_the_numbers_decide() -> None:
    stack = stack_of([a_slice(10, 0.0), a_slice(9, None, ()), a_slice(1, 5.0)])
    assert numbers(stack.slices) == [1, 9, 10]
    assert stack.places == ()
    assert stack_of([]) == ((), (), ())


def test_a_series_offers_its_slices_with_their_places_and_its_planning_pictures_apart() -> None:
    (series,) = series_of([a_slice(3, 0.0, ACROSS), *(a_slice(number, 9.0 - number) for number in (4, 5, 6))])
    assert [spot.instance[-1] for spot in series.frames] == ["6", "5", "4"]
    assert series.places == (3.0, 4.0, 5.0)
    assert [spot.instance[-1] for spot in series.scouts] == ["3"]
    assert series.spots == (*series.frames, *series.scouts)


def test_of_slices_with_several_frames_no_places_are_known() -> None:
    many = Header(Spot("1", "2", "3"), "", "MR", frames=4, number=1, position=1.0, normal=ALONG)
    (series,) = series_of([many])
    assert [spot.frame for spot in series.frames] == [1, 2, 3, 4]
    assert series.places == ()


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.sampled_from([ALONG, ACROSS, BACK])), max_size=60),
    st.integers(0, 99),
)
def test_every_slice_is_in_one_place_and_no_order_of_arrival_matters(
    given_places: list[tuple[float, Normal]], seed: int
) -> None:
    headers = [a_slice(number, *place) for number, place in enumerate(given_places)]
    stack = stack_of(headers)
    assert sorted(header.spot for header in stack.all) == sorted(header.spot for header in headers)
    assert list(stack.places) == sorted(stack.places)
    assert len(stack.places) in (0, len(stack.slices))
    assert bool(stack.slices) is bool(headers)
    shuffled = list(headers)
    random.Random(seed).shuffle(shuffled)
    assert stack_of(shuffled) == stack


def test_two_thousand_slices_are_cut_into_stretches_of_equal_millimetres() -> None:
    places = [number * 0.6 for number in range(2000)]
    middles = [places[middle_first(one, places)[0]] for one in stretches(2000, places, 85)]
    gaps = [after - before for before, after in pairwise(middles)]
    assert len(middles) == 85
    assert max(gaps) - min(gaps) <= 0.6 + 1e-6


@given(
    st.lists(st.floats(-1e3, 1e3), max_size=80).map(sorted),
    st.integers(0, 100),
    st.booleans(),
)
def test_stretches_hold_every_slice_once_and_none_is_empty(
    places: list[float], share: int, is_placed: bool
) -> None:
    found = stretches(len(places), places if is_placed else [], share)
    assert len(found) == min(share, len(places))
    assert all(len(one) for one in found)
    if found:
        assert [n for one in found for n in one] == list(range(len(places)))


@pytest.mark.parametrize(("share", "middles"), [(1, [5]), (2, [2, 7])])
def test_a_stretch_is_told_by_its_middle(share: int, middles: list[int]) -> None:
    assert [middle_first(one, [])[0] for one in stretches(11, [], share)] == middles


def test_what_is_measured_of_a_series_is_what_is_shown_and_an_even_few() -> None:
    frames = [Spot("1.2", "1.2.3", str(number)) for number in range(400)]
    found = to_measure(frames, {frames[7], frames[399]})
    assert set(found) > {frames[0], frames[7], frames[399]}
    assert found[:2] == (frames[7], frames[399])  # these first: time may be short
    assert len(found) == len(set(found)) <= MOST_MEASURED + 2
    gaps = [int(b.instance) - int(a.instance) for a, b in pairwise(sorted(found, key=frames.index)[2:])]
    assert max(gaps) <= 400 // (MOST_MEASURED - 1) + 1
    assert to_measure(frames[:5], frames[:1]) == tuple(frames[:5])


@given(st.integers(0, 3000), st.integers(0, 100))
def test_a_spread_is_even_without_doubles_and_within_bounds(count: int, most: int) -> None:
    found = spread(count, most)
    assert len(found) == len(set(found)) == min(count, most)
    assert all(1 <= number <= count for number in found)
    assert list(found) == sorted(found)
    if len(found) > 1:
        gaps = [after - before for before, after in pairwise(found)]
        assert max(gaps) - min(gaps) <= 1
        assert (found[0], found[-1]) == (1, count)
