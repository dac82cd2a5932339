"""Which slices stand for a volume."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.imaging.picture import Header, Spot
from service.imaging.volume import choose_slices, spread

ALONG, ACROSS = (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)


def a_slice(number: int, position: float | None, normal: tuple[float, ...] = ALONG, *kinds: str) -> Header:
    spot = Spot("1.2", "1.2.3", f"1.2.3.{number}")
    return Header(spot, "", "CT", number=number, position=position, normal=normal, image_type=kinds)


def numbers(headers: tuple[Header, ...]) -> list[int | None]:
    return [header.number for header in headers]


def test_a_long_volume_is_thinned_evenly_over_its_millimetres() -> None:
    slices = [a_slice(number, number * 0.6) for number in range(1, 2001)]
    random.Random(1).shuffle(slices)
    found = choose_slices(slices)
    places = [header.position or 0.0 for header in found.chosen]
    gaps = [after - before for before, after in pairwise(places)]
    assert len(found.chosen) == 85
    assert (found.chosen[0].number, found.chosen[-1].number) == (1, 2000)
    assert max(gaps) - min(gaps) <= 1.21
    assert found.of == 2000


def test_slices_that_lie_closer_in_one_part_do_not_crowd_out_the_rest() -> None:
    """Thin slices through the inner ear, thick ones through the rest of the head."""
    thin = [a_slice(number, number * 0.1) for number in range(100)]
    thick = [a_slice(100 + number, 10.0 + number * 5) for number in range(20)]
    chosen = choose_slices([*thin, *thick], 20).chosen
    assert sum((header.position or 0) >= 10 for header in chosen) >= 15


def test_localizers_are_left_out_marked_or_not() -> None:
    volume = [a_slice(number, float(number)) for number in range(10)]
    marked = a_slice(90, 4.5, ALONG, "ORIGINAL", "PRIMARY", "LOCALIZER")
    unmarked = a_slice(91, 100.0, ACROSS)
    found = choose_slices([marked, unmarked, *volume])
    assert numbers(found.chosen) == list(range(10))
    assert (found.localizers, found.elsewhere) == (1, 1)


def test_of_several_slices_in_one_place_one_is_taken() -> None:
    phases = [a_slice(number, float(number % 5)) for number in range(15)]
    assert numbers(choose_slices(phases).chosen) == [0, 1, 2, 3, 4]


def test_without_positions_the_numbers_decide() -> None:
    found = choose_slices([a_slice(number, None, ()) for number in (3, 1, 2)], 2)
    assert numbers(found.chosen) == [1, 3]
    assert choose_slices([]).chosen == ()


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


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.sampled_from([ALONG, ACROSS])), max_size=60),
    st.integers(1, 20),
)
def test_no_more_than_wanted_in_order_and_none_twice(
    places: list[tuple[float, tuple[float, ...]]], most: int
) -> None:
    slices = [a_slice(number, *place) for number, place in enumerate(places)]
    found = choose_slices(slices, most)
    along = [header.position or 0.0 for header in found.chosen]
    assert len(found.chosen) <= most
    assert along == sorted(along)
    assert len({header.spot for header in found.chosen}) == len(found.chosen)
    assert found.of + found.elsewhere == len(slices)
    assert bool(found.chosen) is bool(slices)


@pytest.mark.parametrize("most", [1, 2])
def test_one_slice_is_the_middle_and_two_are_the_ends(most: int) -> None:
    found = numbers(choose_slices([a_slice(number, float(number)) for number in range(11)], most).chosen)
    assert found == ([5] if most == 1 else [0, 10])
