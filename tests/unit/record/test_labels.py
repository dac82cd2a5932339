"""Which security labels whatever rests on a resource must carry (SAFETY 20)."""

from __future__ import annotations

from typing import Any

import pytest

from service.record.assemble import Policy
from service.record.facts import Code, Fact, PatientRecord
from service.record.labels import CONFIDENTIALITY, highest_labels, labels_to_carry, level_of
from tests.unit.record.charts import hazard, named, patient, record_of, resource

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
ALL = Policy(keep_restricted=True)
R, V = ({"system": CONFIDENTIALITY, "code": code} for code in "RV")
SUD = {"system": ACT, "code": "SUD"}


def codes(labels: tuple[Code, ...]) -> list[str]:
    return [label.code for label in labels]


def carried(*given: tuple[str, str], **more: Any) -> list[str]:
    return codes(labels_to_carry([Code(system, code, "") for system, code in given], **more))


def fact_in(record: PatientRecord, reference: str) -> Fact:
    return next(fact for fact in record.facts if fact.source.reference == reference)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((), []),
        (((CONFIDENTIALITY, "N"),), []),
        (((CONFIDENTIALITY, "L"), (ACT, "NOPAT")), []),
        (((CONFIDENTIALITY, "R"),), ["R"]),
        (((CONFIDENTIALITY, "V"), (CONFIDENTIALITY, "R")), ["V"]),
        (((ACT, "ETH"),), ["ETH", "R"]),
        (((ACT, "SUD"), (ACT, "42CFRPart2"), (CONFIDENTIALITY, "V")), ["42CFRPart2", "SUD", "V"]),
        ((("urn:site", "X9"),), ["X9", "R"]),
        ((("", "V"),), ["V"]),
        ((("http://hl7.org/fhir/v3/Confidentiality", "R"),), ["R"]),
        (((CONFIDENTIALITY, "T"),), ["T", "R"]),
        ((("", ""),), ["R"]),
        ((("http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "AIAST"),), []),
    ],
)
def test_every_code_that_may_restrict_is_kept_with_the_highest_level(
    given: tuple[tuple[str, str], ...], kept: list[str]
) -> None:
    assert carried(*given) == kept


def test_what_a_site_declared_harmless_is_kept_and_raises_nothing() -> None:
    allowed = frozenset({("urn:site", "X9"), (CONFIDENTIALITY, "V")})
    assert carried(("urn:site", "X9"), allowed=allowed) == ["X9"]
    assert carried(("urn:site", "X9"), (ACT, "PSY"), allowed=allowed) == ["PSY", "X9", "R"]
    assert carried((CONFIDENTIALITY, "V"), allowed=allowed) == ["V"]


def test_the_highest_level_wins_over_normal_and_over_order() -> None:
    normal, restricted, very = (Code(CONFIDENTIALITY, code, "") for code in "NRV")
    for order in ((restricted, very, normal), (normal, very, restricted)):
        assert level_of(highest_labels(order)) == "V"
    assert level_of((normal, restricted)) == "R"
    assert level_of(()) == level_of((normal,)) == "N"


def test_a_fact_knows_the_labels_of_its_resource_and_an_ordinary_one_has_none() -> None:
    record = hazard("safety-20-labels", policy=ALL)
    assert fact_in(record, "Condition/normal").source.security == ()
    assert fact_in(record, "Condition/nopat").source.security == ()
    assert codes(fact_in(record, "Condition/r").source.security) == ["R"]
    assert codes(fact_in(record, "Condition/v").source.security) == ["V"]
    assert codes(fact_in(record, "Condition/part2").source.security) == ["42CFRPart2", "R"]
    assert codes(fact_in(record, "Condition/unknown").source.security)[-1] == "R"


def test_without_restricted_sources_a_record_has_no_labels() -> None:
    record = hazard("safety-20-labels")
    assert record.security == ()
    assert record.skipped == {"restricted": 8}
    assert level_of(highest_labels(hazard("safety-20-labels", policy=ALL).security)) == "V"


def test_labels_change_neither_what_a_version_is_nor_the_records_digest() -> None:
    source = fact_in(hazard("safety-20-labels", policy=ALL), "Condition/v").source
    assert source.security
    allowed = Policy(keep_restricted=True, allowed_labels=frozenset({(ACT, "SUD")}))
    other = hazard("safety-20-labels", policy=allowed)
    assert other.digest == hazard("safety-20-labels", policy=ALL).digest
    assert codes(fact_in(other, "Condition/sud").source.security) == ["SUD"]


def test_a_name_that_a_labelled_resource_lends_brings_its_label_along() -> None:
    drug = {"resourceType": "Medication", "id": "m", "code": named("methadone"), "meta": {"security": [SUD]}}
    order = resource(
        "MedicationRequest",
        status="active",
        intent="order",
        medicationReference={"reference": "Medication/m"},
    )
    other = resource("Condition", code=named("Gout"))
    record = record_of(drug, order, other, policy=ALL)
    told = fact_in(record, "MedicationRequest/x")
    assert "methadone" in told.text
    assert codes(told.source.security) == ["SUD", "R"]
    assert fact_in(record, "Condition/x").source.security == ()


def test_what_says_the_same_in_a_labelled_resource_is_a_labelled_source_too() -> None:
    ordinary = resource("Condition", code=named("Gout"))
    labelled = resource("Condition", code=named("Gout"), meta={"security": [V]}) | {"id": "y"}
    (fact,) = [f for f in record_of(ordinary, labelled, policy=ALL).facts if f.kind == "problem"]
    assert sorted(codes(one.security) for one in fact.sources) == [[], ["V"]]


def test_what_a_site_restricts_without_a_label_counts_as_restricted() -> None:
    visit = resource("Encounter", status="finished", location=[{"location": {"reference": "Location/12"}}])
    finding = resource("Condition", code=named("Gout"), encounter={"reference": "Encounter/x"})
    policy = Policy(keep_restricted=True, departments=frozenset({"Location/12"}))
    record = record_of(visit, finding, policy=policy)
    assert codes(fact_in(record, "Condition/x").source.security) == ["R"]
    assert record_of(visit, finding, policy=ALL).security == ()


def test_a_patient_with_a_label_labels_the_banner_that_stands_in_every_document() -> None:
    from service.record.assemble import assemble_record

    record = assemble_record([patient(meta={"security": [R]})], "1")
    assert codes(record.identity.security) == ["R"]
    assert assemble_record([patient()], "1").identity.security == ()


@pytest.mark.parametrize("unreadable", [{}, 7, {"display": " "}, None])
def test_a_label_that_cannot_be_read_restricts_beside_one_that_can(unreadable: Any) -> None:
    normal = {"system": CONFIDENTIALITY, "code": "N"}
    labelled = resource("Condition", code=named("Gout"), meta={"security": [normal, unreadable]})
    assert record_of(labelled).skipped == {"restricted": 1}
    kept = record_of(labelled, policy=ALL)
    assert codes(fact_in(kept, "Condition/x").source.security) == ["R"]
    split = resource("Condition", code=named("x"), meta={"security": [normal]}, securityLabel=[unreadable])
    assert record_of(split).skipped == {"restricted": 1}
