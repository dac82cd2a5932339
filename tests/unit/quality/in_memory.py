"""Numbers of quality in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from service.ports.quality import (
    Counts,
    Evaluation,
    EvaluationId,
    Group,
    Measure,
    Shadow,
    Sums,
)
from service.ports.runs import RunId

NUMBERS = [one.name for one in fields(Counts) if one.name not in ("seconds", "refused")]


@dataclass
class InMemoryQuality:
    """The QualityStore in memory."""

    measures: dict[RunId, Measure] = field(default_factory=dict)
    stored: list[RunId] = field(default_factory=list)
    """Runs that may still have to be counted."""
    marks: dict[RunId, int] = field(default_factory=dict)
    kept: list[Shadow] = field(default_factory=list)
    begun: list[Evaluation] = field(default_factory=list)

    def keep(self, measure: Measure) -> None:
        self.measures.setdefault(measure.run_id, measure)

    def skip(self, run_id: RunId, at: datetime) -> None:
        self.stored.remove(run_id)

    def uncounted(self, limit: int) -> Sequence[RunId]:
        return [one for one in self.stored if one not in self.measures][:limit]

    def count_uncounted(self) -> int:
        return len(self.uncounted(10**6))

    def sums(self, since_week: str) -> Sequence[Sums]:
        groups: dict[Group, list[Counts]] = {}
        for one in self.measures.values():
            if one.group.week >= since_week:
                groups.setdefault(one.group, []).append(one.counts)
        return [
            Sums(
                group,
                len(some),
                Counts(**{name: sum(getattr(one, name) for one in some) for name in NUMBERS}),
            )
            for group, some in sorted(groups.items())
        ]

    def seconds(self, since_week: str) -> Sequence[tuple[Group, float]]:
        return [
            (one.group, one.counts.seconds)
            for one in self.measures.values()
            if one.group.week >= since_week and one.counts.seconds
        ]

    def marked(self, since_week: str) -> Mapping[Group, int]:
        found: dict[Group, int] = {}
        for run_id in self.marks:
            group = self.measures[run_id].group
            found[group] = found.get(group, 0) + 1
        return found

    def groups_of(self, run_ids: Sequence[RunId]) -> Mapping[RunId, Group]:
        return {one: self.measures[one].group for one in run_ids if one in self.measures}

    def keep_shadow(self, shadow: Shadow) -> None:
        self.kept.append(shadow)

    def shadows(self, evaluation: EvaluationId, arm: int) -> Mapping[str, Shadow]:
        return {
            one.run.inputs.patient: one for one in self.kept if (one.evaluation, one.arm) == (evaluation, arm)
        }

    def begin(self, evaluation: Evaluation) -> Evaluation:
        self.begun.append(evaluation)
        return evaluation

    def end(self, evaluation: EvaluationId, at: datetime, report: Mapping[str, Any]) -> None:
        self.begun = [
            replace(one, ended_at=at, report=report) if one.id == evaluation else one for one in self.begun
        ]

    def evaluations(self, limit: int = 20) -> Sequence[Evaluation]:
        return [one for one in self.begun if one.ended_at is not None][:limit]

    def get_evaluation(self, evaluation: EvaluationId) -> Evaluation | None:
        return next((one for one in self.begun if one.id == evaluation), None)
