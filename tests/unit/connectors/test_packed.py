"""Packed: what goes in comes out, decoded or packed, from memory or from bytes; damage is refused."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.codec import encode
from connectors.fhir.packed import PAGE, Packed
from tests.conftest import CANARY

_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_NUMBERS = st.integers() | st.decimals(allow_nan=False, allow_infinity=False)
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)
_CHARTS = st.lists(st.dictionaries(_TEXT, _VALUES, max_size=4), max_size=8)


def _packed(resources: list[Any], held_bytes: int = 0) -> Packed:
    packed = Packed(held_bytes=held_bytes)
    packed.extend(resources, len(resources) + 1)
    return packed


@given(_CHARTS)
def test_any_json_comes_back_held_packed_and_loaded(chart: list[Any]) -> None:
    held, packed = Packed(chart), _packed(chart)
    loaded = Packed.load(held.dump(), held_bytes=0)
    assert held.held == len(chart)
    assert packed.held == loaded.held == 0
    for form in (held, packed, loaded, Packed.load(packed.dump())):
        assert list(form) == list(form) == chart
        assert len(form) == len(chart)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_every_digit_is_kept(number: Decimal) -> None:
    text = encode(number)
    (resource,) = _packed([{"value": number}])
    assert encode(resource["value"]) == text


def test_a_trailing_zero_is_kept() -> None:
    assert [str(r["value"]) for r in _packed([{"value": Decimal("6.10")}])] == ["6.10"]


@pytest.mark.parametrize("bad", [{"text": "\ud800"}, {"value": Decimal("NaN")}])
def test_what_json_cannot_hold_becomes_none_and_its_neighbours_stay(bad: dict[str, Any]) -> None:
    good = {"id": "1"}
    assert list(_packed([good, bad, good])) == [good, None, good]
    assert list(Packed.load(Packed([good, bad, good]).dump())) == [good, None, good]


def _small(count: int) -> list[dict[str, Any]]:
    return [{"resourceType": "Observation", "id": str(n), "note": CANARY} for n in range(count)]


def test_a_large_chart_is_held_as_pages() -> None:
    packed = Packed(held_bytes=10_000)
    for start in range(0, 20_000, 100):
        packed.extend(_small(100), 6_000)
        assert packed.held < max(PAGE, 201), start
    assert len(packed) == 20_000
    assert Packed.load(packed.dump(), held_bytes=10_000).held == 0
    assert sum(1 for _ in packed) == 20_000


def test_a_page_in_memory_is_smaller_than_its_resources() -> None:
    packed = _packed(_small(PAGE))
    assert len(packed.dump()) * 10 < sum(map(sys.getsizeof, _small(PAGE)))


@given(st.data())
def test_one_damaged_byte_is_refused(data: st.DataObject) -> None:
    whole = bytearray(Packed(_small(20)).dump())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="hold no packed"):
        Packed.load(bytes(whole))


@given(st.integers(min_value=1))
def test_bytes_that_are_cut_off_are_refused(cut: int) -> None:
    whole = Packed(_small(20)).dump()
    with pytest.raises(ValueError, match="hold no packed"):
        Packed.load(whole[: len(whole) - 1 - cut % (len(whole) - 1)])


@given(st.binary(min_size=1))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="hold no packed"):
        Packed.load(data)


@pytest.mark.parametrize("held_bytes", [0, 10**9])
def test_a_revision_keeps_replaces_and_leaves_out(held_bytes: int) -> None:
    packed = _packed(_small(PAGE * 2 + 3), held_bytes)
    changes: dict[str, dict[str, Any] | None] = {
        "1": None,
        "2": {"id": "2", "new": True},
        str(2 * PAGE - 1): None,
    }
    revised = packed.revised(lambda resource: changes.get(resource["id"], resource))
    wanted = [changes.get(r["id"], r) for r in _small(PAGE * 2 + 3)]
    assert list(revised) == [resource for resource in wanted if resource is not None]
    assert len(revised) == len(packed) - 2
    assert list(packed) == _small(PAGE * 2 + 3)
    assert revised.held == (0 if held_bytes == 0 else len(revised))


def test_a_copy_that_grows_leaves_the_original_alone() -> None:
    packed = _packed(_small(3), 10**9)
    copy = packed.revised(lambda resource: resource)
    copy.extend(_small(1))
    assert (len(packed), len(copy)) == (3, 4)
