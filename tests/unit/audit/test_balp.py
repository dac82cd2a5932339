"""Audit entries as AuditEvents in the patterns of IHE BALP."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent

from service.audit.balp import ENTRY_SYSTEM, RUN_SYSTEM, USER_SYSTEM, Scene, build_event
from service.errors import FilingError
from service.ports import Action, AuditEntry
from tests.unit.writeback.charts import CREATED

SERVER = "https://ehr.example.org/fhir"
COLLECTOR = "https://audit.example.org/fhir"
SCENE = Scene("ward-7", "0.1.0")
HANDLE = "a" * 64
BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."


def entry_of(action: Action, **more: Any) -> AuditEntry:
    given: dict[str, Any] = {"server": SERVER, "target": "DocumentReference/7/_history/2"}
    if action in (Action.READ, Action.GENERATE):
        given["target"] = ""
    return AuditEntry(action, "system:cli", "Patient/77", CREATED, **given | more)


def built(entry: AuditEntry, collector: str = SERVER) -> dict[str, Any]:
    event = build_event(entry, HANDLE, SCENE, collector)
    AuditEvent.model_validate(event)
    return event


def entity(event: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The entity of a type: 1 a person, 2 a system object, `entry` our handle."""
    found = [one for one in event["entity"] if one["type"]["code"] == kind]
    assert len(found) < 2
    return found[0] if found else None


