"""Whose image it is: record number with issuer, and birth date, or it is not used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fixtures.charts import canary_patient
from fixtures.facts import CANARY
from service.imaging.picture import Header, Spot
from service.imaging.whose import ANOTHER, BORN, ISSUER, NO_NAME, whose

NUMBER = f"MRN-{CANARY}"
SYSTEM = "urn:example:mrn"
PATIENT = canary_patient("1")
HEADER = Header(
    Spot("1.1", "1.2", "1.3"), "1.2.840.10008.5.1.4.1.1.2", "CT",
    patient_id=NUMBER, issuer=SYSTEM, birth_date="19510504",
)  # fmt: skip


def patient(**changes: Any) -> dict[str, Any]:
    identifier = {**PATIENT["identifier"][0], **changes}
    return {**PATIENT, "identifier": [identifier]}


def test_an_image_with_number_issuer_and_birth_date_is_the_patients() -> None:
    assert whose(HEADER, PATIENT) == ""
    assert whose(replace(HEADER, patient_id=f" {NUMBER} "), PATIENT) == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"patient_id": "MRN-2"}, ANOTHER),
        ({"patient_id": NUMBER.lower()}, ANOTHER),
        ({"patient_id": ""}, NO_NAME),
        ({"issuer": "urn:example:other"}, ISSUER),
        ({"birth_date": "19510405"}, BORN),
        ({"birth_date": ""}, NO_NAME),
        ({"birth_date": "19000101"}, NO_NAME),
    ],
)
def test_an_image_that_differs_in_one_thing_is_not_used(changes: dict[str, Any], why: str) -> None:
    said = whose(replace(HEADER, **changes), PATIENT)
    assert said == why
    assert CANARY not in said


def test_a_year_alone_is_no_birth_date() -> None:
    assert whose(HEADER, {**PATIENT, "birthDate": "1951"}) == BORN
    assert whose(HEADER, {key: value for key, value in PATIENT.items() if key != "birthDate"}) == BORN


def test_the_issuers_name_may_be_the_assigners_or_one_that_the_site_explains() -> None:
    said = replace(HEADER, issuer="HOSP")
    assert whose(said, PATIENT) == ISSUER
    assert whose(said, patient(assigner={"display": "HOSP"})) == ""
    assert whose(said, PATIENT, {"HOSP": SYSTEM}) == ""
    assert whose(said, PATIENT, {"HOSP": "urn:example:other"}) == ISSUER


def test_without_an_issuer_only_the_medical_record_number_counts() -> None:
    said = replace(HEADER, issuer="")
    assert whose(said, PATIENT) == ""
    assert whose(said, patient(type={"coding": [{"code": "SS"}]})) == ISSUER
    assert whose(said, patient(type={})) == ISSUER


def test_a_number_that_the_patient_no_longer_has_does_not_count() -> None:
    assert whose(HEADER, patient(use="old")) == ANOTHER


@pytest.mark.parametrize(
    "identifier", [None, "text", [None, 7], [{"value": 7}], [{"type": "x", "value": NUMBER}]]
)
def test_what_is_no_identifier_never_matches(identifier: Any) -> None:
    assert whose(HEADER, {**PATIENT, "identifier": identifier}) in (ANOTHER, ISSUER)
