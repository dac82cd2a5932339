"""ADT messages as events and answers, and hostile bytes."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.admissions.adt import Message, Verdict, acknowledge, parse_time, read_message
from connectors.admissions.events import (
    Admitted,
    Cancelled,
    Deceased,
    Discharged,
    Event,
    Identifier,
    Merged,
    Reinstated,
    Transferred,
    Updated,
)
from tests.conftest import CANARY

ZONE = ZoneInfo("Europe/Rome")
NOW = datetime(2026, 11, 24, 10, 15, tzinfo=UTC)


def segment(name: str, **fields: str) -> str:
    """A segment with fields by number: `f3="123"` is field 3."""
    numbers = {int(key[1:]): value for key, value in fields.items()}
    return "|".join([name, *(numbers.get(n, "") for n in range(1, max(numbers) + 1))])


def msh(trigger: str, control_id: str = "MSG00001", kind: str = "ADT") -> str:
    return f"MSH|^~\\&|ADT|HOSP|EPI|WARD|20261124101500||{kind}^{trigger}|{control_id}|P|2.5"


PID = segment("PID", f3="123^^^HOSP^MR~77^^^NHS^NH", f5=f"{CANARY}^Anna")
PV1 = {"f2": "I", "f3": "W1^101^A^HOSP", "f19": "V9^^^HOSP^VN"}


def adt(trigger: str, *segments: str, control_id: str = "MSG00001") -> bytes:
    evn = segment("EVN", f1=trigger, f2="20261124101400", f6="20261124101000")
    return "\r".join([msh(trigger, control_id), evn, *segments, ""]).encode()


def read(trigger: str, pid: str = PID, **pv1: str) -> Event:
    message = read_message(adt(trigger, pid, segment("PV1", **{**PV1, **pv1})), ZONE)
    assert (message.verdict, message.odd) == (Verdict.ACCEPTED, "")
    (event,) = message.events
    return event


@pytest.mark.parametrize(
    ("trigger", "kind"),
    [("A01", Admitted), ("A02", Transferred), ("A03", Discharged), ("A08", Updated), ("A11", Cancelled),
     ("A13", Reinstated)],
)  # fmt: skip
def test_each_trigger_is_its_own_event(trigger: str, kind: type[Event]) -> None:
    event = read(trigger)
    assert type(event) is kind
    assert event.patient.identifiers == (Identifier("HOSP", "123", "MR"), Identifier("NHS", "77", "NH"))
    assert event.visit.number == Identifier("HOSP", "V9", "VN")
    assert (event.encounter_class, event.location) == ("IMP", "W1^101^A")
    assert event.at == datetime(2026, 11, 24, 9, 10, tzinfo=UTC)


def test_a_transfer_tells_where_from() -> None:
    event = read("A02", f3="W2^7", f6="W1^101^A")
    assert isinstance(event, Transferred)
    assert (event.from_location, event.location) == ("W1^101^A", "W2^7")


def test_a_merge_names_who_survives_and_who_is_retired() -> None:
    message = read_message(adt("A40", PID, segment("MRG", f1="99^^^HOSP^MR")), ZONE)
    (event,) = message.events
    assert isinstance(event, Merged)
    assert event.patient.identifiers[0].value == "123"
    assert [one.value for one in event.retired.identifiers] == ["99"]


def test_every_pair_of_a_merge_is_an_event_of_its_own() -> None:
    other = segment("PID", f3="200^^^HOSP^MR")
    pairs = (PID, segment("MRG", f1="99"), other, segment("MRG", f1="98"))
    events = read_message(adt("A40", *pairs), ZONE).events
    assert all(isinstance(event, Merged) for event in events)
    assert [event.patient.identifiers[0].value for event in events] == ["123", "200"]
    assert [e.retired.identifiers[0].value for e in events if isinstance(e, Merged)] == ["99", "98"]
    assert len({event.key for event in events}) == 2


@pytest.mark.parametrize("segments", [(PID,), (PID, segment("MRG", f1="")), (segment("MRG", f1="9"),)])
def test_a_merge_without_both_patients_is_an_error(segments: tuple[str, ...]) -> None:
    message = read_message(adt("A40", *segments), ZONE)
    assert (message.events, message.verdict, message.odd) == ((), Verdict.ERROR, "merge_of_nobody")


def test_the_discharge_of_one_who_died_is_a_death() -> None:
    assert type(read("A03", f36="20")) is Deceased
    assert type(read("A03", f36="01")) is Discharged


def test_an_update_that_tells_of_death_is_a_death_and_one_that_does_not_is_none() -> None:
    assert type(read("A08", pid=PID + "|" * 25 + "Y")) is Deceased
    assert type(read("A08", pid=PID + "|" * 25 + "N")) is Updated


def test_a_cancelled_admission_of_one_who_died_stays_cancelled() -> None:
    assert type(read("A11", pid=PID + "|" * 25 + "Y")) is Cancelled


def test_the_instant_of_admission_is_the_one_of_the_visit() -> None:
    assert read("A01", f44="20261123220000+0000").at == datetime(2026, 11, 23, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("20260714120000", datetime(2026, 7, 14, 10, tzinfo=UTC)),
        ("202607141230-0500", datetime(2026, 7, 14, 17, 30, tzinfo=UTC)),
        ("20260714120000.25+0000", datetime(2026, 7, 14, 12, 0, 0, 250_000, tzinfo=UTC)),
        ("20260714", None),
        ("2026", None),
        ("20261314120000", None),
        ("20260714120000+9900", None),
        ("", None),
        ("yesterday", None),
    ],
)
def test_times_without_offset_are_local_and_dates_are_no_instants(text: str, when: datetime | None) -> None:
    assert parse_time(text, ZONE) == when


def test_delimiters_of_the_message_are_its_own_and_escapes_are_undone() -> None:
    text = adt("A01", segment("PID", f3="1\\T\\2^^^H\\F\\H"), segment("PV1", **PV1)).decode()
    (plain,) = read_message(text.encode(), ZONE).events
    assert plain.patient.identifiers == (Identifier("H|H", "1&2"),)
    swapped = text.replace("|", "#").replace("^", "*")
    (event,) = read_message(swapped.encode(), ZONE).events
    assert event.patient.identifiers == (Identifier("H#H", "1&2"),)


def test_line_feeds_and_latin_letters_do_no_harm() -> None:
    text = adt("A01", segment("PID", f3="123", f5="Müller"), segment("PV1", **PV1)).decode()
    for data in (text.replace("\r", "\n").encode(), text.replace("\r", "\r\n").encode("latin-1")):
        assert type(read_message(data, ZONE).events[0]) is Admitted


def test_a_missing_visit_number_is_counted_and_the_event_kept() -> None:
    message = read_message(adt("A01", PID, segment("PV1", f2="I")), ZONE)
    assert (message.odd, message.verdict) == ("without_visit_number", Verdict.ACCEPTED)
    assert len(message.events) == 1


@pytest.mark.parametrize(
    ("data", "verdict", "odd"),
    [
        (b"", Verdict.REJECTED, "not_hl7"),
        (b"GET / HTTP/1.1\r\n\r\n", Verdict.REJECTED, "not_hl7"),
        (b"MSH", Verdict.REJECTED, "not_hl7"),
        (f"{msh('R01', kind='ORU')}\r{PID}".encode(), Verdict.REJECTED, "not_adt"),
        (adt("A01", control_id=""), Verdict.ERROR, "without_control_id"),
        (adt("A01", segment("PID", f3="")), Verdict.ERROR, "without_patient"),
        (adt("A01", segment("PID", f3='""')), Verdict.ERROR, "without_patient"),
        (adt("A04", PID), Verdict.ACCEPTED, "other_trigger"),
        (adt("A01", "PID|" + "~" * 100_000), Verdict.REJECTED, "not_hl7"),
    ],
)
def test_what_cannot_be_used_is_answered_and_named(data: bytes, verdict: Verdict, odd: str) -> None:
    message = read_message(data, ZONE)
    assert (message.events, message.verdict, message.odd) == ((), verdict, odd)


def _fields(answer: bytes) -> list[list[str]]:
    return [line.split("|") for line in answer.decode("ascii").split("\r") if line]


def test_an_acknowledgement_goes_back_to_the_sender_with_its_control_id() -> None:
    header, msa = _fields(acknowledge(read_message(adt("A01", PID), ZONE), NOW))
    assert header[2:6] == ["EPI", "WARD", "ADT", "HOSP"]
    assert (header[8], header[11]) == ("ACK^A01", "2.5")
    assert msa == ["MSA", "AA", "MSG00001"]


def test_an_acknowledgement_can_be_turned_down_and_repeats_nothing_that_is_not_plain() -> None:
    hostile = adt("A01", PID).replace(b"|ADT|HOSP|", b"|AD\xc3\xa9T|HO^SP\\X0D\\|")
    _, msa = _fields(acknowledge(read_message(hostile, ZONE), NOW, Verdict.REJECTED))
    assert msa == ["MSA", "AR", "MSG00001"]


def test_nothing_of_a_patient_is_in_a_repr_or_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pid = segment("PID", f3=f"{CANARY}1\\.sp999999999\\\\Xzz\\^^^H", f5=CANARY)
    message = read_message(adt("A02", pid, segment("PV1", **PV1 | {"f3": CANARY, "f6": CANARY})), ZONE)
    assert CANARY in message.events[0].patient.identifiers[0].value
    assert CANARY not in repr(message)
    assert CANARY not in repr(message.events[0])
    assert CANARY not in acknowledge(message, NOW).decode()
    assert not caplog.records


@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda tail: b"MSH|^~\\&|A|B|C|D||" + tail))
def test_no_bytes_at_all_raise(data: bytes) -> None:
    message: Message = read_message(data, ZONE)
    assert acknowledge(message, NOW).endswith(b"\r")


@given(st.data())
def test_a_damaged_message_raises_nothing_and_never_admits_nobody(data: Any) -> None:
    whole = bytearray(adt("A01", PID, segment("PV1", **PV1)))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for event in read_message(bytes(whole), ZONE).events:
        assert event.patient
        assert event.key


def test_an_offset_is_kept_as_an_instant() -> None:
    when = parse_time("20261124120000+0530", ZONE)
    assert when is not None
    assert when.utcoffset() == timedelta(hours=5, minutes=30)
