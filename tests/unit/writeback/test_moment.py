"""Dates keep their precision; instants never promise too much."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from service.record.facts import Precision, When
from service.writeback.moment import fhir_date, fhir_instant, show_instant, show_recorded, show_when
from tests.unit.writeback.charts import east, on


def test_an_instant_is_rounded_down_and_in_utc() -> None:
    at = datetime(2026, 1, 1, 8, 59, 59, 999_999, tzinfo=east(9))
    assert show_instant(at) == "31-Dec-2025 23:59 UTC"
    assert fhir_instant(at) == "2025-12-31T23:59:59.999Z"
    assert fhir_instant(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("when", "shown", "fhir"),
    [
        (on("2019", Precision.YEAR), "2019", "2019"),
        (on("2019-05", Precision.MONTH), "May-2019", "2019-05"),
        (on("2019-05-04"), "04-May-2019", "2019-05-04"),
        (on("2019-05-04", Precision.TIME, "14:05"), "04-May-2019 14:05", "2019-05-04"),
        (on("2019-05-04", Precision.TIME), "04-May-2019", "2019-05-04"),
    ],
)
def test_a_date_is_never_more_precise_than_recorded(when: When, shown: str, fhir: str) -> None:
    assert show_when(when) == shown
    assert fhir_date(when) == fhir


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("1951-05-04", "04-May-1951"),
        ("1951-05", "May-1951"),
        ("1951", "1951"),
        ("", ""),
        ("about 1950", "about 1950"),
        ("1951-02-30", "1951-02-30"),
    ],
)
def test_a_birth_date_is_shown_or_left_as_recorded(recorded: str, shown: str) -> None:
    assert show_recorded(recorded) == shown
