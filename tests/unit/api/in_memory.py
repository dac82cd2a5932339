"""Doubles of the store and the audit log that keep everything in a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from service.errors import StoreError
from service.ports import AuditEntry, DocumentState, RunId, RunRow, RunState, StoredRun
from tests.unit.filing.in_memory import InMemoryDocuments


class InMemoryStore(InMemoryDocuments):
    """A FilingStore; `break_down` makes every call fail as a full disk or a lost key would."""

    def __init__(self, *runs: StoredRun) -> None:
        super().__init__()
        self.runs = list(runs)
        self.failure: Exception | None = None

    def break_down(self, failure: Exception | None = None) -> None:
        self.failure = failure or StoreError("the database cannot be read")

    def save(self, run: StoredRun) -> None:
        self._check()
        self.runs.append(run)

    def finish(
        self,
        run_id: RunId,
        state: RunState,
        document: str = "",
        error: str = "",
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        self._check()
        self.runs = [
            replace(run, state=state, document=document, error=error, seconds=seconds or run.seconds)
            if run.run_id == run_id
            else run
            for run in self.runs
        ]

    def get(self, run_id: RunId) -> StoredRun | None:
        self._check()
        return next((run for run in self.runs if run.run_id == run_id), None)

    def find_by_key(self, key: str) -> StoredRun | None:
        self._check()
        usable = [r for r in self.runs if r.inputs.key == key and r.state is not RunState.FAILED]
        return max(usable, key=lambda run: run.created_at, default=None)

    def find_latest(self, patient: str, kind: str) -> StoredRun | None:
        self._check()
        filed = [
            run
            for run in reversed(self.runs)
            if (run.inputs.patient, run.inputs.kind) == (patient, kind)
            and run.state in (RunState.FILED, RunState.UNCHANGED)
        ]
        return max(filed, key=lambda run: run.created_at, default=None)

    def newest(
        self, server: str, patient: str, kind: str, encounter: str = "", reader: str = ""
    ) -> StoredRun | None:
        self._check()
        withdrawn = {one.run_id for one in self.filed.values() if one.state is DocumentState.WITHDRAWN}
        shown = [
            run
            for run in reversed(self.runs)
            if (run.inputs.server, run.inputs.patient, run.inputs.kind) == (server, patient, kind)
            and (not encounter or run.inputs.encounter in ("", encounter))
            and run.is_read_for(reader)
            and run.state is not RunState.FAILED
            and run.run_id not in withdrawn
        ]
        return max(shown, key=lambda run: run.created_at, default=None)

    def rows(self, limit: int = 50, offset: int = 0) -> tuple[Sequence[RunRow], int]:
        self._check()
        newest_first = sorted(self.runs, key=lambda run: run.created_at, reverse=True)
        return [_row(run) for run in newest_first[offset : offset + limit]], len(self.runs)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure


class InMemoryAudit:
    """An AuditLog whose entries can be read; `break_down` makes appending fail."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.failure: Exception | None = None

    def break_down(self, failure: Exception | None = None) -> None:
        self.failure = failure or StoreError("the audit log cannot be written")

    def append(self, entry: AuditEntry) -> None:
        if self.failure is not None:
            raise self.failure
        self.entries.append(entry)


def _row(run: StoredRun) -> RunRow:
    return RunRow(
        run_id=run.run_id,
        created_at=run.created_at,
        state=run.state,
        kind=run.summary.kind,
        patient=run.inputs.patient,
        patient_name=run.summary.identity.name,
        model=run.inputs.model,
        document=run.document,
        published=len(run.summary.published),
        refused=len(run.summary.refused),
        incomplete=bool(run.summary.incomplete),
    )
