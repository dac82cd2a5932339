"""What a person at a terminal sees: progress on stderr, results on stdout, errors in plain words.

With `--json`, stdout carries exactly one JSON document and nothing else.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from service.hardening import PlainTraces, keep_short

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print the one JSON document of a command on stdout."""
    data = msgspec.json.encode(value, enc_hook=str)
    sys.stdout.write(msgspec.json.format(data, indent=2).decode() + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table on stdout. A column whose name begins with # holds numbers, which stand right."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name in columns:
        table.add_column(
            name.lstrip("#"), justify="right" if name.startswith("#") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*row)
    stdout.print(table)


def tell_error(message: str, advice: str = "") -> None:
    """Say what went wrong, and what to do about it, on stderr."""
    stderr.print(f"[bold red]Error:[/] {_plain(message)}", soft_wrap=True)
    if advice:
        stderr.print(f"  {_plain(advice)}", soft_wrap=True)


def set_up_logging(level: str) -> None:
    """Log to stderr. Libraries that print whole URLs or requests are kept quiet at any level.

    Of an exception only its kind and place are told: its text may quote a record.
    """
    handler = RichHandler(console=stderr, show_path=False)
    handler.setFormatter(PlainTraces("%(message)s"))
    logging.basicConfig(
        level=level.upper(),
        handlers=[handler],
        force=True,
    )
    logging.getLogger("asyncio").addFilter(keep_short)
    for name in ("httpx", "httpcore", "uvicorn.access", "asyncio", "multipart"):
        logging.getLogger(name).setLevel(logging.WARNING)


class Steps:
    """Progress of a long work: a bar on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("[dim]{task.fields[detail]}"), console=stderr,
        )  # fmt: skip
        self._live = stderr.is_terminal

    def __enter__(self) -> Steps:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._progress.stop()

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Step]:
        """One step of the work. It is closed when the block ends, well or badly."""
        task = self._progress.add_task(title, total=total, detail="")
        if not self._live:
            stderr.print(f"{title} …")
        step = Step(self._progress, task)
        yield step
        step.done()
        if not self._live:
            elapsed = self._progress.tasks[self._progress.task_ids.index(task)].elapsed or 0.0
            stderr.print(f"{title}: done in {elapsed:.0f} s")


class Step:
    """One running step."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def at(self, completed: int, total: int | None = None) -> None:
        """Say how far it is."""
        self._progress.update(self._task, completed=completed, total=total)

    def detail(self, text: str) -> None:
        """Say what is going on right now."""
        self._progress.update(self._task, detail=_plain(text))

    def done(self) -> None:
        """Fill the bar."""
        task = self._progress.tasks[self._progress.task_ids.index(self._task)]
        total = task.total or 1
        self._progress.update(self._task, completed=total, total=total, detail="")


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
