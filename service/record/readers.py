"""Which reader turns which resource type into facts, and how the other types are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from service.record.allergies import read_allergy
from service.record.answers import read_answers, read_impression, read_risk
from service.record.conditions import read_condition
from service.record.devices import read_device, read_device_use
from service.record.directives import read_consent, read_flag
from service.record.documents import read_document
from service.record.encounters import read_encounter
from service.record.facts import Fact
from service.record.family import read_family_history
from service.record.fhirjson import Element
from service.record.identity import read_patient
from service.record.imaging import read_imaging_study, read_media
from service.record.medications import (
    read_medication_administration,
    read_medication_dispense,
    read_medication_request,
    read_medication_statement,
)
from service.record.observations import read_observation
from service.record.orders import read_service_request
from service.record.plans import read_care_plan, read_goal
from service.record.procedures import read_immunization, read_procedure
from service.record.reading import Reading
from service.record.reports import read_report

Reader = Callable[[Element, Reading], Iterator[Fact]]

READERS: Mapping[str, Reader] = {
    "Patient": read_patient,
    "AllergyIntolerance": read_allergy,
    "CarePlan": read_care_plan,
    "ClinicalImpression": read_impression,
    "Condition": read_condition,
    "Consent": read_consent,
    "Device": read_device,
    "DeviceUseStatement": read_device_use,
    "DiagnosticReport": read_report,
    "DocumentReference": read_document,
    "Encounter": read_encounter,
    "FamilyMemberHistory": read_family_history,
    "Flag": read_flag,
    "Goal": read_goal,
    "ImagingStudy": read_imaging_study,
    "Immunization": read_immunization,
    "Media": read_media,
    "MedicationAdministration": read_medication_administration,
    "MedicationDispense": read_medication_dispense,
    "MedicationRequest": read_medication_request,
    "MedicationStatement": read_medication_statement,
    "Observation": read_observation,
    "Procedure": read_procedure,
    "QuestionnaireResponse": read_answers,
    "RiskAssessment": read_risk,
    "ServiceRequest": read_service_request,
}

SUPPORTING = frozenset(
    [
        "Binary",
        "Endpoint",
        "HealthcareService",
        "Location",
        "Medication",
        "Organization",
        "OrganizationAffiliation",
        "Person",
        "Practitioner",
        "PractitionerRole",
        "Questionnaire",
        "RelatedPerson",
        "Specimen",
        "Substance",
    ]
)
"""They lend names and texts to facts, and state nothing about the patient themselves."""

ADMINISTRATIVE = frozenset(
    [
        "Account",
        "AuditEvent",
        "Basic",
        "ChargeItem",
        "Claim",
        "ClaimResponse",
        "Contract",
        "Coverage",
        "CoverageEligibilityRequest",
        "CoverageEligibilityResponse",
        "EnrollmentRequest",
        "EnrollmentResponse",
        "ExplanationOfBenefit",
        "Group",
        "Invoice",
        "MessageHeader",
        "OperationOutcome",
        "Parameters",
        "PaymentNotice",
        "PaymentReconciliation",
        "Provenance",
        "Schedule",
        "Slot",
        "Subscription",
        "SubscriptionStatus",
        "Task",
    ]
)
