"""Every reason is a code that some rule gives, and a sentence that a clinician understands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import service
from service.grounding.reasons import CODES, Reason, reason_of

OURS = Path(service.__file__).parent
GIVEN = "\n".join(
    path.read_text(encoding="utf-8") for path in OURS.rglob("*.py") if path.name != "reasons.py"
)


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_reason_is_one_whole_sentence(code: str) -> None:
    reason = reason_of(code)
    assert reason.code == code
    assert re.fullmatch(r"[A-Z][a-z ,:']+\.", reason.detail)
    assert reason_of(f"{code}:on_hold") == Reason(code, f"{reason.detail} (on hold)")


@pytest.mark.parametrize("code", sorted(CODES - {"second_pass_no", "second_pass_not_stated"}))
def test_a_reason_is_given_by_a_rule(code: str) -> None:
    assert re.search(rf'f?"{code}["{{:]', GIVEN)


def test_what_the_second_pass_says_has_its_reasons() -> None:
    assert {"second_pass_no", "second_pass_not_stated"} <= CODES
    assert "second_pass_" in GIVEN


def test_every_reason_that_a_rule_gives_has_a_sentence() -> None:
    rules = "\n".join(path.read_text(encoding="utf-8") for path in (OURS / "grounding").glob("*.py"))
    given = set(re.findall(r'Verdict\.[A-Z_]+, \(?f?"([a-z_]+)', rules))
    given |= set(re.findall(r'(?:return|else) "([a-z]+_[a-z_]+)"', rules))
    assert len(given) > 30
    assert given - {"not_checked"} <= CODES


def test_two_reasons_never_read_the_same() -> None:
    assert len({reason_of(code).detail for code in CODES}) == len(CODES)
