"""The state of a document is the worst that was found; every finding has a weight."""

from __future__ import annotations

import pytest

from service.proof.report import EXIT_CODES, WEIGHTS, Finding, State, state_of


@pytest.mark.parametrize(
    ("codes", "state"),
    [
        ((), State.VALID),
        (("source_changed_since", "rules_differ"), State.VALID),
        (("not_signed",), State.UNSIGNED),
        (("not_signed", "version_not_kept"), State.CANNOT_CHECK),
        (("unknown_key",), State.CANNOT_CHECK),
        (("not_signed", "unknown_key", "claim_differs"), State.ALTERED),
    ],
)
def test_the_worst_decides(codes: tuple[str, ...], state: State) -> None:
    assert state_of(Finding(code, "document") for code in codes) is state


def test_exit_codes_are_distinct_and_no_other_command_error() -> None:
    assert set(EXIT_CODES) == set(State)
    assert len(set(EXIT_CODES.values())) == len(State)
    assert min(set(EXIT_CODES.values()) - {0}) > 13


def test_every_weight_is_known() -> None:
    assert all(Finding(code, "document").weight for code in WEIGHTS)
