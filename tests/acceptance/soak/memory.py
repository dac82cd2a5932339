"""How much memory a worker holds while it goes through a sweep."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.soak.moments import Queue
from tests.acceptance.soak.stage import Stage

LOOK_S = 0.5
LAST_SHARE = 0.1
"""The end is the median over the last tenth of the visits: what is freed at exit tells nothing."""


@dataclass(frozen=True)
class Watched:
    """One pass, and what its process held on the way."""

    report: dict[str, Any]
    samples: tuple[tuple[int, float], ...]
    """(visits done, MB resident), in the order of time."""
    seconds: float

    def held_after(self, visits: int) -> float:
        """Return what was held when so many visits were done, in MB."""
        return next(held for done, held in self.samples if done >= visits)

    @property
    def held_at_the_end(self) -> float:
        """Return what was held over the last visits, in MB."""
        most = self.samples[-1][0]
        last = sorted(held for done, held in self.samples if done >= most * (1 - LAST_SHARE))
        return last[len(last) // 2]

    def growth(self, warm: int) -> float:
        """Return by which share it grew after so many visits."""
        return self.held_at_the_end / self.held_after(warm) - 1


def sweep_watched(stage: Stage) -> Watched:
    """Make one pass with `epicrisis sweep`, and look at its memory meanwhile."""
    queue, started = Queue(stage.folder / "home", stage.database_url), time.monotonic()
    before = queue.done()
    process = stage.begin("sweep", "--json")
    samples: list[tuple[int, float]] = []
    while process.poll() is None:
        held = _resident(process.pid)
        if held is not None:
            samples.append((queue.done() - before, held))
        time.sleep(LOOK_S)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr[-2000:]
    return Watched(json.loads(stdout), tuple(samples), time.monotonic() - started)


def _resident(process_id: int) -> float | None:
    with suppress(OSError, IndexError):
        pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return None
