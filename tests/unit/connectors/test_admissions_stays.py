"""Encounters as stays, stays as events, and the cursor's bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.admissions.cursor import Cursor, CursorUnreadable
from connectors.admissions.encounter import Ward, read_encounter
from connectors.admissions.events import Event, Identifier, Source, Subject
from connectors.admissions.stays import Phase, Stay, Stays
from tests.conftest import CANARY

ALL = Ward(statuses=("in-progress",), classes=())


def encounter(**more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "id": "e1",
        "meta": {"versionId": "1", "lastUpdated": "2026-11-24T08:00:00Z"},
        "status": "in-progress",
        "class": {"code": "IMP"},
        "subject": {"reference": "Patient/1", "display": CANARY},
        "period": {"start": "2026-11-20T08:00:00+01:00"},
        **more,
    }


def phase(ward: Ward = ALL, **more: Any) -> Phase | None:
    stay = read_encounter(encounter(**more), ward).stay
    return stay.phase if stay else None


def at(reference: str, **more: Any) -> dict[str, Any]:
    return {"location": {"reference": reference}, **more}


@pytest.mark.parametrize(
    ("status", "wanted"),
    [("planned", Phase.PLANNED), ("arrived", Phase.AWAY), ("triaged", Phase.AWAY),
     ("in-progress", Phase.OPEN), ("onleave", Phase.OPEN), ("finished", Phase.ENDED),
     ("cancelled", Phase.VOID), ("entered-in-error", Phase.VOID), ("unknown", None), (7, None), (None, None)],
)  # fmt: skip
def test_each_status_is_its_own_phase(status: Any, wanted: Phase | None) -> None:
    assert phase(status=status) is wanted


def test_only_the_current_place_counts() -> None:
    ward = Ward(locations=("Location/a",))
    assert phase(ward, location=[at("Location/a", status="active")]) is Phase.OPEN
    assert phase(ward, location=[at("Location/a"), at("Location/b", status="completed")]) is Phase.OPEN
    assert phase(ward, location=[at("https://x.example/fhir/Location/a")]) is Phase.OPEN
    assert phase(ward, location=[at("Location/a", status="completed"), at("Location/b")]) is Phase.AWAY
    assert phase(ward, location=[at("Location/a", period={"end": "2026-11-21"})]) is Phase.AWAY
    assert phase(ward, location=[at("Location/a", status="planned")]) is Phase.AWAY
    assert phase(ward) is Phase.AWAY


def test_class_provider_and_service_must_fit() -> None:
    assert phase(Ward(classes=("IMP", "EMER"))) is Phase.OPEN
    assert phase(Ward(classes=("EMER",))) is Phase.AWAY
    provider = {"reference": "Organization/1"}
    assert phase(Ward(providers=("Organization/1",)), serviceProvider=provider) is Phase.OPEN
    assert phase(Ward(providers=("Organization/2",)), serviceProvider=provider) is Phase.AWAY
    service = {"coding": [{"code": "card"}]}
    assert phase(Ward(services=("card",)), serviceType=service) is Phase.OPEN
    assert phase(Ward(services=("onco",)), serviceType=service) is Phase.AWAY


def test_a_death_is_told_by_the_disposition() -> None:
    died = {"dischargeDisposition": {"coding": [{"code": "exp"}]}}
    assert phase(status="finished", hospitalization=died) is Phase.DIED


@pytest.mark.parametrize(
    ("subject", "wanted"),
    [
        ({"reference": "https://ehr.example/fhir/Patient/1"}, Subject("Patient/1")),
        ({"identifier": {"system": "urn:mrn", "value": "7"}}, Subject("", (Identifier("urn:mrn", "7"),))),
    ],
)
def test_a_patient_is_known_by_reference_or_identifier(subject: Any, wanted: Subject) -> None:
    stay = read_encounter(encounter(subject=subject), ALL, "https://ehr.example/fhir").stay
    assert stay is not None
    assert stay.patient == wanted


@pytest.mark.parametrize(
    "subject", [None, {}, {"reference": "Group/1"}, {"reference": "https://x/Patient/1"}, 7]
)
def test_a_stay_of_nobody_is_odd(subject: Any) -> None:
    reading = read_encounter(encounter(subject=subject), ALL)
    assert (reading.stay, reading.odd) == (None, "without_patient")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(encounter())), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*encounter(), "location", "hospitalization", "serviceType"]), ANY))
def test_no_encounter_raises(fields: dict[str, Any]) -> None:
    reading = read_encounter({**encounter(), **fields}, Ward())
    assert reading.stay is not None or reading.odd


def told(stays: Stays, *reports: Stay) -> list[list[str]]:
    return [[type(event).__name__ for event in stays.take(report)] for report in reports]


BASE = Stay(
    "Encounter/e1", Phase.OPEN, Subject("Patient/1"), "IMP", "Location/a", "1", "2026-11-24T08:00:00Z"
)


def version(number: int, **changes: Any) -> Stay:
    return replace(BASE, version=str(number), updated=f"2026-11-24T08:{number:02}:00Z", **changes)


def test_the_same_report_twice_is_news_once() -> None:
    stays = Stays(Source.POLL)
    moved = version(2, location="Location/b")
    assert told(stays, BASE, BASE, moved, moved, BASE) == [["Admitted"], [], ["Transferred"], [], []]


def test_what_becomes_of_a_stay() -> None:
    stays = Stays(Source.POLL)
    reports = (
        version(1), version(2, phase=Phase.AWAY), version(3, phase=Phase.AWAY, location="Location/c"),
        version(4),
        version(5), version(6, phase=Phase.ENDED), version(7, phase=Phase.ENDED), version(8),
        version(9, phase=Phase.DIED), version(10, phase=Phase.VOID),
    )  # fmt: skip
    assert told(stays, *reports) == [
        ["Admitted"], ["Transferred"], [], ["Transferred"], ["Updated"], ["Discharged"], [], ["Reinstated"],
        ["Deceased"], ["Cancelled"],
    ]  # fmt: skip


def test_a_stay_that_changes_its_patient_and_ends_at_once_tells_both() -> None:
    stays = Stays(Source.POLL)
    other = Subject("Patient/2")
    assert told(stays, BASE, version(2, patient=other)) == [["Admitted"], ["Merged"]]
    assert told(stays, version(3, patient=Subject("Patient/3"), phase=Phase.ENDED)) == [
        ["Merged", "Discharged"]
    ]


def test_a_stay_entered_in_error_that_lost_its_patient_is_cancelled_for_the_one_it_had() -> None:
    stays = Stays(Source.POLL)
    stays.take(BASE)
    resource = encounter(status="entered-in-error", subject=None, meta={"versionId": "2"})
    stay = read_encounter(resource, ALL).stay
    assert stay is not None
    (event,) = stays.take(stay)
    assert (type(event).__name__, event.patient) == ("Cancelled", Subject("Patient/1"))


def test_a_stay_that_was_over_or_elsewhere_before_it_was_seen_is_no_news() -> None:
    for unseen in (Phase.ENDED, Phase.DIED, Phase.VOID, Phase.AWAY, Phase.PLANNED):
        assert told(Stays(Source.POLL), version(1, phase=unseen)) == [[]]


@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from(Phase), st.sampled_from(["a", "b"])), max_size=12)
)
def test_reports_in_any_order_and_number_never_tell_one_version_twice(
    reports: list[tuple[int, Phase, str]],
) -> None:
    stays = Stays(Source.POLL)
    events: list[Event] = []
    for number, state, place in reports:
        events += stays.take(version(number, phase=state, location=place))
    assert len({event.key for event in events}) == len(events)


def test_a_cursor_comes_back_from_its_bytes() -> None:
    when = datetime(2026, 11, 24, 8, tzinfo=UTC)
    named = replace(BASE, patient=Subject("", (Identifier("urn:mrn", "7", "MR"),)), at=when)
    cursor = Cursor(when, when, (named, version(2, phase=Phase.DIED)))
    assert Cursor.load(cursor.dump()) == cursor
    assert Cursor.load(Cursor().dump()) == Cursor()


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"7", b"{}", b'{"format": 2, "stays": [], "since": null, "whole_at": null}',
     json.dumps({"format": 1, "stays": [[CANARY]]}).encode(),
     b'{"format": 1, "stays": [], "since": "2026-11-24T08:00:00", "whole_at": null}'],
)  # fmt: skip
def test_what_is_no_cursor_is_refused_without_its_text(data: bytes) -> None:
    with pytest.raises(CursorUnreadable) as raised:
        Cursor.load(data)
    assert CANARY not in str(raised.value)
