"""Why a summary is not there, in words."""

from __future__ import annotations

import pytest

from connectors.admissions.resolve import Unresolved
from connectors.errors import ConnectorError
from service.admissions.words import _SENTENCES, sentence_for
from service.eligibility import Reason


@pytest.mark.parametrize("code", [*Reason, *Unresolved, *_SENTENCES])
def test_every_reason_has_a_sentence_of_its_own(code: str) -> None:
    sentence = sentence_for(str(code))
    assert sentence.endswith(".")
    assert "epicrisis retry" not in sentence
    assert f"({code})" not in sentence


def codes_of(kind: type[ConnectorError]) -> set[str]:
    return {kind.code}.union(*(codes_of(one) for one in kind.__subclasses__()))


@pytest.mark.parametrize("code", sorted(codes_of(ConnectorError)))
def test_what_the_record_system_can_fail_with_is_said_in_a_sentence(code: str) -> None:
    assert sentence_for(code).count(".") >= 1


def test_an_unknown_code_says_what_to_do_and_none_says_nothing() -> None:
    assert sentence_for("odd") == "It did not work (odd). `epicrisis retry` tries again."
    assert sentence_for("") == ""
