"""Runs that were stored and not counted: of an earlier version, or where counting failed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo

from service.errors import StoreError
from service.ports import Clock, Store
from service.ports.quality import QualityStore
from service.ports.runs import StoredRun
from service.quality.count import measure_run

BATCH = 100


def counter_of(quality: QualityStore, zone: tzinfo) -> Callable[[StoredRun], None]:
    """Return what counts a run that was just stored. It never fails: what it misses is counted later."""

    def count(run: StoredRun) -> None:
        try:
            quality.keep(measure_run(run, zone))
        except StoreError:
            return

    return count


def count_backlog(
    runs: Store, quality: QualityStore, zone: tzinfo, clock: Clock, most: int | None = None
) -> int:
    """Count what is not counted yet, newest first, at most so many runs, and return how many those were.

    Of a run whose text was destroyed, or that this version cannot read, nothing is counted. Raises StoreError
    where the store itself cannot be read.
    """
    done = 0
    while most is None or done < most:
        some = quality.uncounted(BATCH if most is None else min(BATCH, most - done))
        if not some:
            break
        for run_id in some:
            try:
                run = runs.get(run_id)
            except StoreError:  # were it the database, the next line would fail too
                run = None
            if run is None:
                quality.skip(run_id, clock())
            else:
                quality.keep(measure_run(run, zone))
        done += len(some)
    return done
