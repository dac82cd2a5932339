"""One audit entry as a FHIR R4 AuditEvent, in the patterns of IHE Basic Audit Log Patterns (BALP 1.1).

An act on the FHIR server has the RESTful pattern of its kind (PatientRead, PatientCreate, PatientUpdate);
BALP has them for what succeeded alone, so a failed act names no profile. What happens here and not on the
server (generating, viewing, signing in, handing out, stopping) has a type of ISO 21089 or DICOM, and no
profile: BALP has none for these.

It says who, what, when and how it ended, and nothing out of a chart: references and counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fhir.resources.R4B.auditevent import AuditEvent
from pydantic import ValidationError

from connectors.fhir.reference import parse_reference
from service.errors import FilingError
from service.ports import Action, AuditEntry

ENTRY_SYSTEM = "urn:epicrisis:audit-entry"
"""Identifier system of the handle by which an event is found again."""
RUN_SYSTEM = "urn:epicrisis:run"
USER_SYSTEM = "urn:epicrisis:user"
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit"
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_LIFECYCLE = f"{_TERMINOLOGY}/iso-21089-lifecycle"
_SOURCE_ROLE = {"system": _DCM, "code": "110153", "display": "Source Role ID"}
_DESTINATION_ROLE = {"system": _DCM, "code": "110152", "display": "Destination Role ID"}
_PARTICIPATION = f"{_TERMINOLOGY}/v3-ParticipationType"
_RECIPIENT = {"system": _PARTICIPATION, "code": "IRCP"}
_AUTHOR = {"system": _PARTICIPATION, "code": "AUT"}
_PERSON = {"system": f"{_TERMINOLOGY}/extra-security-role-type", "code": "humanuser", "display": "human user"}
_REST = {"system": f"{_TERMINOLOGY}/audit-event-type", "code": "rest", "display": "RESTful Operation"}
_SUCCESS, _FAILURE = "0", "4"
_MACHINE, _URI = "1", "5"


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the events come from."""

    machine: str
    """Name of the machine that acts."""
    software_version: str


class _Pattern(NamedTuple):
    type: Mapping[str, str]
    action: str
    """C, R, U, D or E, as R4 has them."""
    subtypes: tuple[Mapping[str, str], ...] = ()
    profile: str = ""
    """The BALP profile of a success."""
    user: Mapping[str, str] = _RECIPIENT
    """What the person is to the act."""


def _rest(code: str) -> dict[str, str]:
    return {"system": "http://hl7.org/fhir/restful-interaction", "code": code, "display": code}


def _lifecycle(code: str) -> dict[str, str]:
    return {"system": _LIFECYCLE, "code": code}


def _dicom(code: str, display: str) -> dict[str, str]:
    """Return a code of DICOM PS3.16, CID 400 and 401."""
    return {"system": _DCM, "code": code, "display": display}


_APPLICATION = _dicom("110100", "Application Activity")
_AUTHENTICATION = _dicom("110114", "User Authentication")
_EXPORT = _dicom("110106", "Export")
_PATTERNS: Mapping[Action, _Pattern] = {
    Action.READ: _Pattern(_REST, "R", (_rest("read"),), "PatientRead"),
    Action.WRITE: _Pattern(_REST, "C", (_rest("create"),), "PatientCreate", _AUTHOR),
    Action.ATTEST: _Pattern(_REST, "C", (_rest("create"), _lifecycle("attest")), "PatientCreate", _AUTHOR),
    Action.WITHDRAW: _Pattern(
        _REST, "U", (_rest("update"), _lifecycle("deprecate")), "PatientUpdate", _AUTHOR
    ),
    Action.GENERATE: _Pattern(_lifecycle("transform"), "E"),
    Action.VIEW: _Pattern(_lifecycle("access"), "R"),
    Action.EXPORT: _Pattern(_EXPORT, "R"),
    Action.LOGIN: _Pattern(_AUTHENTICATION, "E", (_dicom("110122", "Login"),), user=_PERSON),
    Action.LOGOUT: _Pattern(_AUTHENTICATION, "E", (_dicom("110123", "Logout"),), user=_PERSON),
    Action.STOP: _Pattern(_APPLICATION, "E"),
}
_OTHER = _Pattern(_APPLICATION, "E")


