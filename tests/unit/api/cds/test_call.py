"""One call of a hook, read: each thing in which it may break the specification, and what it grants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from service.api.cds.call import Call, Grant, read_call
from service.api.cds.outcome import CallRefused
from service.api.cds.services import SERVICES
from tests.unit.api.cds.ehr import CALLER, DISCHARGE, SERVER, TOKEN, VIEW, call, grant

BOTH = {"userId": "Practitioner/7", "patientId": "1"}


def read(said: Any, service: str = VIEW) -> Call:
    return read_call(msgspec.json.encode(said), SERVICES[service], CALLER)


def status(said: Any, service: str = VIEW) -> int:
    """How a call is refused; 200 where it is not."""
    try:
        read(said, service)
    except CallRefused as refused:
        return refused.status
    return 200


def test_a_call_says_who_asks_for_whom() -> None:
    said = read(call("encounter-discharge"), DISCHARGE)
    assert (said.patient, said.encounter, said.user, said.grant) == (
        "Patient/1", "Encounter/9", "Practitioner/7", None,
    )  # fmt: skip
    assert read(call()).encounter == ""
    assert read(call(context={**BOTH, "encounterId": "9"})).encounter == "Encounter/9"
    assert read(call(context={**BOTH, "userId": "RelatedPerson/3"})).user == ""


def test_neither_a_patient_nor_a_token_shows_in_a_repr() -> None:
    said = read(call(context={**BOTH, "patientId": "secret-1"}, fhirAuthorization=grant(patient="secret-1")))
    assert "secret-1" not in repr(said)
    assert TOKEN not in repr(said)


@pytest.mark.parametrize(
    "change",
    [
        {"hook": None},
        {"hook": "encounter-discharge"},
        {"hook": 7},
        {"hookInstance": None},
        {"hookInstance": "1"},
        {"hookInstance": 7},
        {"context": None},
        {"context": []},
        {"context": {"userId": "Practitioner/7"}},
        {"context": {**BOTH, "patientId": ""}},
        {"context": {**BOTH, "patientId": "Patient/1"}},
        {"context": {**BOTH, "patientId": "1/_history/2"}},
        {"context": {**BOTH, "patientId": "1?x"}},
        {"context": {**BOTH, "patientId": ".."}},
        {"context": {**BOTH, "patientId": 1}},
        {"context": {**BOTH, "patientId": "x" * 65}},
        {"context": {"patientId": "1"}},
        {"context": {**BOTH, "userId": "7"}},
        {"context": {**BOTH, "userId": "Device/7"}},
        {"context": {**BOTH, "userId": 7}},
        {"context": {**BOTH, "encounterId": ""}},
        {"context": {**BOTH, "encounterId": None}},
        {"prefetch": []},
        {"prefetch": "x"},
        {"fhirServer": None, "fhirAuthorization": grant()},
        {"fhirAuthorization": "x"},
        {"fhirAuthorization": grant(access_token=None)},
        {"fhirAuthorization": grant(access_token="two words")},
        {"fhirAuthorization": grant(access_token="a\r\nX-Evil: 1")},
        {"fhirAuthorization": grant(access_token="x" * 8193)},
        {"fhirAuthorization": grant(token_type="MAC")},
        {"fhirAuthorization": grant(token_type=None)},
        {"fhirAuthorization": grant(expires_in=None)},
        {"fhirAuthorization": grant(expires_in=True)},
        {"fhirAuthorization": grant(expires_in="300")},
        {"fhirAuthorization": grant(scope=None)},
        {"fhirAuthorization": grant(scope=["patient/*.rs"])},
    ],
)
def test_a_call_that_breaks_the_specification_is_refused(change: dict[str, Any]) -> None:
    assert status(call(**change)) == 400


@pytest.mark.parametrize(
    "change",
    [
        {"fhirServer": "https://evil.example/fhir/R4"},
        {"fhirServer": f"{SERVER}/../other"},
        {"fhirServer": f"{SERVER}@evil.example"},
        {"fhirServer": f"{SERVER}?x=1"},
        {"fhirServer": SERVER.replace("https", "http")},
        {"fhirServer": 7},
        {"fhirAuthorization": grant(subject="another-client")},
        {"fhirAuthorization": grant(subject=None)},
        {"fhirAuthorization": grant(patient="2")},
        {"fhirAuthorization": grant(patient=1.5)},
    ],
)
def test_what_is_of_another_server_client_or_patient_is_forbidden(change: dict[str, Any]) -> None:
    assert status(call(**change)) == 403


def test_a_discharge_needs_its_encounter() -> None:
    assert status(call("encounter-discharge", context=BOTH), DISCHARGE) == 400
    assert status(call("encounter-discharge"), DISCHARGE) == 200


@pytest.mark.parametrize("server", [SERVER, f"{SERVER}/", SERVER.replace("ehr.", "EHR."), None])
def test_the_own_server_may_be_written_in_other_ways_or_left_out(server: str | None) -> None:
    assert status(call(fhirServer=server)) == 200


def test_a_grant_that_has_run_out_is_none() -> None:
    for lasts in (0, -5):
        assert read(call(fhirAuthorization=grant(expires_in=lasts))).grant is None
    given = read(call(fhirAuthorization=grant(token_type="bearer", patient=None))).grant
    assert given is not None
    assert given.token == TOKEN


def test_without_a_client_id_of_ours_any_subject_is_taken() -> None:
    said = msgspec.json.encode(call(fhirAuthorization=grant(subject="cds-7")))
    assert read_call(said, SERVICES[VIEW], replace(CALLER, client_id="")).grant is not None


@pytest.mark.parametrize(
    ("scope", "may"),
    [
        ("patient/Condition.rs", True),
        ("user/*.read", True),
        ("system/*.*", True),
        ("patient/Condition.cruds", True),
        ("patient/Condition.r", False),
        ("patient/Condition.s", False),
        ("patient/Condition.write", False),
        ("patient/Observation.rs", False),
        ("patient/Condition.rs?category=problem-list-item", False),
        ("launch patient/Condition", False),
        ("", False),
    ],
)
def test_a_scope_lets_read_where_it_covers_all_of_a_type(scope: str, may: bool) -> None:
    assert Grant(TOKEN, frozenset(scope.split())).may_read("Condition") is may
