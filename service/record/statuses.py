"""FHIR's many status code systems, read into one vocabulary; the recorded word is kept beside it."""

from __future__ import annotations

from typing import NamedTuple

from service.record.facts import Status
from service.record.fhirjson import Element

NOT_RECORDED = Status.UNKNOWN.value
ENTERED_IN_ERROR = "entered-in-error"
_SAME = {s.value.replace(" ", "-"): s for s in Status if s is not Status.UNKNOWN}

REQUEST = {
    "active": Status.ACTIVE,
    "on-hold": Status.ON_HOLD,
    "revoked": Status.CANCELLED,
    "cancelled": Status.CANCELLED,
    "completed": Status.COMPLETED,
    "stopped": Status.STOPPED,
    "draft": Status.PLANNED,
}
EVENT = {
    "preparation": Status.PLANNED,
    "in-progress": Status.IN_PROGRESS,
    "not-done": Status.NOT_DONE,
    "on-hold": Status.ON_HOLD,
    "stopped": Status.STOPPED,
    "completed": Status.COMPLETED,
    "declined": Status.NOT_DONE,
    "cancelled": Status.CANCELLED,
}
STATEMENT = {
    "active": Status.ACTIVE,
    "completed": Status.COMPLETED,
    "intended": Status.PLANNED,
    "stopped": Status.STOPPED,
    "on-hold": Status.ON_HOLD,
    "not-taken": Status.NOT_DONE,
}
RESULT = {
    "registered": Status.PLANNED,
    "partial": Status.PRELIMINARY,
    "preliminary": Status.PRELIMINARY,
    "final": Status.FINAL,
    "amended": Status.CORRECTED,
    "corrected": Status.CORRECTED,
    "appended": Status.CORRECTED,
    "cancelled": Status.CANCELLED,
    "completed": Status.FINAL,
    "in-progress": Status.PRELIMINARY,
    "stopped": Status.STOPPED,
}
ENCOUNTER = {
    "planned": Status.PLANNED,
    "arrived": Status.IN_PROGRESS,
    "triaged": Status.IN_PROGRESS,
    "in-progress": Status.IN_PROGRESS,
    "onleave": Status.ON_HOLD,
    "finished": Status.COMPLETED,
    "completed": Status.COMPLETED,
    "discharged": Status.COMPLETED,
    "cancelled": Status.CANCELLED,
}
CLINICAL = {
    "active": Status.ACTIVE,
    "recurrence": Status.ACTIVE,
    "relapse": Status.ACTIVE,
    "inactive": Status.INACTIVE,
    "remission": Status.INACTIVE,
    "resolved": Status.RESOLVED,
}
ACTIVITY = {
    "not-started": Status.PLANNED,
    "scheduled": Status.PLANNED,
    "in-progress": Status.IN_PROGRESS,
    "on-hold": Status.ON_HOLD,
    "completed": Status.COMPLETED,
    "cancelled": Status.CANCELLED,
    "stopped": Status.STOPPED,
}
GOAL = {
    "proposed": Status.PLANNED,
    "planned": Status.PLANNED,
    "accepted": Status.ACTIVE,
    "active": Status.ACTIVE,
    "on-hold": Status.ON_HOLD,
    "completed": Status.COMPLETED,
    "cancelled": Status.CANCELLED,
    "rejected": Status.CANCELLED,
}
STANDING = {
    "active": Status.ACTIVE,
    "inactive": Status.INACTIVE,
    "draft": Status.PLANNED,
    "proposed": Status.PLANNED,
    "rejected": Status.CANCELLED,
    "available": Status.COMPLETED,
    "registered": Status.PLANNED,
    "cancelled": Status.CANCELLED,
    "partial": Status.PRELIMINARY,
    "completed": Status.COMPLETED,
    "intended": Status.PLANNED,
    "stopped": Status.STOPPED,
    "on-hold": Status.ON_HOLD,
}
"""Flag, Consent, Device, DeviceUseStatement, ImagingStudy, FamilyMemberHistory."""

DOCUMENT = {
    "preliminary": Status.PRELIMINARY,
    "final": Status.FINAL,
    "amended": Status.CORRECTED,
    "current": Status.FINAL,
    "superseded": Status.INACTIVE,
}


class Standing(NamedTuple):
    """A status in our vocabulary, the code as recorded, and the words to show."""

    status: Status
    recorded: str
    words: str


def read_status(element: Element, key: str, table: dict[str, Status]) -> Standing:
    """Read a status that is a code or a CodeableConcept. Missing and unknown ones say so in words."""
    raw = element.raw.get(key)
    if isinstance(raw, str):
        recorded = element.text(key)
    else:
        concept = element.concept(key)
        recorded = concept.code(concept.name)
    return standing_of(recorded, table, element, key)


def standing_of(recorded: str, table: dict[str, Status], element: Element, key: str) -> Standing:
    """Turn a recorded status code into a Standing."""
    if not recorded:
        return Standing(Status.UNKNOWN, "", NOT_RECORDED)
    code = recorded.lower().replace(" ", "-").replace("_", "-")
    if code == "unknown":
        return Standing(Status.UNKNOWN, recorded, "status unknown")
    status = table.get(code) or _SAME.get(code)
    if status is None:
        element.note("a status of no known code", key)
        return Standing(Status.UNKNOWN, recorded, f'status "{recorded}"')
    return Standing(status, recorded, code.replace("-", " "))


def is_entered_in_error(resource: Element) -> bool:
    """Tell whether any status of a resource says that it was entered in error."""
    raw = resource.raw
    for key in ("status", "docStatus"):
        value = raw.get(key)
        if isinstance(value, str):
            if _says_error(value):
                return True
        elif value is not None and _concept_says_error(resource, key):
            return True
    return "verificationStatus" in raw and _concept_says_error(resource, "verificationStatus")


def _concept_says_error(resource: Element, key: str) -> bool:
    return any(
        _says_error(concept.name) or any(_says_error(c.code) for c in concept.codes)
        for concept in resource.concepts(key)
    )


def _says_error(word: str) -> bool:
    return word.strip().lower().replace(" ", "-").replace("_", "-") == ENTERED_IN_ERROR
