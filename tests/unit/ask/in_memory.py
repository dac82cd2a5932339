"""Stores of questions and of feedback that keep everything in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from service.grounding.summary import Claim
from service.ports.feedback import ClaimKey, Feedback, Ruling
from service.ports.questions import Question, QuestionId, QuestionState


class InMemoryQuestions:
    """Questions by their ids, in the order in which they were asked."""

    def __init__(self) -> None:
        self.kept: dict[QuestionId, Question] = {}
        self.stages: list[str] = []

    def ask(self, question: Question) -> None:
        self.kept[question.id] = question

    def note(self, question_id: QuestionId, stage: str) -> bool:
        self.stages.append(stage)
        if self.kept[question_id].state is not QuestionState.ASKED:
            return False
        self.kept[question_id] = replace(self.kept[question_id], stage=stage)
        return True

    def settle_question(self, question: Question) -> bool:
        if self.kept[question.id].state is not QuestionState.ASKED:
            return False
        self.kept[question.id] = question
        return True

    def cancel(self, question_id: QuestionId) -> None:
        kept = self.kept[question_id]
        if kept.state is QuestionState.ASKED:
            self.kept[question_id] = replace(kept, state=QuestionState.CANCELLED)

    def get_question(self, question_id: QuestionId) -> Question | None:
        return self.kept.get(question_id)

    def questions_about(self, server: str, patient: str, limit: int = 20) -> Sequence[Question]:
        about = [one for one in self.kept.values() if (one.server, one.patient) == (server, patient)]
        return about[::-1][:limit]


class InMemoryFeedback:
    """Feedback in the order in which it was given."""

    def __init__(self) -> None:
        self.kept: list[Feedback] = []
        self.off: set[str] = set()

    def claim_key(self, server: str, patient: str, claim: Claim) -> ClaimKey:
        said = repr((server.rstrip("/"), patient, claim.text, sorted(set(claim.citations))))
        return ClaimKey(hashlib.sha256(said.encode()).hexdigest())

    def claim_keys(self, server: str, patient: str, claims: Sequence[Claim]) -> Mapping[Claim, ClaimKey]:
        return {claim: self.claim_key(server, patient, claim) for claim in claims}

    def say(self, feedback: Feedback) -> None:
        self.kept.append(feedback)

    def undo(self, about: str, actor: str, at: datetime, claim: ClaimKey | None = None) -> Feedback | None:
        for n in reversed(range(len(self.kept))):
            one = self.kept[n]
            is_mine = (one.about, one.actor) == (about, actor) and claim in (None, one.claim)
            if is_mine and one.undone_at is None and one.ruling is None:
                self.kept[n] = replace(one, undone_at=at)
                return self.kept[n]
        return None

    def said_of(self, about: str) -> Sequence[Feedback]:
        return [one for one in self.kept if one.about == about]

    def disputes_of(self, server: str, patient: str) -> frozenset[ClaimKey]:
        chart = (server.rstrip("/"), patient)
        return frozenset(
            one.claim
            for one in self.kept
            if (one.server.rstrip("/"), one.patient) == chart
            and one.claim
            and one.mark.disputes
            and one.undone_at is None
            and one.ruling is not Ruling.DISMISSED
        )

    def unsettled(self, limit: int = 100) -> Sequence[Feedback]:
        found = [o for o in self.kept if o.mark.disputes and o.undone_at is None and o.ruling is None]
        return found[:limit]

    def settle(
        self,
        server: str,
        patient: str,
        claim: ClaimKey,
        ruling: Ruling,
        by: str,
        at: datetime,
        words: str = "",
    ) -> int:
        count = 0
        for n, one in enumerate(self.kept):
            is_meant = (one.server, one.patient, one.claim) == (
                server,
                patient,
                claim,
            ) and one in self.unsettled()
            if is_meant:
                self.kept[n] = replace(one, ruling=ruling, ruled_by=by, ruled_at=at, ruled_words=words)
                count += 1
        return count

    def switch_off(self, actor: str, at: datetime) -> None:
        self.off.add(actor)

    def switch_on(self, actor: str) -> None:
        self.off.discard(actor)

    def is_off(self, actor: str) -> bool:
        return actor in self.off
