"""What the rooms of reviewers share: their stores, a run that may be shown, and the audit of each act."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from fastapi import HTTPException

from service.errors import ShreddedError
from service.filing.stopped import is_stopped, wards_of
from service.identity.visitor import Visitor
from service.ports import Action, AuditEntry, AuditLog, Clock, FilingStore, RunId, StoredRun
from service.ports.attesting import Attested
from service.ports.feedback import FeedbackStore
from service.ports.reviews import Review, ReviewStore, Rule
from service.review.sampling import KeyedHash, Sampling, choose, entry_for

RUN: Final = "/review/runs/{run_id}"
LOOKED_AT_ONCE: Final = 100
"""Runs that one opening of the queue decides on: a backlog is worked off by several."""
BACK: Final = timedelta(days=90)
"""How far back sampling looks, and the figures of the queue page."""
AHEAD: Final = timedelta(minutes=5)
"""How far the clocks of processes that share a database may differ: what was just finished counts."""
MOST_DISPUTES: Final = 500
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Attestations(Protocol):
    """What of the clinicians' store the queue page reports."""

    def attestations(self, since: datetime, until: datetime) -> Sequence[Attested]:
        """Return the attestations of a span."""
        ...


@dataclass(frozen=True)
class Desk:
    """What reviewers work with."""

    store: FilingStore
    reviews: ReviewStore
    feedback: FeedbackStore
    audit: AuditLog
    clock: Clock
    sampling: Sampling
    keyed_hash: KeyedHash
    attestations: Attestations | None = None
    """None where nobody attests here."""
    withheld: Callable[[StoredRun, Visitor], bool] = lambda run, visitor: False
    """Tells of a run that a route does not name whether it is withheld from a visitor (SAFETY 20)."""

    def run(self, run_id: str) -> StoredRun:
        """Return a run that may be shown. Raises HTTPException (400, 404, 423), ShreddedError, StoreError."""
        if not _ID.fullmatch(run_id):
            raise HTTPException(400)
        run = self.store.get(RunId(run_id))
        if run is None:
            raise HTTPException(404)
        if is_stopped(run, self.store.stops()):
            raise HTTPException(423)
        return run

    def record(self, action: Action, visitor: Visitor, run: StoredRun, target: str) -> None:
        """Put an act into the audit log, before it happens. Raises StoreError."""
        entry = AuditEntry(
            action, visitor.actor, run.inputs.patient, self.clock(), run_id=run.run_id, target=target,
            server=run.inputs.server, by=visitor.fhir_user,
        )  # fmt: skip
        self.audit.append(entry)

    def record_list(self, visitor: Visitor, target: str) -> None:
        """Put the view of a list without patient data into the audit log. Raises StoreError."""
        self.audit.append(
            AuditEntry(Action.VIEW, visitor.actor, "", self.clock(), target=target, by=visitor.fhir_user)
        )

    def review_by(self, run_id: RunId, visitor: Visitor) -> Review | None:
        """Return this visitor's review of a run, or None. Raises StoreError."""
        return next((one for one in self.reviews.reviews_of(run_id) if one.reviewer == visitor.actor), None)

    def fill(self) -> None:
        """Decide on runs that nobody has decided on, and queue what is disputed. Raises StoreError.

        Each run is decided on by itself and comes out the same: two pages at once do no harm.
        """
        since = self.clock() - BACK
        found = self.reviews.candidates(since, LOOKED_AT_ONCE, self.sampling.first_of_version)
        for candidate in found:
            self._decide(candidate.run_id, candidate.place)
        self.reviews.looked_at([candidate.run_id for candidate in found])
        for about in {RunId(one.about) for one in self.feedback.unsettled(MOST_DISPUTES)}:
            if self.reviews.entry_of(about) is None:
                self._enqueue(about, Rule.FEEDBACK, "Somebody called a statement wrong or outdated.")

    def _decide(self, run_id: RunId, place: int) -> None:
        try:
            run = self.store.get(run_id)
            if run is None:
                return
            entry = choose(run, place, wards_of(run), self.sampling, self.keyed_hash, self.clock())
            if entry is not None:
                self.reviews.enqueue(entry)
        except ShreddedError:  # nothing is left to be reviewed
            return

    def _enqueue(self, run_id: RunId, rule: Rule, why: str) -> None:
        try:
            run = self.store.get(run_id)
            if run is not None:  # a disputed answer has no run
                self.reviews.enqueue(entry_for(run, rule, why, self.sampling, self.keyed_hash, self.clock()))
        except ShreddedError:
            return
