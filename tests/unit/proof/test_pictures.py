"""A document that holds what was read from pictures: it may say so of pictures, and of nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from service.proof.statements import check_citations

PICTURE = {"number": 1, "reference": "ImagingStudy/1", "picture": {"study": "1.2", "instance": "1.2.3"}}
PROBLEM = {"number": 2, "reference": "Condition/1"}


def codes(verdict: str, *numbers: int) -> list[str]:
    statement: dict[str, Any] = {"text": "x", "verdict": verdict, "sources": list(numbers)}
    return [finding.code for finding in check_citations([statement], [PICTURE, PROBLEM])]


def test_what_is_read_from_pictures_may_say_that_it_is_not_checked() -> None:
    assert codes("not_verifiable", 1) == []


@pytest.mark.parametrize(
    ("verdict", "numbers"),
    [("not_verifiable", (2,)), ("not_verifiable", (1, 2)), ("unsupported", (1,)), ("not_checked", (1,))],
)
def test_nothing_else_may_stand_there_unchecked(verdict: str, numbers: tuple[int, ...]) -> None:
    assert codes(verdict, *numbers) == ["verdict_not_supported"]


def test_a_reading_without_a_picture_is_a_fault() -> None:
    assert codes("not_verifiable") == ["citation_missing", "verdict_not_supported"]
