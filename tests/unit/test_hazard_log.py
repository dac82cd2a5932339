"""The hazard log and the threat model name tests that exist: a control without a test is not a control."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOGS = {"hazards.md": ("| SAFETY", "| Promise"), "threats.md": ("| ",)}
HEADS = ("| flow ", "|---", "| rule ")
FLOWS = ("EHR", "PACS", "engine", "browser", "IdP", "HL7 feed", "queue and database", "backup", "operators")
STRIDE = "STRIDE"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
SOURCE = re.compile(r"`((?:service|connectors)/[\w./]*)`")


def rows_of(log: str) -> list[str]:
    lines = (ROOT / "ops/safety" / log).read_text().splitlines()
    return [line for line in lines if line.startswith(LOGS[log]) and not line.startswith(HEADS)]


ROWS = [(log, row) for log in LOGS for row in rows_of(log)]
THREATS = [[cell.strip() for cell in row.strip().strip("|").split(" | ")] for row in rows_of("threats.md")]


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


@pytest.mark.parametrize(("log", "row"), ROWS, ids=lambda text: text[2:40])
def test_every_row_names_tests_that_exist(log: str, row: str) -> None:
    cells = row.strip("|").split(" | ")
    assert len(cells) >= 4
    named = TEST.findall(row)
    assert named
    for path, name in named:
        assert name in names_in(path), f"{log}: {path}::{name}"


@pytest.mark.parametrize("cells", THREATS, ids=lambda cells: f"{cells[0]} {cells[1]} {cells[2][:30]}")
def test_every_threat_is_whole_and_its_control_is_in_the_code(cells: list[str]) -> None:
    flow, letter, threat, control, tests, risk = cells
    assert flow in FLOWS
    assert letter in STRIDE
    assert all((threat, control, tests, risk))
    assert TEST.sub("", tests).strip(", ") == ""
    sources = SOURCE.findall(control)
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source


def test_there_are_rows() -> None:
    assert len(rows_of("hazards.md")) > 20
    assert {cells[0] for cells in THREATS} == set(FLOWS)
    assert {cells[1] for cells in THREATS} == set(STRIDE)
