"""Entries of a transaction: order, references, and which one is the document."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.fhir.transaction import document_index, in_dependency_order, parse_entries, with_references


def _entry(name: str, kind: str, resource: dict[str, Any] | None = None, **request: str) -> dict[str, Any]:
    return {
        "fullUrl": f"urn:uuid:{name}",
        "resource": {"resourceType": kind, **(resource or {})},
        "request": {"method": "POST", "url": kind, **request},
    }


def _bundle(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


PROVENANCE = _entry(
    "p",
    "Provenance",
    {"target": [{"reference": "urn:uuid:doc"}], "agent": [{"who": {"reference": "urn:uuid:dev"}}]},
)
PROMPT = _entry("prompt", "DocumentReference", ifNoneExist="identifier=a|b")
DOCUMENT = _entry(
    "doc", "DocumentReference", {"author": [{"reference": "urn:uuid:dev"}]}, ifNoneExist="identifier=c|d"
)
DEVICE = _entry("dev", "Device", ifNoneExist="identifier=e|f")


def test_the_document_is_what_the_provenance_is_about() -> None:
    entries = parse_entries(_bundle(PROVENANCE, PROMPT, DOCUMENT, DEVICE))
    assert document_index(entries) == 2


def test_each_entry_comes_after_those_it_refers_to() -> None:
    entries = parse_entries(_bundle(PROVENANCE, PROMPT, DOCUMENT, DEVICE))
    order = [entries[i].full_url[9:] for i in in_dependency_order(entries)]
    assert order.index("dev") < order.index("doc") < order.index("p")
    assert len(order) == 4


def test_a_circle_is_refused() -> None:
    circle = _bundle(
        _entry("a", "DocumentReference", {"author": [{"reference": "urn:uuid:b"}]}),
        _entry("b", "Device", {"patient": {"reference": "urn:uuid:a"}}),
    )
    with pytest.raises(ValueError, match="circle"):
        in_dependency_order(parse_entries(circle))


def test_links_become_the_real_references_and_texts_stay() -> None:
    known = {"urn:uuid:dev": "Device/7"}
    value = {
        "author": [{"reference": "urn:uuid:dev"}],
        "description": "urn:uuid:dev",
        "url": "urn:uuid:other",
    }
    assert with_references(value, known) == {
        "author": [{"reference": "Device/7"}],
        "description": "urn:uuid:dev",
        "url": "urn:uuid:other",
    }


@pytest.mark.parametrize(
    "bundle",
    [
        {"type": "batch"},
        _bundle(DEVICE),
        {"type": "transaction", "entry": [{"resource": {}}]},
        _bundle({**DOCUMENT, "request": {"method": "DELETE", "url": "x"}}),
    ],
)
def test_what_is_no_filing_is_refused(bundle: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="transaction"):
        parse_entries(bundle)


def test_only_conditional_entries_may_be_repeated() -> None:
    entries = parse_entries(
        _bundle(PROVENANCE, DOCUMENT, _entry("x", "Provenance", method="PUT", url="Provenance/x"))
    )
    assert [entry.is_conditional for entry in entries] == [False, True, True]
