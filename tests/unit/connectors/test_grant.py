"""What a token was not granted counts as not retrieved, whatever the answer looked like."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from connectors.fhir.compartment import COMPARTMENT
from connectors.fhir.grant import granted_of, mark_ungranted
from connectors.fhir.packed import Packed
from connectors.fhir.pull import Gap, GapReason, Pull

WHOLE = Pull("1", Packed(), (), datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        ("", "whole"),
        ("openid launch", "whole"),
        ("patient/*.rs", "whole"),
        ("system/*.read", "whole"),
        ("user/Observation.read", "whole"),
        ("patient/Observation.r", "none"),
        ("patient/Condition.rs", "none"),
        ("patient/Observation.write", "none"),
        ("patient/Observation.rs?category=laboratory", "part"),
        ("patient/Observation.rs?category=laboratory patient/*.s", "whole"),
    ],
)
def test_scopes_are_read_as_smart_writes_them(scope: str, granted: str) -> None:
    assert granted_of(scope, "Observation") == granted


@pytest.mark.parametrize("scope", ["", "openid", "patient/*.rs", "system/*.read"])
def test_a_token_for_everything_leaves_no_gap(scope: str) -> None:
    assert mark_ungranted(WHOLE, scope) is WHOLE


def test_each_type_that_was_not_granted_is_a_gap_once() -> None:
    marked = mark_ungranted(WHOLE, "patient/Patient.rs patient/Condition.rs patient/Observation.rs?x=y")
    reasons = {gap.resource_type: gap.reason for gap in marked.gaps}
    assert set(reasons) == set(COMPARTMENT) - {"Condition"}
    assert set(reasons.values()) == {GapReason.REFUSED}
    assert len(marked.gaps) == len(reasons)
    assert mark_ungranted(marked, "patient/Condition.rs").gaps == marked.gaps


def test_a_gap_that_the_server_admitted_is_not_told_twice() -> None:
    told = Gap("Flag", GapReason.REFUSED, "403")
    pull = Pull("1", Packed(), (told,), datetime(2026, 1, 1, tzinfo=UTC))
    scope = " ".join(f"patient/{kind}.rs" for kind in COMPARTMENT if kind != "Flag")
    assert mark_ungranted(pull, scope).gaps == (told,)
