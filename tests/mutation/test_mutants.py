"""The instrument measured: the same sample for the same seed, and a change that is noticed or not."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from tests.mutation.__main__ import Judged, survivors, worker
from tests.mutation.mutants import Mutant, apportion, sample
from tests.mutation.worker import KILLED, SURVIVED, TIMEOUT, parted

RULE = """def is_high(value: int) -> bool:
    \"\"\"Above ten.\"\"\"
    return value > 10


WORDS = frozenset("no not".split())
"""
TEST = """from rules.high import is_high


def test_high() -> None:
    assert is_high(99)
    assert not is_high(1)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one rule, with one test that does not know where the limit is."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "__init__.py").touch()
    (tmp_path / "rules" / "high.py").write_text(RULE)
    (tmp_path / "test_high.py").write_text(TEST)
    return tmp_path


def changed(old: str, new: str) -> Mutant:
    return Mutant("rules/high.py", RULE, RULE.replace(old, new))


def test_a_sample_is_the_same_for_the_same_seed_and_each_has_one_change(project: Path) -> None:
    found = sample(project, "rules", 6, seed=1)
    assert found == sample(project, "rules", 6, seed=1)
    assert found != sample(project, "rules", 6, seed=2)
    assert len({mutant.source for mutant in found}) == 6
    for mutant in found:
        compile(mutant.source, "mutant", "exec")
        lines = difflib.ndiff(RULE.splitlines(), mutant.source.splitlines())
        assert sum(line.startswith("+ ") for line in lines) == 1


def test_words_outside_functions_are_changed_too(project: Path) -> None:
    assert any("WORDS" in mutant.diff for mutant in sample(project, "rules", 100, seed=1))


def test_a_place_is_the_line_that_differs() -> None:
    assert changed("> 10", ">= 10").place == "rules/high.py:3"


def test_modules_are_sampled_in_proportion() -> None:
    assert apportion([100, 50, 50, 0], 8) == [4, 2, 2, 0]
    assert sum(apportion([7, 5, 3], 10)) == 10
    assert apportion([2, 1], 100) == [2, 1]


def test_what_a_test_notices_is_killed_and_what_none_notices_survives(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    with worker(project, ["test_high.py"], 12) as ask:

        def verdict(mutant: Mutant) -> str:
            order = {"module": mutant.module, "path": mutant.path, "source": mutant.source}
            return str(ask(order)["verdict"])

        assert ask({})["verdict"] == SURVIVED
        assert verdict(changed("> 10", ">= 10")) == SURVIVED
        assert verdict(changed("> 10", "<= 10")) == KILLED
        assert verdict(changed("WORDS =", "WORDS = missing or")) == KILLED
        assert verdict(changed("return value > 10", "while True: pass")) == TIMEOUT
        assert ask({})["verdict"] == SURVIVED
    assert (project / "rules" / "high.py").read_text() == RULE


def test_the_tests_named_for_a_module_run_apart_from_the_rest() -> None:
    files = ["a/test_check.py", "a/test_check_words.py", "a/test_checks.py", "a/test_order.py"]
    assert parted(files, "rules.check") == (files[:2], files[2:])
    assert parted(files, "rules.none") == ([], files)
    assert parted(files, "") == ([], files)


def test_a_survivor_is_listed_with_its_place_and_its_change() -> None:
    one, other = changed("> 10", ">= 10"), changed("> 10", "< 10")
    page = "".join(survivors([Judged(one, SURVIVED, 1.0), Judged(other, KILLED, 1.0)]))
    assert "Survivors: 1" in page
    assert "rules/high.py:3" in page
    assert "+    return value >= 10" in page
    assert "+    return value < 10" not in page
