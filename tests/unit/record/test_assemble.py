"""Assembly is total, deterministic and honest about what it skipped."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.record import readers
from service.record.assemble import Policy, assemble_record, resources_of
from service.record.facts import Fact, Identity, PatientRecord
from service.record.fhirjson import Element
from service.record.reading import Reading
from tests.unit.record.charts import hazard_bundle, ids, named, patient, record_of, resource
from tests.unit.record.test_hazards import HAZARDS

AIAST = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "AIAST"}


def other(kind: str, ident: str, **fields: Any) -> dict[str, Any]:
    return {**resource(kind, **fields), "id": ident}


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (None, "not_a_resource"),
        ("text", "not_a_resource"),
        ([], "not_a_resource"),
        ({}, "not_a_resource"),
        ({"resourceType": 5}, "not_a_resource"),
        ({"resourceType": ""}, "not_a_resource"),
        ({"resourceType": "Practitioner", "id": "p"}, "supporting"),
        ({"resourceType": "Claim", "id": "c"}, "administrative"),
        ({"resourceType": "OperationOutcome"}, "administrative"),
        ({"resourceType": "Appointment", "id": "a"}, "unsupported_type"),
        ({"resourceType": "Bundle", "id": "a"}, "unsupported_type"),
        ({"resourceType": "Condition", "id": "c", "code": {"text": "x"}}, "no_subject"),
        ({"resourceType": "Condition", "id": "c", "subject": 5}, "other_patient"),
        ({"resourceType": "Patient", "id": "2"}, "other_patient"),
        (resource("Condition"), "no_statement"),
        (resource("Condition", verificationStatus=named("Entered in Error")), "entered_in_error"),
        (resource("Observation", status="entered-in-error"), "entered_in_error"),
        (resource("Observation", status={"text": "entered in error"}), "entered_in_error"),
        (resource("Observation", code=named("x"), meta={"security": [{}]}), "restricted"),
        (resource("Observation", code=named("x"), meta={"security": "R"}), "restricted"),
        (resource("Observation", code=named("x"), meta={"security": [AIAST]}), "own_output"),
    ],
)
def test_every_resource_that_is_not_kept_has_a_reason(odd: Any, reason: str) -> None:
    record = record_of(odd)
    assert record.skipped == {reason: 1}
    assert (record.seen, record.kept) == (2, 1)


def test_without_a_patient_everything_is_counted_and_the_identity_is_empty() -> None:
    record = assemble_record([resource("Condition", code=named("x")), {"resourceType": "Claim"}])
    assert record.skipped == {"no_patient": 1, "administrative": 1}
    assert record.identity == Identity("", "", "", "", "")
    asked = assemble_record([resource("Condition", code=named("x"))], "Patient/1")
    assert (asked.kept, asked.identity.reference) == (1, "Patient/1")
    assert assemble_record([]).seen == 0


def test_the_first_patient_of_a_bundle_is_meant_where_none_is_asked_for() -> None:
    record = assemble_record([patient(), {"resourceType": "Patient", "id": "2"}])
    assert record.identity.reference == "Patient/1"


def test_repeats_and_older_versions_are_counted_and_the_newest_is_read() -> None:
    def version(number: str, text: str, updated: str = "") -> dict[str, Any]:
        meta = {"versionId": number, **({"lastUpdated": updated} if updated else {})}
        return resource("Condition", code=named(text), meta=meta)

    record = record_of(
        version("2", "old"), version("10", "new"), version("10", "new"), version("10", "newer")
    )
    assert sum(record.skipped.values()) == 3
    assert record.skipped["older_version"] == 1
    assert len(record.facts) == 2
    assert record.facts[-1].source.versioned_reference == "Condition/x/_history/10"
    assert "Condition: two contents of one version" in record.problems
    by_time = record_of(version("1", "b", "2021-01-01T00:00:00Z"), version("9", "a", "2020-01-01T00:00:00Z"))
    assert by_time.facts[-1].name == "b"


def test_a_newer_version_that_is_in_error_withdraws_the_older_one() -> None:
    right = resource("Observation", code=named("x"), status="final", meta={"versionId": "1"})
    wrong = resource("Observation", code=named("x"), status="entered-in-error", meta={"versionId": "2"})
    record = record_of(wrong, right)
    assert record.skipped == {"older_version": 1, "entered_in_error": 1}


def test_version_ids_of_odd_types() -> None:
    def version_of(meta: Any) -> str | None:
        return record_of(resource("Condition", code=named("x"), meta=meta)).facts[-1].source.version

    assert version_of({"versionId": 3}) == "3"
    assert [version_of(m) for m in ({"versionId": True}, {"versionId": 2**70}, {"versionId": ""}, "odd")] == [
        None
    ] * 4


def test_the_digest_ignores_version_and_update_time_but_nothing_else() -> None:
    def digest(**fields: Any) -> str:
        return record_of(resource("Condition", code=named("x"), **fields)).facts[-1].source.digest

    plain = digest()
    assert digest(meta={"versionId": "5", "lastUpdated": "2020-01-01T00:00:00Z"}) == plain
    assert digest(meta={"versionId": "5", "source": "#a"}) != plain
    assert digest(note=[{"text": "n"}]) != plain


def test_what_no_other_parser_would_send_is_read_or_counted() -> None:
    lonely = resource("Condition", code={"text": "x \ud800"})
    assert record_of(lonely).kept == 2
    nested: Any = "x"
    for _ in range(100_000):
        nested = [nested]
    assert record_of(resource("Condition", note=nested)).skipped == {"not_a_resource": 1}


def test_references_by_full_url_version_and_absolute_url_mean_the_same_patient() -> None:
    def subject_of(reference: Any, full_url: str = "urn:uuid:p", **options: Any) -> int:
        entries = [
            {"fullUrl": full_url, "resource": {"resourceType": "Patient", "id": "1"}},
            {"resource": {"resourceType": "Condition", "id": "c", "code": named("x"), "subject": reference}},
        ]
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
        return assemble_record(resources_of(bundle), **options).kept

    ehr = "http://ehr.invalid/fhir"
    for right in ("Patient/1", "Patient/1/_history/3", "urn:uuid:p", f"{ehr}/Patient/1"):
        assert subject_of({"reference": right}) == 2
    assert subject_of({"reference": f"{ehr}/Patient/1"}, f"{ehr}/Patient/1") == 2
    assert subject_of({"reference": "http://else.invalid/fhir/Patient/1"}, f"{ehr}/Patient/1") == 1
    assert subject_of({"reference": "http://else.invalid/fhir/Patient/1"}, base_url=f"{ehr}/") == 1
    assert subject_of({"reference": f"{ehr}/Patient/1"}, base_url=f"{ehr}/") == 2
    for wrong in ("Patient/2", "urn:uuid:other", "#p", "Group/1", "Patient/1x", ""):
        assert subject_of({"reference": wrong}) == 1


def test_a_bundle_that_lost_its_full_urls_still_resolves_uuids() -> None:
    reference = {"subject": {"reference": "urn:uuid:1"}}
    assert record_of({**resource("Condition", code=named("x")), **reference}).kept == 2
    twin = {"resourceType": "Practitioner", "id": "1"}
    assert record_of({**resource("Condition", code=named("x")), **reference}, twin).kept == 1


def test_a_subject_given_by_identifier() -> None:
    known = [{"system": "urn:mrn", "value": "7"}]
    by_identifier: dict[str, Any] = {"identifier": known[0]}
    for subject, kept in (
        ({"reference": "Patient?identifier=urn:mrn|7"}, 2),
        ({"reference": "Patient?identifier=urn%3Amrn%7C7&x=1"}, 2),
        ({"reference": "Patient?identifier=7"}, 1),
        ({"reference": "Practitioner?identifier=urn:mrn|7"}, 1),
        (by_identifier, 2),
        ({"identifier": {"value": "7"}}, 1),
        ({"display": "someone"}, 1),
    ):
        condition = {**resource("Condition", code=named("x")), "subject": subject}
        assert assemble_record([patient(identifier=known), condition]).kept == kept


def test_both_subject_and_patient_must_be_this_patient() -> None:
    mixed = {**resource("Condition", code=named("x")), "patient": {"reference": "Patient/2"}}
    assert record_of(mixed).skipped == {"other_patient": 1}


def test_resources_without_an_id_are_cited_by_full_url_or_content() -> None:
    condition = {"resourceType": "Condition", "code": named("x"), "subject": {"reference": "Patient/1"}}
    bundle = {"resourceType": "Bundle", "entry": [{"fullUrl": "urn:uuid:c", "resource": condition}]}
    assert "urn:uuid:c" in ids(record_of(*resources_of(bundle)))
    record = record_of(condition, dict(condition))
    assert record.skipped == {"duplicate": 1}
    assert str(record.facts[-1].id).startswith("Condition/~")


def test_resources_of_any_shape() -> None:
    inner = {"resourceType": "Bundle", "entry": {"resource": {"resourceType": "A"}}}
    outer = {
        "resourceType": "Bundle",
        "entry": [{"resource": inner}, 5, None, [], {"response": {}}, {"resource": []}],
    }
    assert list(resources_of(outer)) == [{"resourceType": "A"}, 5, None, {}, None, {}]
    assert list(resources_of({"resourceType": "B"})) == [{"resourceType": "B"}]
    assert list(resources_of([[5], "x"])) == [5, "x"]
    assert list(resources_of({"resourceType": "Bundle"})) == []
    assert list(resources_of(None)) == [None]


def test_what_is_hidden_shows_no_name_through_a_reference() -> None:
    error = other("Condition", "e", code=named("Wrongdisease"), verificationStatus=named("entered-in-error"))
    encounter = resource(
        "Encounter", diagnosis=[{"condition": {"reference": "Condition/e", "display": "Wrongdisease"}}]
    )
    assert "Wrongdisease" not in repr(record_of(error, encounter).facts)


def test_departments_that_a_site_leaves_out() -> None:
    place = {"reference": "Location/psy"}
    visit = other("Encounter", "v", location=[{"location": place}])
    inside = other("Observation", "o", code=named("x"), encounter={"reference": "Encounter/v"})
    outside = other("Observation", "p", code=named("x"))
    coded = other("DocumentReference", "d", context={"practiceSetting": named("x", "urn:s", "psy")})
    record = record_of(
        visit, inside, outside, coded, policy=Policy(departments=frozenset({"Location/psy", "urn:s|psy"}))
    )
    assert ids(record) == {"Patient/1", "Observation/p"}
    assert record.skipped == {"restricted": 3}


def test_other_ais_are_known_by_device_author_and_provenance() -> None:
    machine = {"resourceType": "Device", "id": "ai", "type": named("Artificial Intelligence")}
    coded = {
        "resourceType": "Device",
        "id": "ai2",
        "type": {"coding": [{"system": "http://hl7.org/fhir/uv/aitransparency/CodeSystem/t", "code": "x"}]},
    }
    read = other("Observation", "o", code=named("x"), device={"reference": "Device/ai"})
    read2 = other("Observation", "o2", code=named("x"), performer=[{"reference": "Device/ai2"}])
    ordinary = other("Observation", "q", code=named("x"), device={"reference": "Device/scale"})
    record = record_of(machine, coded, read, read2, ordinary)
    assert record.skipped == {"own_output": 4}
    assert "Observation/q" in ids(record)


def test_supporting_resources_are_inputs_and_administrative_ones_are_not() -> None:
    drug = {"resourceType": "Medication", "id": "m", "code": named("x")}
    claim = {"resourceType": "Claim", "id": "c"}
    references = [v.reference for v in record_of(drug, claim, resource("Condition")).inputs]
    assert references == ["Medication/m", "Patient/1"]


def test_a_readers_bug_costs_one_resource_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(resource: Element, reading: Reading) -> Iterator[Fact]:
        raise ZeroDivisionError(resource.text("id"))

    monkeypatch.setitem(readers.READERS, "Condition", broken)
    record = assemble_record([patient(), resource("Condition"), other("Observation", "o", code=named("x"))])
    assert record.skipped == {"no_statement": 1}
    assert "Condition: its reader failed" in record.problems
    assert "Observation/o" in ids(record)


def test_a_fact_is_found_by_its_id() -> None:
    record = record_of(resource("Condition", code=named("x")))
    assert record.fact(record.facts[0].id) is record.facts[0]
    with pytest.raises(KeyError):
        record.fact("Condition/none")  # type: ignore[arg-type]


def same(one: PatientRecord, two: PatientRecord) -> bool:
    return one == two and one.digest == two.digest and one.facts == two.facts


@pytest.mark.parametrize("name", HAZARDS)
def test_the_order_of_the_resources_changes_nothing(name: str) -> None:
    resources = list(resources_of(hazard_bundle(name)))
    expected = assemble_record(resources, "1")
    for seed in range(5):
        shuffled = list(resources)
        random.Random(seed).shuffle(shuffled)
        assert same(assemble_record(shuffled, "1"), expected)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.floats()
    | st.sampled_from(
        ["Patient/1", "2020-02-30", "entered-in-error", "R", "AIAST", "#", "urn:uuid:1", "1e999"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "reference",
                    "display",
                    "coding",
                    "code",
                    "system",
                    "text",
                    "value",
                    "unit",
                    "start",
                    "end",
                    "url",
                    "low",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from _paths(inner, (*at, key))


CHART = [r for name in HAZARDS for r in resources_of(hazard_bundle(name)) if r["resourceType"] != "Patient"]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_mutated_json_never_raises_and_everything_is_counted(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(CHART), min_size=1, max_size=4))
    mutated: list[Any] = [patient()]
    for original in chosen:
        item = copy.deepcopy(dict(original))
        for path in data.draw(st.lists(st.sampled_from(list(_paths(item))), max_size=3)):
            _put(item, path, data.draw(json_values))
        mutated.append(item)
    record = assemble_record(mutated, "1")
    assert record.seen == len(mutated) == record.kept + sum(record.skipped.values())
    assert not [p for p in record.problems if "reader failed" in p]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(readers.READERS)), st.data())
def test_any_field_of_any_type_may_hold_anything(kind: str, data: st.DataObject) -> None:
    fields = data.draw(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=6))
    record = assemble_record([patient(), {**resource(kind), **fields}], "1")
    assert record.seen == record.kept + sum(record.skipped.values())
    assert not [p for p in record.problems if "reader failed" in p]


FIELDS = [
    "code",
    "status",
    "subject",
    "category",
    "note",
    "effectiveDateTime",
    "performedPeriod",
    "onsetAge",
    "onsetPeriod",
    "abatementString",
    "component",
    "valueQuantity",
    "valueRange",
    "referenceRange",
    "interpretation",
    "medicationReference",
    "dosageInstruction",
    "dosage",
    "reaction",
    "activity",
    "target",
    "content",
    "presentedForm",
    "period",
    "class",
    "hospitalization",
    "diagnosis",
    "series",
    "item",
    "answer",
    "condition",
    "prediction",
    "finding",
    "provision",
    "scope",
    "udiCarrier",
    "deviceName",
    "extension",
    "focus",
    "contained",
    "meta",
    "identifier",
    "encounter",
    "context",
    "statusReason",
    "doNotPerform",
    "clinicalStatus",
    "verificationStatus",
    "relationship",
    "vaccineCode",
    "type",
    "description",
    "text",
    "result",
    "performer",
    "author",
    "location",
    "participant",
    "docStatus",
    "securityLabel",
    "protocolApplied",
    "stage",
    "evidence",
]


def _put(item: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        try:
            item = item[key]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(item, dict) or (
        isinstance(item, list) and isinstance(path[-1], int) and path[-1] < len(item)
    ):
        item[path[-1]] = value


@given(json_values)
@settings(max_examples=100, deadline=None)
def test_no_json_value_at_all_makes_it_raise(value: Any) -> None:
    found = list(resources_of({"resourceType": "Bundle", "entry": value}))
    record = assemble_record([*found, value])
    assert record.seen == len(found) + 1 == record.kept + sum(record.skipped.values())


def test_a_date_after_the_record_was_read_is_not_its_newest_time() -> None:
    read_at = datetime(2024, 5, 3, tzinfo=UTC)
    resources = [
        resource("Patient", id="1"),
        {**resource("Condition", code={"text": "Gout"}, recordedDate="2051-05-01"), "id": "typo"},
        {**resource("Condition", code={"text": "Asthma"}, recordedDate="2024-05-01"), "id": "right"},
    ]
    bounded = assemble_record(resources, "1", read_at=read_at)
    assert bounded.as_of is not None
    assert bounded.as_of.recorded == "2024-05-01"
    assert "Condition.recordedDate: a date after the record was read" in bounded.problems
    unbounded = assemble_record(resources, "1")
    assert unbounded.as_of is not None
    assert unbounded.as_of.recorded == "2051-05-01"
