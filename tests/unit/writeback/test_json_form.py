"""The machine-readable form proves the document without us."""

from __future__ import annotations

import json
import re
from typing import Any

from service.writeback import json_form
from tests.conftest import CANARY
from tests.unit.writeback.charts import RUN_KEY, make_run, varied
from tests.unit.writeback.reading import forms


def read(run: Any) -> dict[str, Any]:
    decoded = json.loads(forms(run)["application/json"])
    assert isinstance(decoded, dict)
    return decoded


def test_every_statement_names_sources_that_are_there() -> None:
    form = read(make_run())
    sources = {source["number"]: source for source in form["sources"]}
    statements = [s for section in form["sections"] for s in section["statements"]]
    assert [s["sources"] for s in statements] == [[1], [2, 3], [4]]
    assert {s["verdict"] for s in statements} == {"supported"}
    assert [s["origin"] for s in statements] == ["record", "model", "model"]
    assert [s["citation_corrected"] for s in statements] == [False, False, True]
    assert {(s["repaired"], s["entailed"], tuple(s["reasons"])) for s in statements} == {(False, "", ())}
    assert sources[3] == {
        "number": 3,
        "fact": "Observation/a1c#2",
        "type": "Observation",
        "name": "Hemoglobin A1c",
        "date": "25-Nov-2020",
        "text": "Hemoglobin A1c 6.10 % on 25-Nov-2020 (final)",
        "reference": "Observation/a1c",
        "version": "3",
        "sha256": "a" * 64,
        "also": [],
        "span": None,
        "labels": [],
    }


def test_the_form_says_who_when_and_from_what() -> None:
    form = read(make_run())
    assert form["format"] == "epicrisis-summary/1"
    assert form["banner"] == form["end"] == "AI-GENERATED DRAFT, NOT REVIEWED"
    assert form["patient"] == {
        "reference": "Patient/77",
        "name": f"Ada {CANARY}",
        "birth_date": "1951-05-04",
        "record_number": "MRN-4711",
    }
    assert (form["created_at"], form["read_at"], form["expires_at"]) == (
        "2026-11-20T09:30:15.250Z",
        "2026-11-20T09:29:59.000Z",
        "2026-11-23T09:30:15.250Z",
    )
    assert form["run"] == {"key": RUN_KEY, "attempt": 1, "record_sha256": "9" * 64, "rules_version": "1"}
    assert form["model"]["digest"] == "f" * 64
    assert form["prompt"]["template_sha256"] == "b" * 64
    assert [section["state"] for section in form["sections"]] == [
        "listed",
        None,
        "none recorded, search complete",
        "NOT RETRIEVED",
    ]
    assert form["not_retrieved"] == [
        {"type": "ServiceRequest", "reason": "timed out", "detail": "no answer in 30 s"}
    ]
    assert form["left_out"][0]["count"] == 12
    assert (form["statements_refused"], form["entries_searched"]) == (2, 40)


def test_refused_statements_and_prompts_are_not_in_it() -> None:
    text = forms(make_run())["application/json"].decode()
    assert "8.2" not in text
    assert "Invented" not in text
    assert "Write." not in text


def test_a_record_without_dates_has_no_as_of() -> None:
    assert read(varied(make_run(), as_of=None))["as_of"] is None


def test_every_field_is_documented() -> None:
    documented = set(re.findall(r"\w+", json_form.__doc__ or ""))

    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    assert keys(read(make_run())) <= documented
