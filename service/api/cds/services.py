"""The services that an EHR discovers, and what each asks it to send along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

PATIENT: Final = "patient"
LISTS: Final[Mapping[str, str]] = {
    "allergies": "AllergyIntolerance",
    "conditions": "Condition",
    "medications": "MedicationRequest",
}
"""Prefetch key → type of which all is wanted, to tell whether the chart has changed where it matters most."""
TEMPLATES: Final[Mapping[str, str]] = {
    PATIENT: "Patient/{{context.patientId}}",
    **{key: f"{kind}?patient={{{{context.patientId}}}}" for key, kind in LISTS.items()},
}


@dataclass(frozen=True, slots=True)
class Service:
    """One service: one hook."""

    id: str
    hook: str
    title: str
    description: str
    needs_encounter: bool

    @property
    def path(self) -> str:
        """Where it is called, below our own address."""
        return f"/cds-services/{self.id}"


_DESCRIPTION: Final = (
    "says that an AI-generated history draft is stored for this patient, how old it is and whether the chart "
    "has changed since, and links to it. No clinical content, no advice."
)
SERVICES: Final[Mapping[str, Service]] = {
    one.id: one
    for one in (
        Service(
            "epicrisis-patient-view", "patient-view", "Epicrisis: history draft",
            f"When a chart is opened: {_DESCRIPTION}", needs_encounter=False,
        ),
        Service(
            "epicrisis-encounter-discharge", "encounter-discharge", "Epicrisis: history draft at discharge",
            f"When a patient is discharged: {_DESCRIPTION}", needs_encounter=True,
        ),
    )
}  # fmt: skip


def discovery() -> dict[str, Any]:
    """Return what `GET /cds-services` answers."""
    return {
        "services": [
            {
                "id": one.id,
                "hook": one.hook,
                "title": one.title,
                "description": one.description,
                "prefetch": dict(TEMPLATES),
                "usageRequirements": (
                    "Without prefetch or access to the FHIR server the card does not say whether the chart "
                    "has changed since the draft was written."
                ),
            }
            for one in SERVICES.values()
        ]
    }
