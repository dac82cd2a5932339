"""FHIR dates keep their precision, sort rightly and are shown in the site's zone."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.record.dates import days_between, labelled, load_zone, on_day, parse_when, show_day, span
from service.record.facts import Precision, When
from tests.unit.record.charts import facts_of, record_of, resource


def when(text: str, zone: str | None = None) -> When:
    found = parse_when(text, load_zone(zone))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("recorded", "precision", "shown"),
    [
        ("2019", Precision.YEAR, "2019"),
        ("2019-05", Precision.MONTH, "May-2019"),
        ("2019-05-04", Precision.DAY, "04-May-2019"),
        ("2019-05-04T14:05:00Z", Precision.TIME, "04-May-2019"),
        ("2019-05-04T14:05", Precision.TIME, "04-May-2019"),
        ("0099-05-04", Precision.DAY, "04-May-0099"),
    ],
)
def test_a_date_is_shown_in_the_precision_it_was_recorded_in(
    recorded: str, precision: Precision, shown: str
) -> None:
    assert (when(recorded).precision, show_day(when(recorded))) == (precision, shown)


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "2019-5-4",
        "2021-02-30",
        "2019-13",
        "19",
        "yesterday",
        "2019-05-04T25:00:00Z",
        "2019-05-04T10:00:99Z",
        "0001-01-01T00:00:00+14:00x",
        "2019-05-04T10:00:00+99:99",
        "٢٠١٩",
    ],
)
def test_what_is_no_date_is_none(odd: str) -> None:
    assert parse_when(odd, None) is None


def test_a_time_that_leaves_the_calendar_in_the_sites_zone_is_none() -> None:
    assert parse_when("0001-01-01T00:00:00Z", ZoneInfo("America/New_York")) is None


def test_a_day_is_the_sites_day_else_the_recorded_one() -> None:
    late = "2019-05-04T23:30:00-05:00"
    assert when(late).day == date(2019, 5, 4)
    assert when(late, "Europe/Berlin").day == date(2019, 5, 5)
    assert when(late, "Europe/Berlin").time == "06:30"
    assert when(late).time == "23:30"


def test_a_time_without_a_zone_is_bounded_in_utc_and_says_so() -> None:
    found = when("2019-05-04T10:00:00", "Europe/Berlin")
    assert (found.zone_known, found.earliest, found.time) == (
        False,
        datetime(2019, 5, 4, 10, tzinfo=UTC),
        "10:00",
    )
    assert when("2019-05-04T10:00:00+00:00").zone_known


def test_bounds_span_what_was_recorded() -> None:
    assert when("2020-02").latest.date() == date(2020, 2, 29)
    assert when("2020").latest.date() == date(2020, 12, 31)
    assert when("2019-05-04T14:05Z").latest.second == 59
    assert when("2019-05-04T14:05:00.601Z").earliest.microsecond == 601000
    assert when("2016-12-31T23:59:60Z").earliest.second == 59


def test_spans_and_lengths() -> None:
    first, last, month = when("2012-02-03"), when("2012-02-17"), when("2012-02")
    assert span(first, last) == "from 03-Feb-2012 to 17-Feb-2012"
    assert span(first, first) == "on 03-Feb-2012"
    assert (span(first, None), span(None, last), span(None, None)) == (
        "from 03-Feb-2012",
        "until 17-Feb-2012",
        "",
    )
    assert (on_day(month), on_day(None), labelled("since", None)) == ("in Feb-2012", "", "")
    assert (days_between(first, last), days_between(last, first), days_between(month, last)) == (
        14,
        None,
        None,
    )
    assert days_between(None, last) is None


@pytest.mark.parametrize("name", ["Nowhere/City", "../etc/passwd", "Europe\0", "Europe"])
def test_an_unknown_zone_is_a_noted_problem_and_no_exception(name: str) -> None:
    from service.record.assemble import Policy

    record = record_of(policy=Policy(time_zone=name))
    assert "site: unknown time zone" in record.problems
    assert load_zone(None) is None


years = st.integers(1900, 2100)
partial = st.one_of(
    years.map(str),
    st.tuples(years, st.integers(1, 12)).map(lambda p: f"{p[0]}-{p[1]:02d}"),
    st.dates(date(1900, 1, 1), date(2100, 12, 31)).map(lambda d: d.isoformat()),
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 12, 31)).map(  # noqa: DTZ001 - the zone is added as text
        lambda d: d.isoformat(timespec="seconds") + "+02:00"
    ),
)


@given(st.lists(partial, min_size=2, max_size=8))
def test_partial_dates_order_correctly(dates: list[str]) -> None:
    observations = [
        {**resource("Observation", effectiveDateTime=d, code={"text": f"x{i}"}, status="final"), "id": str(i)}
        for i, d in enumerate(dates)
    ]
    found = [f.when for f in facts_of(*observations)]
    assert len(found) == len(dates)
    for earlier, later in pairwise(found):
        assert earlier is not None
        assert later is not None
        assert not later.latest < earlier.earliest
        assert (earlier.earliest, earlier.latest) <= (later.earliest, later.latest)


@given(st.text(max_size=30))
def test_no_text_makes_a_date_raise(text: str) -> None:
    parse_when(text, ZoneInfo("Asia/Kolkata"))


def test_the_newest_clinical_time_is_not_a_planned_one() -> None:
    record = record_of(
        resource("Observation", code={"text": "x"}, effectiveDateTime="2020-05-04"),
        {**resource("Encounter", status="planned", period={"start": "2031-01-01"}), "id": "later"},
        resource("ServiceRequest", code={"text": "x"}, authoredOn="2020-01-01", occurrenceDateTime="2032"),
        resource("CarePlan", title="x", period={"start": "2033-01-01"}),
        resource("Procedure", code={"text": "x"}, status="preparation", performedDateTime="2034-01-01"),
        resource("Immunization", vaccineCode={"text": "x"}, status="completed", occurrenceString="2035"),
    )
    assert record.as_of is not None
    assert record.as_of.recorded == "2020-05-04"
    assert record_of().as_of is None


def test_a_time_after_the_resources_own_last_update_does_not_count() -> None:
    updated = {"meta": {"lastUpdated": "2021-01-01T00:00:00Z"}}
    typo = resource("Observation", code={"text": "x"}, effectiveDateTime="2201-05-04", **updated)
    record = record_of(typo, {**resource("Condition", code={"text": "y"}, recordedDate="2020"), "id": "y"})
    assert record.as_of is not None
    assert record.as_of.recorded == "2020"
    assert "Observation.effectiveDateTime: a date after the resource's last update" in record.problems
