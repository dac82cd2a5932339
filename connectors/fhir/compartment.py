"""Which resource types make up a patient's record, and by which search parameter each is found (R4).

The one table to change when a type is to be read or left out. Billing (Claim, Coverage, Account…), scheduling
and Binary are left out on purpose: they are not clinical, or are read by their attachment's URL.
"""

from __future__ import annotations

from collections.abc import Mapping

from connectors.fhir.capabilities import Capabilities

COMPARTMENT: Mapping[str, str] = {
    "AdverseEvent": "subject",
    "AllergyIntolerance": "patient",
    "CarePlan": "patient",
    "CareTeam": "patient",
    "ClinicalImpression": "patient",
    "Communication": "patient",
    "Composition": "patient",
    "Condition": "patient",
    "Consent": "patient",
    "DetectedIssue": "patient",
    "Device": "patient",
    "DeviceRequest": "patient",
    "DeviceUseStatement": "patient",
    "DiagnosticReport": "patient",
    "DocumentReference": "patient",
    "Encounter": "patient",
    "EpisodeOfCare": "patient",
    "FamilyMemberHistory": "patient",
    "Flag": "patient",
    "Goal": "patient",
    "ImagingStudy": "patient",
    "Immunization": "patient",
    "List": "patient",
    "Media": "patient",
    "MedicationAdministration": "patient",
    "MedicationDispense": "patient",
    "MedicationRequest": "patient",
    "MedicationStatement": "patient",
    "NutritionOrder": "patient",
    "Observation": "patient",
    "Procedure": "patient",
    "QuestionnaireResponse": "patient",
    "RelatedPerson": "patient",
    "RiskAssessment": "patient",
    "ServiceRequest": "patient",
    "Specimen": "patient",
}
VITAL = frozenset(
    {
        "AllergyIntolerance",
        "Condition",
        "Encounter",
        "MedicationAdministration",
        "MedicationDispense",
        "MedicationRequest",
        "MedicationStatement",
    }
)
"""Types of which nothing may be missing unnoticed: without them nothing is filed (SAFETY 6)."""
_OTHER = {"patient": "subject", "subject": "patient"}


def search_param(resource_type: str, capabilities: Capabilities) -> str:
    """Return the parameter that finds a patient's resources, or its sibling where only that is declared."""
    usual = COMPARTMENT[resource_type]
    declared = capabilities.of(resource_type).search_params
    return _OTHER[usual] if usual not in declared and _OTHER[usual] in declared else usual


def searched_types(capabilities: Capabilities) -> list[str]:
    """Return the types that a patient's record is searched for on this server."""
    return [kind for kind in COMPARTMENT if capabilities.offers_search(kind)]
