"""CapabilityStatements, good and odd."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import WrongRelease
from connectors.fhir.capabilities import UNDECLARED, Capabilities, parse_capabilities
from connectors.fhir.compartment import COMPARTMENT, search_param


def _statement(**rest: Any) -> dict[str, Any]:
    return {
        "resourceType": "CapabilityStatement",
        "fhirVersion": "4.0.1",
        "rest": [{"mode": "server", **rest}],
    }


def test_what_is_declared_is_read() -> None:
    found = parse_capabilities(
        _statement(
            interaction=[{"code": "transaction"}, {"code": "batch"}],
            resource=[
                {
                    "type": "Patient",
                    "operation": [{"name": "everything", "definition": "x/Patient-everything"}],
                },
                {
                    "type": "Device",
                    "interaction": [{"code": "search-type"}],
                    "versioning": "versioned",
                    "conditionalCreate": True,
                    "updateCreate": True,
                    "searchParam": [{"name": "patient"}, {"name": 5}],
                },
            ],
        )
    )
    assert found.declared
    assert found.transaction
    assert found.batch
    assert found.everything
    device = found.of("Device")
    assert (device.search, device.versioning, device.conditional_create, device.update_create) == (True,) * 4
    assert device.search_params == {"patient"}
    assert not found.offers_search("Goal")


def test_a_batch_is_tried_where_it_is_declared_or_nothing_is() -> None:
    assert UNDECLARED.offers_batch
    assert parse_capabilities(_statement(interaction=[{"code": "batch"}])).offers_batch
    assert not parse_capabilities(_statement(interaction=[{"code": "transaction"}])).offers_batch


def test_everything_of_an_encounter_is_not_everything_of_a_patient() -> None:
    definition = "http://hl7.org/fhir/OperationDefinition/Encounter-everything"
    assert not parse_capabilities(
        _statement(operation=[{"name": "everything", "definition": definition}])
    ).everything
    on_patient = {"type": "Patient", "operation": [{"name": "$everything"}]}
    assert parse_capabilities(_statement(resource=[on_patient])).everything


@pytest.mark.parametrize("statement", [None, [], {}, {"resourceType": "Patient"}, "x"])
def test_without_a_statement_nothing_dangerous_is_assumed(statement: object) -> None:
    found = parse_capabilities(statement)
    assert found is UNDECLARED
    assert not found.transaction
    assert not found.everything
    assert not found.of("Device").conditional_create
    assert found.offers_search("Observation")


@pytest.mark.parametrize("version", ["3.0.2", "5.0.0", "1.0.2", "nonsense"])
def test_another_release_is_refused_by_name(version: str) -> None:
    with pytest.raises(WrongRelease) as caught:
        parse_capabilities({**_statement(), "fhirVersion": version})
    assert "R4" in caught.value.message
    assert "nonsense" not in caught.value.message


_ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "rest", "resource", "interaction", "operation", "code", "searchParam", "name"]
            ),
            inner,
        )
    ),
    max_leaves=15,
)


@given(_ODD)
def test_an_odd_statement_never_raises(odd: Any) -> None:
    assert isinstance(parse_capabilities({"resourceType": "CapabilityStatement", "rest": odd}), Capabilities)
    assert isinstance(parse_capabilities(_statement(resource=odd, operation=odd)), Capabilities)


def test_the_parameter_that_is_declared_is_used() -> None:
    only_subject = parse_capabilities(
        _statement(resource=[{"type": "Observation", "searchParam": [{"name": "subject"}]}])
    )
    assert search_param("Observation", only_subject) == "subject"
    assert search_param("Observation", UNDECLARED) == COMPARTMENT["Observation"] == "patient"
