"""Sources read again: what each answer of a server means for the version that a document names."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.errors import ConnectorError, Forbidden, Gone, NotFoundError, TimedOut
from service.proof.evidence import Evidence, read_again
from service.record.versions import content_digest

READ_AT = datetime(2026, 11, 20, 9, tzinfo=UTC)
NOT_THERE, GONE, REFUSED, LATE = NotFoundError("x"), Gone("x"), Forbidden("x"), TimedOut("x")


def resource(value: str, version: str | None = "1", **more: Any) -> dict[str, Any]:
    meta = {"versionId": version} if version else {}
    return {"resourceType": "Observation", "id": "1", "meta": meta, "valueString": value, **more}


class Server:
    """Answers each reference with a resource or an error; of all else it knows nothing."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    async def read(self, reference: str) -> dict[str, Any]:
        answer = self.answers.get(reference, NOT_THERE)
        if isinstance(answer, ConnectorError):
            raise answer
        assert isinstance(answer, dict)
        return answer


def look(answers: dict[str, Any], version: str = "1", reference: str = "Observation/1") -> Evidence:
    source = {
        "number": 3, "reference": reference, "version": version, "sha256": content_digest(resource("a")),
    }  # fmt: skip
    return asyncio.run(read_again(Server(answers), [source], "Patient/1", READ_AT))


NOW, THEN = "Observation/1", "Observation/1/_history/1"


@pytest.mark.parametrize(
    ("answers", "version", "code"),
    [
        ({NOW: resource("a")}, "1", ""),
        ({NOW: resource("a", "2")}, "1", ""),
        ({NOW: resource("a")}, "", ""),
        ({NOW: resource("b", "2"), THEN: resource("a")}, "1", "source_changed_since"),
        ({NOW: GONE, THEN: resource("a")}, "1", "source_deleted_since"),
        ({NOW: resource("b", "2"), THEN: resource("c")}, "1", "source_digest_differs"),
        ({NOW: resource("b")}, "1", "source_digest_differs"),
        ({NOW: resource("b")}, "", "source_digest_differs"),
        ({NOW: resource("b", "2")}, "1", "version_not_kept"),
        ({NOW: resource("b", "2"), THEN: REFUSED}, "1", "version_not_kept"),
        ({NOW: resource("b", "2"), THEN: resource("b", "2")}, "1", "version_not_kept"),
        ({}, "1", "source_not_found"),
        ({NOW: GONE}, "1", "source_not_found"),
        ({}, "", "source_not_found"),
        ({NOW: REFUSED}, "1", "source_not_readable"),
        ({NOW: LATE}, "1", "source_not_readable"),
    ],
)
def test_what_an_answer_means(answers: dict[str, Any], version: str, code: str) -> None:
    found = look(answers, version)
    assert [(f.code, f.where) for f in found.findings] == ([(code, "source 3")] if code else [])
    is_read = code in ("", "source_changed_since", "source_deleted_since")
    assert ("Observation/1" in found.resources) is is_read
    if is_read:
        assert content_digest(found.resources["Observation/1"]) == content_digest(resource("a"))


@pytest.mark.parametrize("reference", ["", "urn:uuid:1", "https://elsewhere.example/Observation/1", "../x"])
def test_what_never_had_an_id_on_the_server_is_not_asked_for(reference: str) -> None:
    assert [f.code for f in look({}, "1", reference).findings] == ["source_not_on_server"]


def test_what_a_source_leans_on_is_read_and_a_later_change_of_it_is_known() -> None:
    order = {
        "resourceType": "MedicationRequest", "id": "1", "meta": {"versionId": "1"},
        "medicationReference": {"reference": "Medication/9"},
        "reasonReference": [{"reference": "Condition/4"}],
    }  # fmt: skip
    source = {
        "number": 1, "reference": "MedicationRequest/1", "version": "1", "sha256": content_digest(order),
    }  # fmt: skip
    drug = {"resourceType": "Medication", "id": "9", "manufacturer": {"reference": "Organization/2"}}
    answers: dict[str, Any] = {
        "MedicationRequest/1": order,
        "Medication/9": drug,
        "Organization/2": {"resourceType": "Organization", "id": "2"},
        "Patient/1": {"resourceType": "Patient", "id": "1"},
    }
    found = asyncio.run(read_again(Server(answers), [source], "Patient/1", READ_AT))
    assert set(found.lent) == {"Medication/9", "Organization/2", "Patient/1"}
    assert found.leaning == frozenset()
    for when, leans in (("2026-11-20T08:59:59Z", False), ("2026-11-20T09:00:01Z", True), ("nonsense", False)):
        answers["Medication/9"] = {**drug, "meta": {"lastUpdated": when}}
        found = asyncio.run(read_again(Server(answers), [source], "Patient/1", READ_AT))
        assert (found.leaning == {"MedicationRequest/1"}) is leans
