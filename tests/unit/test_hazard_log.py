"""The hazard log names tests that exist: a control without a test is not a control."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    row
    for row in (ROOT / "ops/safety/hazards.md").read_text().splitlines()
    if row.startswith(("| SAFETY", "| Promise"))
]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_every_row_names_tests_that_exist(row: str) -> None:
    cells = row.strip("|").split(" | ")
    assert len(cells) >= 4
    named = TEST.findall(row)
    assert named
    for path, name in named:
        assert name in names_in(path), f"{path}::{name}"


def test_there_are_rows() -> None:
    assert len(ROWS) > 20
