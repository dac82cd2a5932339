from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

import pytest

from connectors.fhir.pull import Gap, GapReason
from service.api import words
from service.ports import RunState
from service.record.dates import parse_when
from service.record.facts import Identity, Kind

TODAY = date(2026, 11, 24)


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("1951-05-04", "04-May-1951"),
        ("1951-05", "May-1951"),
        ("1951", "1951"),
        ("about 1951", "about 1951"),
        ("2021-02-30", "2021-02-30"),
        ("", ""),
    ],
)
def test_a_partial_date_stays_partial(recorded: str, shown: str) -> None:
    assert words.show_partial(recorded) == shown


@pytest.mark.parametrize(
    ("birth_date", "age"),
    [
        ("1951-05-04", "75y"),
        ("1951-11-24", "75y"),
        ("1951-11-25", "74y"),
        ("2008-11-25", "17y 11m"),
        ("2025-10-24", "13m"),
        ("2026-09-24", "8w 5d"),
        ("2026-11-20", "4d"),
        ("2026-11-24", "0d"),
        ("1951", "Approx 75y"),
        ("1951-05", "Approx 75y"),
        ("2027-01-01", ""),
        ("nonsense", ""),
        ("", ""),
        ("2004-02-29", "22y"),
    ],
)
def test_an_age_is_written_in_the_units_of_its_band(birth_date: str, age: str) -> None:
    assert words.show_age(birth_date, TODAY) == age


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("2026-11-23T21:40:00-05:00", "23-Nov-2026 21:40"),
        ("2026-11-23T21:40:00", "23-Nov-2026 21:40 (time zone not recorded)"),
        ("2026-11-23", "23-Nov-2026"),
        ("2026-11", "Nov-2026"),
        ("2026", "2026"),
    ],
)
def test_a_time_is_shown_in_the_zone_it_was_recorded_for(recorded: str, shown: str) -> None:
    assert words.show_when(parse_when(recorded, ZoneInfo("America/New_York"))) == shown


def test_an_undated_fact_has_no_date() -> None:
    assert words.show_when(None) == ""


def _identity(birth_date: str, died: str) -> Identity:
    return Identity("Patient/1", "", birth_date, "", "", deceased=True, deceased_when=died)


@pytest.mark.parametrize(
    ("birth_date", "died", "shown"),
    [
        ("1951-05-04", "2025-01-03", "03-Jan-2025 (73y)"),
        ("1951-05-04", "2025-01-03T10:00:00Z", "03-Jan-2025 (73y)"),
        ("1951-05-04", "2025", "2025 (Approx 74y)"),
        ("1951-05-04", "", "date not known"),
        ("", "2025-01-03", "03-Jan-2025"),
    ],
)
def test_the_age_of_the_dead_stands_beside_the_day_of_death(birth_date: str, died: str, shown: str) -> None:
    assert words.show_died(_identity(birth_date, died)) == shown
    assert "(" not in words.show_born(_identity(birth_date, died), TODAY)


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [("female", "Female"), ("", "Not known"), ("unknown", "Not known"), ("other", "Other")],
)
def test_a_missing_gender_is_said_to_be_not_known(recorded: str, shown: str) -> None:
    assert words.show_gender(recorded) == shown


def test_a_gap_names_the_kind_and_the_reason_in_words() -> None:
    assert words.show_gap(Gap("ImagingStudy", GapReason.TIMED_OUT)) == "imaging (timed out)"
    assert words.show_gap(Gap("Basic", GapReason.FAILED, "2 pages")) == "Basic (failed, 2 pages)"
    assert words.show_gap(Gap(None, GapReason.PAGING)) == "a part of the whole record (paging broke off)"


def test_every_state_and_kind_has_words() -> None:
    assert set(words.STATES) == set(RunState)
    assert set(words.KINDS) == set(Kind)


def test_a_shown_day_reads_back_and_anything_else_does_not() -> None:
    assert words.read_day(words.show_day(TODAY)) == TODAY
    assert [words.read_day(text) for text in ("", "2019", "May-2019", "31-Feb-2019", "aa-May-2019")] == [
        None
    ] * 5


def test_counts_are_written_with_a_thousands_comma() -> None:
    assert (words.count(1, "item"), words.count(5000, "item")) == ("1 item", "5,000 items")
    assert words.count(0, "summary", "summaries") == "0 summaries"


def test_kinds_that_a_server_does_not_offer_are_counted_where_they_have_no_everyday_name() -> None:
    gaps = [
        Gap("DetectedIssue", GapReason.NOT_SUPPORTED),
        Gap("NutritionOrder", GapReason.NOT_SUPPORTED),
        Gap("FamilyMemberHistory", GapReason.NOT_SUPPORTED),
        Gap("RiskAssessment", GapReason.TIMED_OUT),
        Gap(None, GapReason.PAGING),
    ]
    assert words.name_gaps(gaps) == (
        "family history",
        "RiskAssessment",
        "a part of the whole record",
        "2 further kinds that this server does not offer",
    )
    assert words.name_gaps(gaps[2:3]) == ("family history",)