def roles(event: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Role → agent."""
    return {agent["type"]["coding"][0]["code"]: agent for agent in event["agent"]}


@pytest.mark.parametrize(
    ("action", "profile", "subtype", "code", "client", "server"),
    [
        (Action.READ, "PatientRead", "read", "R", "110152", "110153"),
        (Action.WRITE, "PatientCreate", "create", "C", "110153", "110152"),
        (Action.ATTEST, "PatientCreate", "create", "C", "110153", "110152"),
        (Action.WITHDRAW, "PatientUpdate", "update", "U", "110153", "110152"),
    ],
)
def test_an_act_on_the_server_has_the_pattern_of_its_kind(
    action: Action, profile: str, subtype: str, code: str, client: str, server: str
) -> None:
    event = built(entry_of(action))
    assert event["meta"]["profile"] == [f"{BALP}{profile}"]
    assert event["type"]["code"] == "rest"
    assert event["subtype"][0] == {
        "system": "http://hl7.org/fhir/restful-interaction",
        "code": subtype,
        "display": subtype,
    }
    assert (event["action"], event["outcome"]) == (code, "0")
    assert "outcomeDesc" not in event
    agents = roles(event)
    assert agents[client]["network"] == {"address": "ward-7", "type": "1"}
    assert agents[server]["who"] == {"display": SERVER}
    assert agents[server]["network"] == {"address": SERVER, "type": "5"}
    patient, data = entity(event, "1"), entity(event, "2")
    assert patient is not None
    assert patient["what"] == {"reference": "Patient/77"}
    assert patient["role"]["code"] == "1"
    assert data is not None
    target = "Patient/77" if action is Action.READ else "DocumentReference/7/_history/2"
    assert data["what"] == {"reference": target}
    assert event["source"]["observer"] == {"display": "Epicrisis 0.1.0"}


@pytest.mark.parametrize("action", [Action.GENERATE, Action.VIEW, Action.STOP])
def test_what_happens_here_claims_no_pattern_of_the_servers_and_no_server(action: Action) -> None:
    event = built(entry_of(action, run_id="run-1", target=""))
    assert "meta" not in event
    assert event["type"]["code"] != "rest"
    assert len(event["agent"]) == 1
    data = entity(event, "2")
    assert data is not None
    assert data["what"] == {"identifier": {"system": RUN_SYSTEM, "value": "run-1"}}


def test_a_failed_act_says_so_by_its_code_and_claims_no_pattern_of_success() -> None:
    event = built(entry_of(Action.WRITE, outcome="timeout", target="", run_id="run-1"))
    assert (event["outcome"], event["outcomeDesc"]) == ("4", "timeout")
    assert "meta" not in event


def test_a_stop_is_about_no_patient_and_a_success() -> None:
    event = built(AuditEntry(Action.STOP, "system:cli", "", CREATED, outcome="stopped:all"))
    assert (event["outcome"], event["outcomeDesc"]) == ("0", "stopped:all")
    assert entity(event, "1") is None
    assert entity(event, "2") is None


@pytest.mark.parametrize(
    ("action", "code", "display"), [(Action.LOGIN, "110122", "Login"), (Action.LOGOUT, "110123", "Logout")]
)
def test_a_sign_in_is_an_authentication_of_a_person_and_about_no_patient(
    action: Action, code: str, display: str
) -> None:
    system = "http://dicom.nema.org/resources/ontology/DCM"
    event = built(AuditEntry(action, "user:roe", "", CREATED))
    assert event["type"] == {"system": system, "code": "110114", "display": "User Authentication"}
    assert event["subtype"] == [{"system": system, "code": code, "display": display}]
    assert (event["action"], event["outcome"]) == ("E", "0")
    assert "meta" not in event
    assert [one["type"]["code"] for one in event["entity"]] == ["entry"]
    ours, person = event["agent"]
    assert (ours["requestor"], ours["network"]) == (False, {"address": "ward-7", "type": "1"})
    assert person["type"]["coding"][0]["code"] == "humanuser"
    assert (person["requestor"], person["who"]) == (
        True, {"identifier": {"system": USER_SYSTEM, "value": "roe"}},
    )  # fmt: skip
    service = built(AuditEntry(action, "system:portal", "", CREATED))
    assert [(agent["name"], agent["requestor"]) for agent in service["agent"]] == [("system:portal", True)]


def test_what_is_handed_out_as_data_is_an_export_of_a_patients_run() -> None:
    event = built(replace(entry_of(Action.EXPORT, run_id="run-1", target=""), actor="user:roe"))
    assert event["type"]["code"] == "110106"
    assert event["type"]["system"] == "http://dicom.nema.org/resources/ontology/DCM"
    assert ("subtype" in event, event["action"]) == (False, "R")
    patient, data = entity(event, "1"), entity(event, "2")
    assert patient is not None
    assert data is not None
    assert patient["what"] == {"reference": "Patient/77"}
    assert data["what"] == {"identifier": {"system": RUN_SYSTEM, "value": "run-1"}}
    assert roles(event)["IRCP"]["requestor"] is True


def test_the_person_who_answers_is_the_requestor_and_otherwise_the_system_is() -> None:
    alone = built(entry_of(Action.WITHDRAW, by="Epicrisis"))
    assert [agent["requestor"] for agent in alone["agent"]] == [True, False]
    theirs = built(entry_of(Action.ATTEST, by="Practitioner/roe"))
    assert [agent["requestor"] for agent in theirs["agent"]] == [False, False, True]
    assert roles(theirs)["AUT"]["who"] == {"reference": "Practitioner/roe"}
    user = built(replace(entry_of(Action.VIEW), actor="user:local"))
    assert roles(user)["IRCP"]["who"] == {"identifier": {"system": USER_SYSTEM, "value": "local"}}
    assert roles(user)["IRCP"]["requestor"] is True


def test_on_another_collector_references_say_of_which_server_they_are() -> None:
    event = built(entry_of(Action.ATTEST, by="Practitioner/roe"), COLLECTOR)
    told = [one["what"].get("reference") for one in event["entity"]]
    assert told == [f"{SERVER}/Patient/77", f"{SERVER}/DocumentReference/7/_history/2", None]
    assert roles(event)["AUT"]["who"] == {"reference": f"{SERVER}/Practitioner/roe"}


def test_an_entry_of_a_server_that_nobody_wrote_down_points_to_no_patient_of_another() -> None:
    event = built(entry_of(Action.WITHDRAW, server=""), COLLECTOR)
    assert "reference" not in json.dumps(event)
    patient = entity(event, "1")
    assert patient is not None
    assert patient["what"] == {"display": "Patient/77"}
    assert "meta" not in event


def test_the_handle_is_there_and_the_same_entry_gives_the_same_event() -> None:
    event = built(entry_of(Action.READ, counts={"resources": 340}))
    handle = entity(event, "entry")
    assert handle is not None
    assert handle["what"] == {"identifier": {"system": ENTRY_SYSTEM, "value": HANDLE}}
    assert event == built(entry_of(Action.READ, counts={"resources": 340}))
    data = entity(event, "2")
    assert data is not None
    assert data["detail"] == [{"type": "resources", "valueString": "340"}]


def test_the_instant_is_in_utc_to_the_millisecond() -> None:
    there = replace(entry_of(Action.READ), at=CREATED.astimezone(timezone(timedelta(hours=-5))))
    assert built(there)["recorded"] == "2026-11-20T09:30:15.250Z"


def test_what_makes_no_valid_event_is_refused_without_repeating_it() -> None:
    with pytest.raises(FilingError, match="no valid AuditEvent") as caught:
        build_event(entry_of(Action.READ, counts={" ": 1, "": 2}), HANDLE, SCENE, SERVER)
    assert "77" not in str(caught.value)
