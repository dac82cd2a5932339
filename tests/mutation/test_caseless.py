"""What is left out as the same rule: letter case where a pattern ignores it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import libcst
import pytest

from tests.mutation.caseless import caseless_strings, is_same_but_for_case
from tests.mutation.mutants import sample

PATTERNS = r"""import re

_ITEM = "(?:values?)"
_NAMED = "named"
_CASED = "cased"
_BOTH = "both"
SHARED = "shared"
_WHOLE = rf"whole {_ITEM}"


def told(phrases):
    return re.compile(rf"\b(?:{phrases})\b", re.IGNORECASE)


def kept(phrases):
    return re.compile(phrases)


A = told("one|" rf"two {_WHOLE} {_BOTH} {SHARED}|" "three")
B = re.compile("four", re.VERBOSE | re.I)
C = re.compile("five" + _CASED)
D = kept("six")
E = re.sub("seven", "eight", "nine", flags=re.IGNORECASE)
F = told("|".join(["ten", _NAMED]))
G = [_BOTH]
"""


def test_strings_of_patterns_without_regard_to_case_are_found_and_no_others() -> None:
    found = {node.raw_value for node in caseless_strings(libcst.parse_module(PATTERNS))}
    assert found == {"one|", "three", "four", "seven", "(?:values?)"}


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (r'r"\b(today|ago)"', r'r"\b(TODAY|AGO)"', True),
        ('"(?:is|are)"', '"(?:IS|ARE)"', True),
        ('"today"', '"XXtodayXX"', False),
        (r'r"day\s"', r'r"day\S"', False),
        ('"(?P<kept>a)"', '"(?P<KEPT>A)"', False),
    ],
)
def test_only_the_case_of_letters_that_are_matched_means_nothing(one: str, other: str, is_same: bool) -> None:
    strings = libcst.parse_expression(one), libcst.parse_expression(other)
    assert is_same_but_for_case(*strings) is is_same


def test_a_sample_has_no_change_of_case_alone_where_case_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "words.py").write_text(PATTERNS)
    changes = [mutant.diff for mutant in sample(tmp_path, "rules", 1000, seed=1)]
    assert any("XXfourXX" in diff for diff in changes)
    assert any("XX(?:values?)XX" in diff for diff in changes)
    assert not any("FOUR" in diff or "(?:VALUES?)" in diff for diff in changes)
    assert any("FIVE" in diff for diff in changes)
    assert any("CASED" in diff for diff in changes)
