"""A ReviewStore that keeps everything in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from service.errors import StoreError
from service.ports import RunId, RunState, StoredRun
from service.ports.reviews import (
    ActKind,
    Candidate,
    Form,
    Omission,
    Outcome,
    QueueEntry,
    Review,
    Rule,
    Score,
    Support,
)


@dataclass
class Begun:
    """A review as it began, how it ended, and the acts in it that were not undone."""

    review: Review
    acts: list[tuple[ActKind, Any]] = field(default_factory=list)

    def whole(self) -> Review:
        def of(kind: ActKind) -> list[Any]:
            return [what for one, what in self.acts if one is kind]

        scores = {score.ordinal: score for score in of(ActKind.SCORE)}
        seeded = self.review.seeded
        for support, words in of(ActKind.SEEDED):
            seeded = replace(seeded, support=support, words=words) if seeded is not None else None
        return replace(
            self.review,
            scores=tuple(scores[n] for n in sorted(scores)),
            form=next(iter(of(ActKind.FORM)[::-1]), None),
            omissions=tuple(of(ActKind.OMISSION)),
            disputed=frozenset(of(ActKind.DISPUTE)),
            seeded=seeded,
            last=self.acts[-1][0] if self.acts else None,
        )


class InMemoryReviews:
    """Entries by run, reviews by run and reviewer; `runs` are what sampling may look at."""

    def __init__(self, runs: Sequence[StoredRun] = ()) -> None:
        self.runs = list(runs)
        self.seen: set[str] = set()
        self.entries: dict[str, QueueEntry] = {}
        self.begun: dict[tuple[str, str], Begun] = {}

    def candidates(self, since: datetime, limit: int, first: int) -> Sequence[Candidate]:
        versions: Counter[tuple[str, str]] = Counter()
        found = []
        for run in sorted(self.runs, key=lambda run: run.created_at):
            if run.state is RunState.FAILED:
                continue
            version = (run.inputs.model_digest, run.inputs.template_digest)
            versions[version] += 1
            place = versions[version] if versions[version] <= first else 0
            if run.run_id not in self.seen and run.created_at >= since:
                found.append(Candidate(run.run_id, run.created_at, place))
        return found[:limit]

    def looked_at(self, run_ids: Sequence[RunId]) -> None:
        self.seen.update(run_ids)

    def enqueue(self, entry: QueueEntry) -> bool:
        known = self.entries.get(entry.run_id)
        if known is not None:
            self.entries[entry.run_id] = replace(known, wanted=max(known.wanted, entry.wanted))
        return self.entries.setdefault(entry.run_id, entry) is entry

    def queue(self, limit: int = 50, offset: int = 0, rule: Rule | None = None) -> Sequence[QueueEntry]:
        waiting = [one for one in self._waiting() if rule in (None, one.rule)]
        return sorted(waiting, key=lambda one: one.added_at)[offset : offset + limit]

    def waiting(self) -> Mapping[Rule, int]:
        return Counter(one.rule for one in self._waiting())

    def entry_of(self, run_id: RunId) -> QueueEntry | None:
        entry = self.entries.get(run_id)
        if entry is None:
            return None
        reviews = self.reviews_of(run_id)
        done = sum(one.ended_at is not None for one in reviews)
        return replace(entry, done=done, reviewers=tuple(one.reviewer for one in reviews))

    def begin(self, review: Review) -> Review:
        return self.begun.setdefault((review.run_id, review.reviewer), Begun(review)).whole()

    def keep_score(self, score: Score) -> None:
        self._open(score.run_id, score.reviewer).acts.append((ActKind.SCORE, score))

    def keep_seeded(
        self, run_id: RunId, reviewer: str, support: Support, at: datetime, words: str = ""
    ) -> None:
        self._open(run_id, reviewer).acts.append((ActKind.SEEDED, (support, words)))

    def keep_form(self, form: Form) -> None:
        self._open(form.run_id, form.reviewer).acts.append((ActKind.FORM, form))

    def keep_omission(self, omission: Omission) -> None:
        self._open(omission.run_id, omission.reviewer).acts.append((ActKind.OMISSION, omission))

    def keep_dispute(self, run_id: RunId, reviewer: str, claim: str, at: datetime) -> None:
        self._open(run_id, reviewer).acts.append((ActKind.DISPUTE, claim))

    def undo(self, run_id: RunId, reviewer: str, at: datetime) -> tuple[ActKind, str] | None:
        acts = self._open(run_id, reviewer).acts
        if not acts:
            return None
        kind, what = acts.pop()
        return kind, what if kind is ActKind.DISPUTE else ""

    def finish(self, run_id: RunId, reviewer: str, outcome: Outcome, reason: str, at: datetime) -> Review:
        begun = self._open(run_id, reviewer)
        begun.review = replace(begun.review, ended_at=at, outcome=outcome, reason=reason)
        return begun.whole()

    def reviews_of(self, run_id: RunId) -> Sequence[Review]:
        return [one.whole() for (run, _), one in self.begun.items() if run == run_id]

    def reviews(self, since: datetime, until: datetime) -> Sequence[Review]:
        ended = [(one.review.ended_at, one) for one in self.begun.values()]
        found = [(at, one) for at, one in ended if at is not None and since <= at < until]
        return [one.whole() for _, one in sorted(found, key=lambda pair: pair[0])]

    def _waiting(self) -> list[QueueEntry]:
        found = [self.entry_of(RunId(run_id)) for run_id in self.entries]
        return [one for one in found if one is not None and not one.is_done]

    def _open(self, run_id: RunId, reviewer: str) -> Begun:
        begun = self.begun.get((run_id, reviewer))
        if begun is None or begun.review.ended_at is not None:
            raise StoreError("This review is not open.")
        return begun
