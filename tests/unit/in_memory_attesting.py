"""An AttestingStore that keeps everything in lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from service.ports import RunId
from service.ports.attesting import (
    Attested,
    Disposal,
    Edit,
    Glass,
    Hidden,
    Proposal,
    ProposalId,
    ProposalState,
)


class InMemoryAttesting:
    """What the database's store does, without a database."""

    def __init__(self) -> None:
        self.opened: dict[tuple[str, str], datetime] = {}
        self.decisions: list[tuple[Disposal, Edit | None]] = []
        self.attested: dict[str, Attested] = {}
        self.hiding: list[Hidden] = []
        self.recalls: dict[str, Proposal] = {}
        self.broken: list[Glass] = []

    def open(self, run_id: RunId, patient: str, actor: str, at: datetime) -> datetime:
        return self.opened.setdefault((run_id, actor), at)

    def opened_at(self, run_id: RunId, actor: str) -> datetime | None:
        return self.opened.get((run_id, actor))

    def dispose(self, disposal: Disposal, edit: Edit | None = None) -> None:
        self.decisions.append((disposal, edit))

    def undo(self, run_id: RunId, actor: str, at: datetime) -> Disposal | None:
        for one in reversed(self.decisions):
            if (one[0].run_id, one[0].actor) == (run_id, actor):
                self.decisions.remove(one)
                return one[0]
        return None

    def _holding(self, run_id: RunId, actor: str) -> list[tuple[Disposal, Edit | None]]:
        holding: dict[tuple[int | None, str], tuple[Disposal, Edit | None]] = {}
        for one in self.decisions:
            if (one[0].run_id, one[0].actor) == (run_id, actor):
                holding.pop((one[0].ordinal, one[0].section), None)
                holding[one[0].ordinal, one[0].section] = one
        return list(holding.values())

    def disposals(self, run_id: RunId, actor: str) -> Sequence[Disposal]:
        return [disposal for disposal, _ in self._holding(run_id, actor)]

    def edits_of(self, run_id: RunId, actor: str) -> Sequence[Edit]:
        edits = [edit for _, edit in self._holding(run_id, actor) if edit is not None]
        return sorted(edits, key=lambda edit: edit.ordinal)

    def edits(self, since: datetime, until: datetime) -> Sequence[Edit]:
        found = self.attestations(since, until)
        return [edit for one in found for edit in self.edits_of(one.run_id, one.actor)]

    def keep_attested(self, attested: Attested) -> None:
        self.attested.setdefault(attested.run_id, attested)

    def attested_of(self, run_id: RunId) -> Attested | None:
        return self.attested.get(run_id)

    def attestations(self, since: datetime, until: datetime) -> Sequence[Attested]:
        found = [one for one in self.attested.values() if since <= one.attested_at < until]
        return sorted(found, key=lambda one: one.attested_at)

    def hide(self, hidden: Hidden) -> None:
        if self.hidden_of(hidden.run_id) is None:
            self.hiding.append(hidden)

    def lift(self, run_id: RunId, by: str, at: datetime) -> bool:
        before = self.hidden_of(run_id)
        self.hiding = [
            replace(one, lifted_at=at, lifted_by=by) if one is before else one for one in self.hiding
        ]
        return before is not None

    def hidden_of(self, run_id: RunId) -> Hidden | None:
        return next((one for one in self.hiding if one.run_id == run_id and one.lifted_at is None), None)

    def hidden(self, limit: int = 100) -> Sequence[Hidden]:
        return [one for one in reversed(self.hiding) if one.lifted_at is None][:limit]

    def propose(self, proposal: Proposal) -> None:
        self.recalls[proposal.id] = proposal

    def decide(self, proposal_id: ProposalId, state: ProposalState, by: str, at: datetime) -> Proposal | None:
        found = self.recalls.get(proposal_id)
        if found is None or found.state is not ProposalState.WAITING:
            return None
        if found.by == by and state is not ProposalState.REFUSED:
            return None
        self.recalls[proposal_id] = replace(found, state=state, decided_by=by, decided_at=at)
        return self.recalls[proposal_id]

    def advance(self, proposal: Proposal) -> None:
        self.recalls[proposal.id] = proposal

    def proposal(self, proposal_id: ProposalId) -> Proposal | None:
        return self.recalls.get(proposal_id)

    def proposals(self, limit: int = 50) -> Sequence[Proposal]:
        return list(reversed(self.recalls.values()))[:limit]

    def break_glass(self, glass: Glass) -> None:
        self.broken.append(glass)

    def glass_of(self, actor: str, patient: str, at: datetime) -> Glass | None:
        mine = [one for one in self.broken if (one.actor, one.patient) == (actor, patient)]
        return next((one for one in mine if one.at <= at < one.until), None)

    def glasses(self, since: datetime, until: datetime) -> Sequence[Glass]:
        return [one for one in reversed(self.broken) if since <= one.at < until]
