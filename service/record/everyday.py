"""What resource types are called in everyday words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RESOURCE_TYPES: Final[Mapping[str, str]] = {
    "AllergyIntolerance": "allergies",
    "Binary": "document contents",
    "CarePlan": "care plans",
    "Condition": "problems",
    "Consent": "consents and directives",
    "Device": "devices",
    "DiagnosticReport": "reports",
    "DocumentReference": "notes and documents",
    "Encounter": "encounters",
    "FamilyMemberHistory": "family history",
    "Flag": "flags",
    "Goal": "goals",
    "ImagingStudy": "imaging",
    "Immunization": "immunizations",
    "MedicationAdministration": "medication administrations",
    "MedicationRequest": "medication orders",
    "MedicationStatement": "medication statements",
    "Observation": "results and vital signs",
    "Procedure": "procedures",
    "ServiceRequest": "orders",
}


_FURTHER: Final[Mapping[str, str]] = {
    "ClinicalImpression": "clinical impressions",
    "DeviceUseStatement": "use of devices",
    "Media": "pictures",
    "Medication": "names of drugs",
    "MedicationDispense": "medication dispenses",
    "Patient": "who the patient is",
    "QuestionnaireResponse": "answers to questionnaires",
}
"""Rarer ones, which an account of what was not retrieved counts rather than names."""


def say_type(resource_type: str) -> str:
    """Return what a type is called, a rare one too; the type itself where it has no everyday name."""
    return _FURTHER.get(resource_type) or name_type(resource_type)


def name_type(resource_type: str) -> str:
    """Return what a type is called; the type itself where it has no everyday name."""
    return RESOURCE_TYPES.get(resource_type, resource_type)
