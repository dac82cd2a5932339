"""Tables of measured figures, in Markdown, for a terminal and for `bench-results/`."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path("bench-results")


Row = tuple[str, ...]


@dataclass
class Table:
    """One topic: what was measured, row by row, each with its target where there is one."""

    title: str
    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the table under its title; the first two columns are words, the others figures."""
        lines = [f"## {self.title}", ""]
        if self.rows:
            rule = ["---" if place < 2 else "---:" for place in range(len(self.columns))]
            lines += [_line(self.columns), _line(rule), *map(_line, self.rows), ""]
        return "\n".join([*lines, *(f"{remark}  " for remark in self.remarks)]).rstrip() + "\n"


def seconds(value: float) -> str:
    """`0.451`"""
    return f"{value:.3f}"


def times(value: float) -> str:
    """`4.95 ×`"""
    return f"{value:.2f} ×"


def percent(value: float) -> str:
    """`91.3 %` of a share between 0 and 1."""
    return f"{100 * value:.1f} %"


def at_most(value: float, target: float, shown: str) -> str:
    """Return a target with its verdict: `≤ 5 ×: held`."""
    return f"≤ {shown}: {'held' if value <= target else 'MISSED'}"


def at_least(value: float, target: float, shown: str) -> str:
    """Return a target with its verdict: `≥ 80 %: MISSED`."""
    return f"≥ {shown}: {'held' if value >= target else 'MISSED'}"


def document(tables: Sequence[Table], took_s: float, remarks: Sequence[str] = ()) -> str:
    """Return all tables as one Markdown page."""
    machine = f"{platform.machine()}, {_cores()} cores, Python {platform.python_version()}"
    head = f"# Bench of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n\n{machine}; the run took {took_s:.0f} s.\n"
    said = [f"{remark}\n" for remark in remarks]
    return "\n".join([head, *said, *(table.markdown() for table in tables)])


def write(page: str) -> Path:
    """Write the page to `bench-results/` and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.md"
    path.write_text(page, encoding="utf-8")
    return path


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _cores() -> int:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return 0
    return text.count("processor\t")
