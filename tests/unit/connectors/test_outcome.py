"""Outcomes among 200 OK results: what the server admits to have hidden."""

from __future__ import annotations

import pytest

from connectors.fhir.outcome import gap_of_outcome
from connectors.fhir.pull import GapReason
from tests.conftest import CANARY


def _outcome(code: str, severity: str = "warning") -> dict[str, object]:
    return {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": severity, "code": code, "diagnostics": CANARY}],
    }


@pytest.mark.parametrize("code", ["suppressed", "forbidden", "security", "login"])
def test_hidden_results_are_a_gap(code: str) -> None:
    gap = gap_of_outcome(_outcome(code), "Observation")
    assert gap is not None
    assert (gap.resource_type, gap.reason) == ("Observation", GapReason.SUPPRESSED)
    assert code in gap.detail
    assert CANARY not in gap.detail


@pytest.mark.parametrize(
    ("code", "severity"), [("incomplete", "warning"), ("too-costly", "warning"), ("value", "error")]
)
def test_partial_results_are_a_gap(code: str, severity: str) -> None:
    gap = gap_of_outcome(_outcome(code, severity), None)
    assert gap is not None
    assert gap.reason is GapReason.FAILED


@pytest.mark.parametrize(
    "outcome", [_outcome("informational", "information"), _outcome("not-supported"), {}, None, "x"]
)
def test_a_mere_remark_is_none(outcome: object) -> None:
    assert gap_of_outcome(outcome, "Observation") is None


def test_a_code_outside_the_value_set_is_not_repeated() -> None:
    gap = gap_of_outcome(_outcome(CANARY, "error"), None)
    assert gap is not None
    assert CANARY not in gap.detail
