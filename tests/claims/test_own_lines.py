"""The record's own line, word for word, is borne out: a model that copies it is not refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.grounding.check import Judge
from service.record.facts import Fact, Kind
from tests.claims.generate import Suite, make_suite

pytestmark = pytest.mark.shared

EVERY = 6
"""Each of so many charts is read: all of them take minutes."""


@pytest.fixture(scope="module")
def suite(shared_data: Path) -> Suite:
    return make_suite(shared_data)


def test_every_own_line_without_relative_time_is_supported(suite: Suite) -> None:
    lines, refused = 0, []
    for name in sorted(suite.charts)[::EVERY]:
        record = suite.charts[name].record()
        judge = Judge(record.identity.gender, record)
        seen: set[tuple[Kind, str, str]] = set()
        for fact in record.facts:
            if fact.kind is Kind.PATIENT or (not fact.span and _mark(fact) in seen):
                continue
            seen.add(_mark(fact))
            lines += 1
            _, reasons = judge.verdict(fact.text, [fact])
            refused += [(fact.kind, reasons)] if set(reasons) - {"relative_date"} else []
    assert refused == []
    assert lines > 1000


def _mark(fact: Fact) -> tuple[Kind, str, str]:
    return fact.kind, fact.name, fact.status