def build_event(entry: AuditEntry, handle: str, scene: Scene, collector: str) -> dict[str, Any]:
    """Return the AuditEvent of an entry; the same entry gives the same bytes, on every retry.

    `collector` is the base URL that it is for: references to another server's resources are absolute there.
    Raises FilingError where what was recorded makes no valid event.
    """
    pattern = _PATTERNS.get(entry.action, _OTHER)
    is_success = _is_success(entry)
    patient, data = _what(entry.patient, entry, collector), _data(entry, collector)
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "type": dict(pattern.type),
        "subtype": [dict(subtype) for subtype in pattern.subtypes],
        "action": pattern.action,
        "recorded": _instant(entry.at),
        "outcome": _SUCCESS if is_success else _FAILURE,
        "outcomeDesc": "" if entry.outcome == "ok" else entry.outcome,
        "agent": _agents(entry, pattern, scene, collector),
        "source": {
            "site": scene.machine,
            "observer": {"display": f"Epicrisis {scene.software_version}"},
            "type": [
                {
                    "system": f"{_TERMINOLOGY}/security-source-type",
                    "code": "4",
                    "display": "Application Server",
                }
            ],
        },
        "entity": [
            *([_patient_entity(patient)] if patient else []),
            *([_data_entity(data, entry.counts)] if data else []),
            _handle_entity(handle),
        ],
    }
    if pattern.profile and is_success and patient and data and entry.server:
        event["meta"] = {"profile": [f"{_BALP}.{pattern.profile}"]}
    return _checked({name: value for name, value in event.items() if value not in ("", [])})


def _is_success(entry: AuditEntry) -> bool:
    """A stop records what it did as its outcome: `stopped:all`."""
    return entry.outcome == "ok" or entry.action is Action.STOP


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _agents(entry: AuditEntry, pattern: _Pattern, scene: Scene, collector: str) -> list[dict[str, Any]]:
    """Return the client, which is we, the server, and the person where there is one.

    In BALP data flow from the source: of a read the server is the source, of all else the client.
    """
    person = _person(entry, collector)
    is_read = pattern.profile == "PatientRead"
    ours, theirs = (_DESTINATION_ROLE, _SOURCE_ROLE) if is_read else (_SOURCE_ROLE, _DESTINATION_ROLE)
    found: list[dict[str, Any]] = [
        {
            "type": {"coding": [dict(ours)]},
            "who": {"display": "Epicrisis"},
            "name": entry.actor or "Epicrisis",
            "requestor": not person,
            "network": {"address": scene.machine, "type": _MACHINE},
        }
    ]
    if entry.server and pattern.profile:
        found.append(
            {
                "type": {"coding": [dict(theirs)]},
                "who": {"display": entry.server},
                "requestor": False,
                "network": {"address": entry.server, "type": _URI},
            }
        )
    if person:
        found.append({"type": {"coding": [dict(pattern.user)]}, "who": person, "requestor": True})
    return found


def _person(entry: AuditEntry, collector: str) -> dict[str, Any]:
    """Return who answers for the act, as far as a person does. Theirs is a name of our own or a reference."""
    if parse_reference(entry.by):
        return _what(entry.by, entry, collector)
    kind, _, name = entry.actor.partition(":")
    if kind == "user" and name:
        return {"identifier": {"system": USER_SYSTEM, "value": name}}
    return {}


def _what(reference: str, entry: AuditEntry, collector: str) -> dict[str, Any]:
    """Return a Reference that means the same on the collector: relative only where it is the server."""
    if not reference:
        return {}
    if parse_reference(reference) is None or not entry.server:
        return {"display": reference}  # of a server that nobody wrote down: a reference would mean another
    return {"reference": reference if entry.server == collector else f"{entry.server}/{reference}"}


def _data(entry: AuditEntry, collector: str) -> dict[str, Any]:
    """Return what the act was done to: the document, the run, or the patient's record as a whole."""
    if entry.target:
        return _what(entry.target, entry, collector)
    if entry.run_id and entry.action is not Action.READ:
        return {"identifier": {"system": RUN_SYSTEM, "value": entry.run_id}}
    return _what(entry.patient, entry, collector)


def _patient_entity(what: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "what": dict(what),
        "type": {"system": f"{_TERMINOLOGY}/audit-entity-type", "code": "1", "display": "Person"},
        "role": {"system": f"{_TERMINOLOGY}/object-role", "code": "1", "display": "Patient"},
    }


def _data_entity(what: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    entity: dict[str, Any] = {
        "what": dict(what),
        "type": {"system": f"{_TERMINOLOGY}/audit-entity-type", "code": "2", "display": "System Object"},
        "role": {"system": f"{_TERMINOLOGY}/object-role", "code": "4", "display": "Domain Resource"},
    }
    if counts:
        entity["detail"] = [{"type": name, "valueString": str(counts[name])} for name in sorted(counts)]
    return entity


def _handle_entity(handle: str) -> dict[str, Any]:
    kind = {"system": "urn:epicrisis:audit-entity-type", "code": "entry", "display": "Audit log entry"}
    return {"what": {"identifier": {"system": ENTRY_SYSTEM, "value": handle}}, "type": kind}


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    try:
        AuditEvent.model_validate(event)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
        raise FilingError(f"An audit entry makes no valid AuditEvent ({where}).") from None
    return event
