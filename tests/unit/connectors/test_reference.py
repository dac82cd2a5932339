"""References: legal ones only, before they become URLs."""

from __future__ import annotations

import pytest

from connectors.errors import InvalidId
from connectors.fhir.reference import parse_patient_id, parse_reference, reference_of, reference_of_write


@pytest.mark.parametrize("given", ["1", "Patient/1"])
def test_a_patient_is_named_with_or_without_its_type(given: str) -> None:
    assert parse_patient_id(given) == "1"


@pytest.mark.parametrize(
    "given",
    ["", "..", "a/b", "Patient/..", "Patient/1/$everything", "1?x=2", "a b", "x" * 65, "Group/1", "1\n"],
)
def test_what_is_no_id_never_becomes_a_url(given: str) -> None:
    with pytest.raises(InvalidId) as caught:
        parse_patient_id(given)
    assert given not in caught.value.message or len(given) < 4


def test_a_reference_below_the_base_url_is_ours() -> None:
    assert str(parse_reference("https://a/fhir/Medication/2", "https://a/fhir")) == "Medication/2"
    assert parse_reference("https://b/fhir/Medication/2", "https://a/fhir") is None
    assert parse_reference("#contained") is None
    assert parse_reference({"reference": "x"}) is None


def test_a_resource_is_named_with_its_version() -> None:
    assert (
        str(reference_of({"resourceType": "Device", "id": "7", "meta": {"versionId": "2"}}))
        == "Device/7/_history/2"
    )
    assert str(reference_of({"resourceType": "Device", "id": "7", "meta": []})) == "Device/7"
    assert reference_of({"resourceType": "Device"}) is None


@pytest.mark.parametrize(
    ("location", "etag", "resource"),
    [
        ("https://a/fhir/Device/7/_history/2", "", None),
        ("Device/7/_history/2", 'W/"9"', None),
        ("https://a/fhir/Device/7", 'W/"2"', None),
        ("", "", {"resourceType": "Device", "id": "7", "meta": {"versionId": "2"}}),
        ("Device/7", "", {"resourceType": "Device", "id": "7", "meta": {"versionId": "2"}}),
        ("/fhir/Device/7", '"2"', {"resourceType": "OperationOutcome"}),
    ],
)
def test_where_a_write_ended_up_is_told_in_many_ways(location: str, etag: str, resource: object) -> None:
    assert str(reference_of_write(location, etag, resource)) == "Device/7/_history/2"
