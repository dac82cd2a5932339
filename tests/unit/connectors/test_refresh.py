"""A pull as bytes, and which of two versions is the newer one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.capabilities import Capabilities, TypeSupport
from connectors.fhir.packed import Packed
from connectors.fhir.pull import Gap, GapReason, Pull
from connectors.fhir.stamp import is_newer
from tests.conftest import CANARY

READ_AT = datetime(2026, 11, 24, 8, 0, tzinfo=timezone(timedelta(hours=1)))
PULL = Pull(
    patient_id="p1",
    resources=Packed([{"resourceType": "Patient", "id": "p1", "name": [{"family": CANARY}]}]),
    gaps=(Gap(None, GapReason.SUPPRESSED, "hidden"), Gap("Goal", GapReason.NOT_SUPPORTED)),
    read_at=READ_AT,
    binaries={"Binary/1": b"\x00text", "Binary/2": b"", "Binary/3": b"more"},
    whole_at=READ_AT - timedelta(hours=3),
    seen_until=READ_AT - timedelta(seconds=9),
    broken=frozenset({"Condition"}),
    capabilities=Capabilities(
        True,
        "4.0.1",
        everything=True,
        types={"Goal": TypeSupport(search=True, update_create=True, search_params=frozenset({"a", "b"}))},
    ),
)


def test_a_pull_comes_back_from_its_bytes() -> None:
    found = Pull.load(PULL.dump())
    for name in ("patient_id", "gaps", "read_at", "binaries", "whole_at", "seen_until", "broken",
                 "capabilities"):  # fmt: skip
        assert getattr(found, name) == getattr(PULL, name), name
    assert list(found.resources) == list(PULL.resources)


def test_a_dump_holds_no_patient_text_in_the_clear() -> None:
    assert CANARY.encode() not in PULL.dump()


@given(st.data())
def test_one_damaged_byte_is_noticed(data: st.DataObject) -> None:
    whole = bytearray(PULL.dump())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="hold no pull"):
        Pull.load(bytes(whole))


@given(st.binary())
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="hold no pull"):
        Pull.load(data)


def test_another_version_of_the_format_is_refused() -> None:
    with pytest.raises(ValueError, match="hold no pull"):
        Pull.load(PULL.dump().replace(b"pull 1\n", b"pull 2\n", 1))


@pytest.mark.parametrize(
    ("stamp", "known", "expected"),
    [
        (("2", ""), ("1", ""), True),
        (("10", ""), ("9", ""), True),
        (("9", ""), ("10", ""), False),
        (("1", "2026-01-02T00:00:00Z"), ("1", "2026-01-01T00:00:00Z"), False),
        (("", ""), ("", ""), True),
        (("", "2026-01-01T00:00:00Z"), ("", "2026-01-01T00:00:00Z"), False),
        (("b", "2026-01-01T10:00:00+02:00"), ("a", "2026-01-01T09:00:00Z"), False),
        (("b", "2026-01-01T10:00:00Z"), ("a", "2026-01-01T10:00:00+02:00"), True),
        (("b", "nonsense"), ("a", "2026-01-01T09:00:00Z"), True),
        (("9" * 70, ""), ("1", ""), True),
        (("3", "2026-01-01T09:00:00"), ("2", "2026-01-01T09:00:00Z"), True),
    ],
)
def test_which_version_is_newer(stamp: tuple[str, str], known: tuple[str, str], expected: bool) -> None:
    assert is_newer(stamp, known) is expected


def test_a_pull_says_when_it_was_whole() -> None:
    pull = Pull("p1", Packed(), (), datetime(2026, 1, 1, tzinfo=UTC))
    assert (pull.whole_at, pull.changed, pull.dropped) == (None, None, 0)
