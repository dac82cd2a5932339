"""A census file and a list by hand: what is new, what ended, what is odd."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.admissions.census import CensusUnreadable, Columns, list_by_hand, read_census
from connectors.admissions.cursor import Cursor
from connectors.admissions.events import Admitted, Batch, Discharged, Event, Identifier, Transferred
from connectors.errors import TooLarge
from tests.conftest import CANARY

NOW = datetime(2026, 11, 24, 5, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Rome")
HEAD = "Visit;Patient;Class;Location;Admitted\n"
ROWS = ("V1;Patient/1;IMP;W1;2026-11-20 08:00", "V2;4711;imp;W1;2026-11-21", "V3;Patient/3;EMER;;")


def read(text: str | bytes, cursor: Cursor | None = None, hours: int = 0, **columns: str) -> Batch[Cursor]:
    data = text if isinstance(text, bytes) else text.encode()
    now = NOW + timedelta(hours=hours)
    return read_census(data, cursor or Cursor(), now=now, zone=ZONE, columns=Columns(**columns))


def table(*rows: str) -> str:
    return HEAD + "\n".join(rows)


def told(events: tuple[Event, ...]) -> list[tuple[type[Event], str]]:
    return [(type(event), event.visit.number.value if event.visit.number else "") for event in events]


def test_every_row_is_an_admission_and_the_same_file_again_is_none() -> None:
    first = read(table(*ROWS), patient_system="urn:mrn")
    assert told(first.events) == [(Admitted, "V1"), (Admitted, "V2"), (Admitted, "V3")]
    one, two, _ = first.events
    assert one.patient.reference == "Patient/1"
    assert one.at == datetime(2026, 11, 20, 7, tzinfo=UTC)
    assert two.patient.identifiers == (Identifier("urn:mrn", "4711"),)
    assert (two.encounter_class, two.at) == ("IMP", None)
    assert (first.odd, first.seen, first.is_complete) == ({}, 3, True)
    again = read(table(*ROWS), Cursor.load(first.cursor.dump()), 1, patient_system="urn:mrn")
    assert again.events == ()


def test_who_is_missing_was_discharged_who_moved_was_transferred_and_who_is_new_admitted() -> None:
    first = read(table(*ROWS))
    rows = (ROWS[0].replace("W1", "W2"), ROWS[1], "V4;Patient/4;IMP;W1;")
    second = read(table(*rows), first.cursor, 24)
    assert told(second.events) == [(Transferred, "V1"), (Admitted, "V4"), (Discharged, "V3")]
    assert told(read(table(*rows, ROWS[2]), second.cursor, 48).events) == [(Admitted, "V3")]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ((ROWS[0], "V2;4711"), "cells_do_not_match_columns"),
        ((ROWS[0], "V2;;IMP;W1;"), "without_patient"),
        ((ROWS[0], ROWS[1].replace("W1", "x" * 5_000)), "cell_too_long"),
    ],
)
def test_a_file_with_odd_rows_ends_no_stay(rows: tuple[str, ...], reason: str) -> None:
    first = read(table(*ROWS))
    second = read(table(*rows), first.cursor, 24)
    assert [kind for kind, _ in told(second.events) if kind is Discharged] == []
    assert second.odd[reason] == 1
    assert not second.is_complete
    assert told(read(table(*ROWS[:2]), second.cursor, 48).events)[-1] == (Discharged, "V3")


def test_a_file_that_was_cut_ends_no_stay() -> None:
    many = [f"V{n};Patient/{n};IMP;W1;" for n in range(40)]
    first = read(table(*many))
    cut = read(table(*many[:3]), first.cursor, 24)
    assert (cut.events, cut.odd, cut.is_complete) == ((), {"ends_not_believed": 37}, False)
    assert read(table(*many), cut.cursor, 48).events == ()


def test_rows_that_come_twice_and_times_that_are_none_are_counted() -> None:
    batch = read(table(ROWS[0], ROWS[0], ROWS[2] + "yesterday"))
    assert (len(batch.events), batch.odd) == (2, {"doubled_row": 1, "unreadable_time": 1})


def test_without_a_visit_column_a_patient_has_one_stay() -> None:
    batch = read("mrn,bed\n4711,W1-3\n4712,W1-4\n", patient="MRN", location="Bed")
    assert told(batch.events) == [(Admitted, ""), (Admitted, "")]
    assert [event.location for event in batch.events] == ["W1-3", "W1-4"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16"])
def test_files_of_spreadsheets_are_read(encoding: str) -> None:
    text = HEAD.replace(";", "\t").replace("\n", "\r\n") + 'V1\tPatient/1\tIMP\t"Ward ""Süd"""\t\r\n'
    (event,) = read(text.encode(encoding)).events
    assert event.location == 'Ward "Süd"'


def test_a_file_without_the_column_of_the_patient_is_refused_without_its_text() -> None:
    with pytest.raises(CensusUnreadable) as raised:
        read(f"{CANARY};Visit\n1;2\n")
    assert CANARY not in str(raised.value)


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(TooLarge):
        read(HEAD.encode() + b"x" * (33 * 1024 * 1024))


@given(st.binary(max_size=300))
def test_no_bytes_at_all_raise_anything_else(tail: bytes) -> None:
    first = read(table(*ROWS))
    batch = read(HEAD.encode() + tail, first.cursor, 1)
    assert batch.seen >= sum(type(event) is Admitted for event in batch.events)


def test_a_list_by_hand_admits_each_once_and_counts_the_rest() -> None:
    lines = [
        "Patient/1",
        " Encounter/2 ",
        "Patient/1",
        "# a comment",
        "",
        "Anna",
        "Observation/3",
        "Patient/1/_history/2",
    ]
    batch = list_by_hand(lines, now=NOW)
    assert [(e.patient.reference, e.visit.reference) for e in batch.events] == [
        ("Patient/1", ""),
        ("", "Encounter/2"),
    ]
    assert (batch.odd, batch.seen) == ({"doubled_row": 1, "no_reference": 3}, 6)
