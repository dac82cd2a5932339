"""Values become grey or colour: monotonic, within a byte, and by the numbers of the standard."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.imaging.window import CT_WINDOWS, Function, Window, apply_window, colour_ct, spread_range

NUMBERS = st.floats(-1e6, 1e6, width=32)
ANYTHING = st.floats(width=32)


def values(*numbers: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([numbers], dtype=np.float32)


@given(st.lists(ANYTHING, min_size=2, max_size=30), NUMBERS, st.floats(1, 1e6), st.sampled_from(Function))
def test_a_window_is_monotonic_and_stays_within_a_byte(
    numbers: list[float], center: float, width: float, function: Function
) -> None:
    known = sorted(number for number in numbers if number == number)
    shown = apply_window(values(*known), Window(center, width, function))[0].astype(int)
    assert all(0 <= grey <= 255 for grey in shown)
    assert all(one <= other for one, other in pairwise(shown))


@given(st.lists(NUMBERS, min_size=2, max_size=30), NUMBERS, NUMBERS)
def test_a_range_is_monotonic_and_its_ends_are_black_and_white(
    numbers: list[float], one: float, other: float
) -> None:
    low, high = sorted((one, other))
    shown = spread_range(values(*sorted(numbers)), low, high)[0].astype(int)
    assert all(a <= b for a, b in pairwise(shown))
    if high - low > 1:
        assert spread_range(values(low, high), low, high).tolist() == [[0, 255]]


@given(st.lists(NUMBERS, min_size=2, max_size=30))
def test_each_colour_of_a_ct_is_monotonic(numbers: list[float]) -> None:
    shown = colour_ct(values(*sorted(numbers)))[0].astype(int)
    assert shown.min(initial=255) >= 0
    assert shown.max(initial=0) <= 255
    assert (np.diff(shown, axis=0) >= 0).all()


@pytest.mark.parametrize(
    ("hounsfield", "colour"),
    [
        (-3024, (0, 0, 0)),
        (-1024, (0, 0, 0)),
        (-1000, (3, 0, 0)),  # air
        (-135, (111, 0, 0)),
        (-100, (115, 25, 0)),  # fat is seen in green: with +135 as the lower end it would be black
        (0, (128, 98, 0)),  # water
        (40, (132, 128, 128)),  # brain, muscle
        (80, (137, 157, 255)),
        (215, (154, 255, 255)),
        (1024, (255, 255, 255)),  # dense bone
        (3071, (255, 255, 255)),
    ],
)
def test_known_tissues_have_the_colours_that_medgemma_knows(
    hounsfield: int, colour: tuple[int, int, int]
) -> None:
    shown = colour_ct(values(hounsfield))[0, 0].astype(int)
    assert np.abs(shown - np.array(colour)).max() <= 1
    assert CT_WINDOWS == ((-1024, 1024), (-135, 215), (0, 80))


def test_the_functions_are_those_of_the_standard() -> None:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, by their formulas for c = 100, w = 50."""
    x = np.array([[74.0, 75.0, 76.0, 99.5, 100.0, 124.0, 125.0]], dtype=np.float32)
    linear = np.clip(((x - 99.5) / 49 + 0.5) * 255, 0, 255)
    exact = np.clip((x - 100) / 50 * 255 + 127.5, 0, 255)
    sigmoid = 255 / (1 + np.exp(-4 * (x - 100) / 50))
    for function, wanted in (
        (Function.LINEAR, linear), (Function.EXACT, exact), (Function.SIGMOID, sigmoid),
    ):  # fmt: skip
        assert np.abs(apply_window(x, Window(100, 50, function)).astype(float) - wanted).max() <= 0.51
    assert apply_window(values(99, 99.5, 100), Window(100, 1)).tolist() == [[0, 0, 255]]


@pytest.mark.parametrize(
    ("window", "is_usable"),
    [
        (Window(40, 400), True), (Window(40, 0.5), False), (Window(40, 0), False), (Window(40, -4), False),
        (Window(40, 0.5, Function.EXACT), True), (Window(40, 0, Function.SIGMOID), False),
        (Window(float("nan"), 4), False), (Window(0, float("inf")), False),
    ],
)  # fmt: skip
def test_a_window_that_the_standard_forbids_is_not_used(window: Window, is_usable: bool) -> None:
    assert window.is_usable is is_usable
