"""Whether a stored summary still says what the chart says: fresh, stale, or unknown. No engine is asked.

A summary keeps the resource versions that its statements and its evidence came from, and a short digest of
every statement of the record that it was made from. The chart of now, refreshed at the cost of what changed,
is assembled by the same rules and compared. What an AI wrote is in neither, and makes no summary stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from connectors.errors import ConnectorError
from connectors.fhir.pull import Gap, GapReason, Pull
from service.context.stay import find_stay
from service.grounding.since import known_by, mark_of
from service.ports import Action, AuditEntry, AuditLog, Clock, Ehr, StoredRun, Vault
from service.record.assemble import Policy, assemble_record, stop_reason
from service.record.facts import Fact, FactId, PatientRecord
from service.record.required import required_facts
from service.snapshot import Snapshot
from service.texts.worker import TextReader, read_texts


class Freshness(StrEnum):
    """What can be said of a stored summary now."""

    FRESH = "fresh"
    STALE = "stale"
    UNKNOWN = "unknown"
    """The chart could not be read well enough to tell; `reason` says why."""


class What(StrEnum):
    """What became of a resource since the summary was made."""

    NEW = "new"
    """It says something that the record did not hold then: a new resource, or another version of one that
    the summary does not name."""
    CHANGED = "changed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Change:
    """One resource that is not as it was."""

    reference: str
    """`Observation/12`"""
    kind: str
    """`Observation`; empty where the reference names no type."""
    what: What
    is_required: bool
    """A required fact came from it then, or comes from it now."""
    is_cited: bool
    """A published statement rests on it."""


@dataclass(frozen=True, slots=True)
class Staleness:
    """What comparing a stored summary with the chart found."""

    run_id: str
    freshness: Freshness
    read_at: datetime
    """Up to when the summary had read the chart."""
    compared_at: datetime | None
    """When the chart was read to compare; None where it could not be."""
    changes: tuple[Change, ...] = ()
    statements_gone: int = 0
    """Statements of the record of then that no resource makes any more."""
    reason: str = ""
    """Why it is unknown, or which kinds could not be compared; safe to show."""

    @property
    def touches_required(self) -> bool:
        """Tell whether a required fact is among what changed."""
        return any(change.is_required for change in self.changes)

    @property
    def touches_cited(self) -> bool:
        """Tell whether a cited fact is among what changed."""
        return any(change.is_cited for change in self.changes)

    @property
    def by_kind(self) -> Mapping[str, Mapping[What, tuple[str, ...]]]:
        """Kind → what → references."""
        found: dict[str, dict[What, tuple[str, ...]]] = {}
        for change in self.changes:
            of_kind = found.setdefault(change.kind, {})
            of_kind[change.what] = (*of_kind.get(change.what, ()), change.reference)
        return found


@dataclass(frozen=True, slots=True)
class Lookout:
    """Asks the chart whether a stored summary still holds. It reads, and writes nothing to the EHR."""

    ehr: Ehr
    audit: AuditLog
    clock: Clock
    policy: Policy = field(default_factory=Policy)
    vault: Vault | None = None
    texts: TextReader | None = None

    async def ask(self, run: StoredRun, actor: str = "system:cli") -> Staleness:
        """Compare one stored run with the chart as it is now. Raises StoreError: no audit, no read."""
        if run.inputs.access_profile != self.ehr.access_profile:
            return _unknown(run, None, "the summary was made with other rights to read than these")
        try:
            pull = await self._pull(run, actor)
        except ConnectorError as error:
            return _unknown(run, None, f"the chart could not be read ({error.code})")
        stop = stop_reason(pull.resources, pull.patient_id)
        if stop:
            return _unknown(run, pull.read_at, stop)
        record = await asyncio.to_thread(self._assemble, pull)
        return compare(run, record, pull.read_at)

    def _read(self, actor: str, run: StoredRun, **more: Any) -> AuditEntry:
        patient, server = run.inputs.patient, self.ehr.base_url
        return AuditEntry(Action.READ, actor, patient, self.clock(), run_id=run.run_id, server=server, **more)

    async def _pull(self, run: StoredRun, actor: str) -> Pull:
        patient = run.inputs.patient
        snapshot = Snapshot(self.vault, self.ehr.base_url, self.ehr.access_profile, patient)
        known = await asyncio.to_thread(snapshot.load)
        try:
            pull = await self.ehr.pull(patient.removeprefix("Patient/"), None, known)
        except ConnectorError as error:
            self.audit.append(self._read(actor, run, outcome=error.code))
            raise
        counts = {"resources": len(pull.resources)}
        self.audit.append(self._read(actor, run, counts=counts))
        await asyncio.to_thread(snapshot.keep, pull)
        return pull

    def _assemble(self, pull: Pull) -> PatientRecord:
        texts = read_texts(pull.resources, pull.binaries, self.texts or TextReader())
        return assemble_record(
            pull.resources, pull.patient_id, gaps=pull.gaps, policy=self.policy, binaries=pull.binaries,
            texts=texts, base_url=self.ehr.base_url, read_at=pull.read_at,
        )  # fmt: skip


def compare(run: StoredRun, record: PatientRecord, compared_at: datetime) -> Staleness:
    """Compare a stored run with a record of the same patient, assembled by the same policy.

    Where a kind could not be read now, nothing is said to be gone of it, and a chart that shows no change is
    unknown, unless the summary was made without that kind too.
    """
    why = _incomparable(run, record)
    if why:
        return _unknown(run, compared_at, why)
    gaps = [gap for gap in record.gaps if gap not in run.summary.gaps]
    changes = tuple(_changes(run, record, _silent(record.gaps)))
    known = set(known_by(record))
    gone = 0 if gaps else len(set(run.summary.known) - known)
    unchanged = Freshness.UNKNOWN if gaps else Freshness.FRESH
    freshness = Freshness.STALE if changes or gone else unchanged
    return Staleness(
        run.run_id, freshness, run.read_at, compared_at, changes, gone, _gap_words(gaps) if gaps else ""
    )


def _incomparable(run: StoredRun, record: PatientRecord) -> str:
    """Return why a record cannot be held against a run; empty where it can."""
    then, now = run.summary.identity, record.identity
    if not run.summary.known:
        return "the summary was stored by a version that did not keep what it rests on"
    if then.reference != now.reference or (then.record_number, then.birth_date) != (
        now.record_number,
        now.birth_date,
    ):
        return "the chart under this id is another person's, or its identity was changed"
    return ""


def _unknown(run: StoredRun, compared_at: datetime | None, reason: str) -> Staleness:
    return Staleness(run.run_id, Freshness.UNKNOWN, run.read_at, compared_at, reason=reason)


def _gap_words(gaps: Iterable[Gap]) -> str:
    parts = dict.fromkeys(f"{gap.resource_type or 'part of the record'} ({gap.reason.value})" for gap in gaps)
    return f"not read now: {', '.join(parts)}"


def _silent(gaps: Iterable[Gap]) -> Callable[[str], bool]:
    """Tell of which references nothing may be said to be gone; of what is never offered nothing came."""
    kinds = {gap.resource_type for gap in gaps if gap.reason is not GapReason.NOT_SUPPORTED}
    return lambda reference: None in kinds or _kind_of(reference) in kinds


def _changes(run: StoredRun, record: PatientRecord, is_silent: Callable[[str], bool]) -> Iterator[Change]:
    cited, required = _cited(run), _required_then(run) | _required_now(run, record)
    then = _versions(run.summary.facts)
    now = _versions(record.facts) | {one.reference: {one.digest} for one in record.inputs}
    new = set(_saying_new(run, record))

    def change(reference: str, what: What) -> Change:
        return Change(reference, _kind_of(reference), what, reference in required, reference in cited)

    for reference in sorted({*then, *new}):
        if reference not in now:
            if not is_silent(reference):
                yield change(reference, What.GONE)
        elif reference not in then:
            yield change(reference, What.NEW)
        elif reference in new or not then[reference] & now[reference]:
            yield change(reference, What.CHANGED)


def _versions(facts: Iterable[Fact]) -> dict[str, set[str]]:
    """Return the digests in which each resource is a source of these facts."""
    found: dict[str, set[str]] = {}
    for fact in facts:
        for source in fact.sources:
            found.setdefault(source.reference, set()).add(source.digest)
    return found


def _saying_new(run: StoredRun, record: PatientRecord) -> Iterator[str]:
    """Yield the resources that say what the record did not hold when the summary was made."""
    known = set(run.summary.known)
    for fact in record.facts:
        if mark_of(fact) not in known:
            yield fact.source.reference


def _cited(run: StoredRun) -> set[str]:
    return _references(run.summary.facts, {i for c in run.summary.published for i in c.citations})


def _required_then(run: StoredRun) -> set[str]:
    """Return the resources under the headings of required kinds, as the summary shows them."""
    required = [section for section in run.summary.sections if section.state is not None]
    cited = {i for section in required for claim in section.claims for i in claim.citations}
    return _references(run.summary.facts, cited)


def _required_now(run: StoredRun, record: PatientRecord) -> set[str]:
    stay = find_stay(record, run.inputs.encounter or None)
    kinds = required_facts(record, encounter=stay.reference if stay else None)
    return _references(record.facts, {fact_id for kind in kinds for fact_id in kind.facts})


def _references(facts: Sequence[Fact], wanted: set[FactId]) -> set[str]:
    return {source.reference for fact in facts if fact.id in wanted for source in fact.sources}


def _kind_of(reference: str) -> str:
    kind, slash, _ = reference.rpartition("/")
    return kind.rpartition("/")[2] if slash else ""


def shape_of(found: Staleness) -> dict[str, object]:
    """Return the JSON document that the command line and the API give."""
    return {
        "run": found.run_id,
        "freshness": found.freshness,
        "summary_read_at": found.read_at,
        "compared_at": found.compared_at,
        "touches_required": found.touches_required,
        "touches_cited": found.touches_cited,
        "statements_gone": found.statements_gone,
        "changes": found.by_kind,
        "reason": found.reason,
    }
