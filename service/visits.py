"""One visit to an admission: read the chart, make the run that it calls for, file it, keep the result.

It is the use case of `summarize`, cut where a crash may come between, for `durable` to put together. Each
part may be repeated at any time: what decides is stored before it is acted on, under the run key.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from connectors.errors import ConnectorError
from connectors.http import metered
from service.alike import is_alike
from service.engine.counted import tallied
from service.errors import EngineError, EpicrisisError, StoreError
from service.filing.desk import Desk
from service.filing.withdraw import DISCHARGED, EXPIRED, lapse
from service.ports import (
    DOCUMENT_SYSTEM,
    SHREDDED,
    Admission,
    AdmissionStore,
    Clock,
    DocumentState,
    Ehr,
    FiledDocument,
    FilingStore,
    RunId,
    RunState,
    Standing,
    StoredRun,
)
from service.record.facts import Fact, PatientRecord
from service.staleness import Staleness, compare
from service.summarize import Outcome, Progress, Ready, Summarizer, with_key
from service.writeback.lifecycle import standing_of

ACTOR = "system:schedule"
MOST_KEPT = 16
"""Charts that were read and wait for their run, held in memory; others are taken from the vault again."""
OUTDATED = "A newer draft stands in its place."
_LAPSED = frozenset({EXPIRED, DISCHARGED, OUTDATED})
"""Why a draft is withdrawn by us and not by a person: where its chart comes again, it is made anew."""
_WITHDRAWN = {"state": "skipped", "reason": "withdrawn"}
_NOT_FILED = {RunState.INCOMPLETE: "incomplete", RunState.WITHHELD: "deceased"}

Json = dict[str, Any]


class Screen(Protocol):
    """Who is not to be summarised."""

    async def renew(self) -> frozenset[str]:
        """Read anew what people want, for all at once, and return the stays that are seen to go on.

        What cannot be read counts as a no.
        """
        ...

    async def before(self, admission: Admission) -> str:
        """Return why nobody may read this chart, in one word; empty where it may be read."""
        ...

    def after(self, admission: Admission, ready: Ready) -> str:
        """Return why nothing is to be made of what was read; empty where it is."""
        ...


class Everyone:
    """Leaves nobody out: for tests."""

    async def renew(self) -> frozenset[str]:
        """Read nothing."""
        return frozenset()

    async def before(self, admission: Admission) -> str:
        """Leave nobody out."""
        return ""

    def after(self, admission: Admission, ready: Ready) -> str:
        """Leave nobody out."""
        return ""


@dataclass
class Visits:
    """The Office of the durable queue."""

    summarizer: Summarizer
    ehr: Ehr
    admissions: AdmissionStore
    runs: FilingStore
    screen: Screen
    clock: Clock
    keeps: bool = False
    """True where this site keeps drafts here until they are attested, and files none."""
    desk: Desk | None = None
    """Where drafts of earlier states of a chart are withdrawn; without it they stand until they expire."""
    tell: Progress = lambda stage, detail: None
    _ready: OrderedDict[str, Ready] = field(default_factory=OrderedDict, repr=False)

    async def read(self, admission_id: str, kind: str) -> Json:
        """Read the chart, and say which run it calls for, if any."""
        with metered() as meter:
            answer = await self._guarded(self._read, admission_id, kind)
        return {**answer, "requests": meter.requests}

    async def draft(self, admission_id: str, kind: str, key: str) -> Json:
        """Make the run of a key, or say that the chart is another by now."""
        with metered() as meter, tallied() as tally:
            answer = await self._guarded(self._draft, admission_id, kind, key)
        return {**answer, "requests": meter.requests, "engine_calls": tally.calls}

    async def file(self, admission_id: str, kind: str, run_id: str) -> Json:
        """File a stored run."""
        with metered() as meter:
            answer = await self._guarded(self._file, admission_id, kind, run_id)
        return {**answer, "requests": meter.requests}

    async def conclude(self, admission_id: str, outcome: Json) -> Json:
        """Keep what became of the visit with the admission."""
        return await self._guarded(self._conclude, admission_id, outcome)

    async def _conclude(self, admission_id: str, outcome: Json) -> Json:
        now = self.clock()

        def change(admission: Admission) -> Admission:
            return concluded(admission, outcome, now)

        await asyncio.to_thread(self.admissions.change_admission, admission_id, change)
        return outcome

    async def _guarded(self, act: Callable[..., Any], *arguments: Any) -> Json:
        """Return what happened, an expected failure as its code and whether it may pass."""
        try:
            answer: Json = await act(*arguments)
        except (ConnectorError, EpicrisisError) as error:
            return {"failed": error.code, "again": may_pass(error)}
        return answer

    async def _read(self, admission_id: str, kind: str) -> Json:
        admission = await self._admission(admission_id)
        why = _over(admission) or await self.screen.before(admission)
        if why:
            return _skipped(why)
        ready = await self.summarizer.prepare(
            admission.patient, kind=kind, encounter=admission.encounter, actor=ACTOR, tell=self.tell
        )
        why = self.screen.after(admission, ready)
        if why:
            return _skipped(why)
        ready = await asyncio.to_thread(self._renewed, ready)
        outcome = await self._settled(ready)
        if outcome is not None:
            return {"outcome": outcome}
        self._keep(ready)
        return {"key": ready.inputs.key, "epoch": admission.epoch}

    async def _draft(self, admission_id: str, kind: str, key: str) -> Json:
        admission = await self._admission(admission_id)
        if why := _over(admission):
            return _skipped(why)
        stored = await asyncio.to_thread(self.runs.find_by_key, key)
        if stored is not None:
            return {"run": stored.run_id}
        ready = self._ready.pop(key, None) or await self._again(admission, kind)
        if ready.inputs.key != key:
            return {"moved": True}
        return {"run": (await self.summarizer.draft(ready)).run_id}

    async def _file(self, admission_id: str, kind: str, run_id: str) -> Json:
        admission = await self._admission(admission_id)
        if why := _over(admission):
            return _skipped(why)
        run = await asyncio.to_thread(self.runs.get, RunId(run_id))
        if run is None:
            raise StoreError("A run that was made is not stored any more.")
        newer = await asyncio.to_thread(self._newer, run)
        if newer is not None:
            return await self._overtaken(run, newer)
        done = await self.summarizer.file_stored(run, ACTOR)
        row = await asyncio.to_thread(self._row, run)
        if row is not None and row.state is DocumentState.WITHDRAWN:
            return _skipped("withdrawn")
        if done.document:
            await self._withdraw_others(run)
        return {"outcome": _told(done.state, run.run_id, is_stopped=done.is_stopped)}

    async def _overtaken(self, run: StoredRun, newer: str) -> Json:
        """Leave a run unfiled that a newer one overtook; what a crash left of it on the server is withdrawn.

        The run counts as failed, so that the same chart, should it come again, is told anew.
        """
        if await self.ehr.find_document(DOCUMENT_SYSTEM, run.inputs.key):
            await self.summarizer.file_stored(run, ACTOR)  # now it is known here
            row = await asyncio.to_thread(self._row, run)
            if self.desk is not None and row is not None and row.state is DocumentState.DRAFT:
                await lapse(self.desk, row, OUTDATED, ACTOR)
        else:
            await asyncio.to_thread(self.runs.finish, run.run_id, RunState.FAILED, "", "outdated")
        return {"outcome": {"state": "unchanged", "run": newer}}

    def _newer(self, run: StoredRun) -> str | None:
        """Return the run of a draft that was made of a later state of this chart, where one was filed."""
        others = (self.runs.get(row.run_id) for row in self._others(run))
        return next((other.run_id for other in others if other and other.read_at > run.read_at), None)

    async def _withdraw_others(self, run: StoredRun) -> None:
        """Withdraw our drafts of other states of this chart; what others changed in one is left to them."""
        for row in await asyncio.to_thread(self._others, run):
            if self.desk is not None:
                await lapse(self.desk, row, OUTDATED, ACTOR)

    def _others(self, run: StoredRun) -> list[FiledDocument]:
        """Return the other drafts of the stay and kind of a run."""
        rows = [
            row
            for row in self.runs.documents_of(run.inputs.patient)
            if row.state is DocumentState.DRAFT
            and row.run_id != run.run_id
            and (row.server, row.encounter) == (self.ehr.base_url, run.inputs.encounter)
        ]
        kinds = {row.run_id: other.inputs.kind for row in rows if (other := self.runs.get(row.run_id))}
        return [row for row in rows if kinds.get(row.run_id) == run.inputs.kind]

    async def _admission(self, admission_id: str) -> Admission:
        found = await asyncio.to_thread(self.admissions.get_admission, admission_id)
        if found is None:
            raise StoreError("This admission is not known any more.")
        return found

    async def _again(self, admission: Admission, kind: str) -> Ready:
        """Take the chart as it was read before the run was taken up by another process."""
        ready = await self.summarizer.prepare(
            admission.patient, kind=kind, encounter=admission.encounter, actor=ACTOR, tell=self.tell,
            as_kept=True,
        )  # fmt: skip
        return await asyncio.to_thread(self._renewed, ready)

    def _keep(self, ready: Ready) -> None:
        self._ready[ready.inputs.key] = ready
        while len(self._ready) > MOST_KEPT:
            self._ready.popitem(last=False)

    def _renewed(self, ready: Ready) -> Ready:
        """Return the inputs of the next attempt where the draft of these inputs has lapsed."""
        while True:
            run = self.runs.find_by_key(ready.inputs.key)
            row = self._row(run) if run is not None else None
            if row is None or row.state is not DocumentState.WITHDRAWN or row.reason not in _LAPSED:
                return ready
            ready = replace(ready, inputs=with_key(replace(ready.inputs, attempt=ready.inputs.attempt + 1)))

    async def _settled(self, ready: Ready) -> Json | None:
        """Return what became of this chart where no run is called for.

        While an archive is away, an earlier draft that saw as much stands, whatever its key.
        """
        if ready.looked.is_for_now and (stands := await self._immaterial(ready)):
            return stands
        run = await asyncio.to_thread(self.runs.find_by_key, ready.inputs.key)
        if run is None:
            return await self._immaterial(ready) or await self._filed_elsewhere(ready)
        row = await asyncio.to_thread(self._row, run)
        if row is not None and row.state is DocumentState.WITHDRAWN:
            return dict(_WITHDRAWN)
        if run.state in _NOT_FILED:
            return {"state": "skipped", "reason": _NOT_FILED[run.state], "run": run.run_id}
        if self.keeps and run.state is RunState.GENERATED:
            return {"state": "unchanged", "run": run.run_id}
        earlier = await self.summarizer.find_earlier(ready)
        if not isinstance(earlier, Outcome):
            return dict(_WITHDRAWN) if row is not None and await self._is_gone(row) else None
        await self._withdraw_others(run)
        return _told(earlier.state, run.run_id)

    async def _is_gone(self, row: FiledDocument) -> bool:
        """Tell whether someone withdrew or deleted a document in the EHR itself, and keep that."""
        if self.desk is None:
            return False
        there = await self.desk.read_if_there(row.document)
        if there is not None and standing_of(there) != "withdrawn":
            return False
        await asyncio.to_thread(self.desk.keep, replace(row, state=DocumentState.WITHDRAWN))
        return True

    async def _filed_elsewhere(self, ready: Ready) -> Json | None:
        """Return that the EHR holds the document of these inputs, which another store knows of."""
        earlier = await self.summarizer.find_earlier(ready)
        return _told(earlier.state, earlier.run_id) if isinstance(earlier, Outcome) else None

    async def _immaterial(self, ready: Ready) -> Json | None:
        """Return the summary that still holds, where nothing changed that it or a required kind rests on."""
        inputs = ready.inputs
        latest = await asyncio.to_thread(self.runs.find_latest, inputs.patient, inputs.kind)
        if latest is None or not is_alike(latest.inputs, inputs, ready.looked):
            return None
        found = await asyncio.to_thread(compare, latest, ready.record, ready.pull.read_at)
        if is_material(found, latest, ready.record):
            return None
        row = await asyncio.to_thread(self._row, latest)
        if row is not None and row.state is DocumentState.WITHDRAWN and row.reason in _LAPSED:
            return None
        if not await self.ehr.find_document(DOCUMENT_SYSTEM, latest.inputs.key):
            return None
        return {"state": "unchanged", "run": latest.run_id}

    def _row(self, run: StoredRun) -> FiledDocument | None:
        rows = [row for row in self.runs.documents_of(run.inputs.patient) if row.run_id == run.run_id]
        return rows[0] if rows else None


def _over(admission: Admission) -> str:
    """Return why nothing is made for a stay any more; nothing while it goes on."""
    if admission.is_open:
        return ""
    return SHREDDED if admission.reason == SHREDDED else "ended"


def may_pass(error: ConnectorError | EpicrisisError) -> bool:
    """Tell whether an error may be gone in some minutes: a server or an engine that is down, a full disk."""
    if isinstance(error, ConnectorError):
        return error.repeatable or error.exit_code == 4
    return isinstance(error, EngineError | StoreError)


def is_material(found: Staleness, run: StoredRun, record: PatientRecord) -> bool:
    """Tell whether a change calls for a new summary: it touches what is required or cited, or outdates it."""
    if found.compared_at is None or found.reason or found.touches_required or found.touches_cited:
        return True
    cited = {fact_id for claim in run.summary.published for fact_id in claim.citations}
    names = {_name(fact) for fact in run.summary.facts if fact.id in cited}
    changed = {change.reference for change in found.changes}
    return any(fact.source.reference in changed and _name(fact) in names for fact in record.facts)


def _name(fact: Fact) -> tuple[str, str]:
    return (fact.kind.value, fact.name.casefold())


def _skipped(reason: str) -> Json:
    return {"outcome": {"state": "skipped", "reason": reason}}


def _told(state: RunState, run_id: str, *, is_stopped: bool = False) -> Json:
    """Return what became of a run in ids and codes."""
    if is_stopped:
        return {"state": "skipped", "reason": "stopped", "run": run_id}
    if state in _NOT_FILED:
        return {"state": "skipped", "reason": _NOT_FILED[state], "run": run_id}
    return {"state": state.value, "run": run_id}


def concluded(admission: Admission, outcome: Mapping[str, Any], now: datetime) -> Admission:
    """Return the admission as it stands after a visit."""
    state, reason, epoch = outcome.get("state", ""), outcome.get("reason", ""), admission.epoch + 1
    if not admission.is_open:
        return admission
    if state == "failed":
        failures = admission.failures + 1
        return _stands(admission, Standing.FAILED, reason, now, failures=failures, epoch=epoch)
    if state == "skipped":
        return _stands(admission, Standing.SKIPPED, reason, now, failures=0, epoch=epoch)
    run_id = outcome.get("run") or admission.run_id
    return _stands(admission, Standing.FRESH, "", now, failures=0, run_id=run_id, checked_at=now)


def _stands(admission: Admission, standing: Standing, reason: str, now: datetime, **more: Any) -> Admission:
    is_same = (admission.standing, admission.reason) == (standing, reason)
    since = admission.since if is_same else now
    return replace(admission, standing=standing, reason=reason, since=since, tried_at=now, **more)
