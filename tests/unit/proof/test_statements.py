"""Statements judged anew: by their sources as they were read again, and by nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from service.grounding.summary import RULES_VERSION
from service.proof.evidence import Evidence
from service.proof.report import Finding
from service.proof.statements import check_citations, check_rules, check_sources, judge_again
from service.record.assemble import assemble_record
from service.writeback.rules import lexicon_digest
from tests.conftest import CANARY

PATIENT = {"resourceType": "Patient", "id": "1", "gender": "female", "name": [{"family": CANARY}]}
GOUT = {
    "resourceType": "Condition",
    "id": "gout",
    "subject": {"reference": "Patient/1"},
    "code": {"text": "Gout"},
    "clinicalStatus": {"coding": [{"code": "active"}]},
    "onsetDateTime": "2011-03-04",
}
RECORD = assemble_record([PATIENT, GOUT], "1")
(FACT,) = (fact for fact in RECORD.facts if fact.source.reference == "Condition/gout")
READ = Evidence({"Condition/gout": GOUT})
SOURCE = {"number": 1, "fact": FACT.id, "reference": "Condition/gout", "text": FACT.text, "span": None}
CLAIM = {"text": FACT.text, "verdict": "supported", "sources": [1]}


def codes(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, finding.where) for finding in findings]


def judged(claim: dict[str, Any], evidence: Evidence = READ) -> list[tuple[str, str]]:
    return codes(judge_again(RECORD, [claim], [SOURCE], evidence))


def test_what_its_source_bears_out_follows() -> None:
    assert judged(CLAIM) == []
    assert judged({**CLAIM, "text": "Gout is active, since 04-Mar-2011."}) == []


@pytest.mark.parametrize("text", ["Gout since 05-Mar-2011.", "Gout resolved.", "Asthma.", "", None])
def test_what_it_does_not_bear_out_does_not_follow(text: Any) -> None:
    assert judged({**CLAIM, "text": text}) == [("verdict_does_not_follow", "statement 1")]


def test_without_its_source_nothing_is_judged() -> None:
    assert judged(CLAIM, Evidence()) == [("verdict_not_judged", "statement 1")]
    assert list(check_sources(RECORD, [SOURCE], Evidence())) == []


def test_what_leans_on_a_later_change_is_not_called_altered() -> None:
    leaning = Evidence({"Condition/gout": GOUT}, leaning=frozenset({"Condition/gout"}))
    wrong = {**SOURCE, "text": "Gout, as told by another"}
    assert judged({**CLAIM, "text": "Asthma."}, leaning) == [("leans_on_a_change", "statement 1")]
    assert codes(check_sources(RECORD, [wrong], leaning)) == [("leans_on_a_change", "source 1")]
    assert codes(check_sources(RECORD, [wrong], READ)) == [("source_says_otherwise", "source 1")]
    assert codes(check_sources(RECORD, [{**SOURCE, "fact": "Condition/x"}], READ)) == [
        ("source_says_otherwise", "source 1")
    ]
    assert codes(check_sources(RECORD, [SOURCE], READ)) == []


@pytest.mark.parametrize(
    ("claim", "sources", "code"),
    [
        (CLAIM, [SOURCE], None),
        ({**CLAIM, "sources": []}, [SOURCE], "citation_missing"),
        ({**CLAIM, "sources": [2]}, [SOURCE], "citation_missing"),
        ({**CLAIM, "sources": [1, 2]}, [SOURCE], "citation_missing"),
        ({**CLAIM, "sources": None}, [SOURCE], "citation_missing"),
        ({**CLAIM, "verdict": "not_checked"}, [SOURCE], "verdict_not_supported"),
        (CLAIM, [SOURCE, SOURCE], "duplicate_source"),
    ],
)
def test_citations(claim: dict[str, Any], sources: list[dict[str, Any]], code: str | None) -> None:
    assert [found for found, _ in codes(check_citations([claim], sources))] == ([code] if code else [])


@pytest.mark.parametrize(
    ("rules", "detail"),
    [
        ({"version": RULES_VERSION, "lexicon_sha256": lexicon_digest()}, None),
        ({"version": "0", "lexicon_sha256": lexicon_digest()}, f"0 then, {RULES_VERSION} now"),
        ({"version": RULES_VERSION, "lexicon_sha256": "0"}, "lexicon"),
        (None, f"None then, {RULES_VERSION} now"),
    ],
)
def test_other_rules_are_named(rules: Any, detail: str | None) -> None:
    assert [f.detail for f in check_rules({"rules": rules})] == ([detail] if detail else [])
