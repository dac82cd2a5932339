"""Quality over time: each measure by week, for each model and prompt version, with its interval.

A run counts in the week in which it was made, whenever it was reviewed, attested or marked. Statements of one
summary are alike, so the intervals of weekly shares are somewhat too narrow; an evaluation's are not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final

from service.ports.attesting import Attested
from service.ports.quality import Group, QualityStore, Sums
from service.ports.reviews import Review, Support
from service.quality.statistics import Estimate, middle, ratio, share

MOST_SERIES: Final = 6
"""Lines that one chart can show apart; a table names all."""


@dataclass(frozen=True, slots=True)
class MeasureKind:
    """One measure: its name for people, and how it is told."""

    key: str
    title: str
    what: str
    """What is counted, in a sentence."""
    is_share: bool = True
    good: str = "high"
    """`high` or `low`: which direction is better."""
    unit: str = ""


KINDS: Final = (
    MeasureKind(
        "support", "Support", "Share of the model's statements that the rules bore out."
    ),
    MeasureKind(
        "told", "Told by the model",
        "Share of the required facts in summaries that the model told itself; code added the others.",
    ),
    MeasureKind(
        "not_retrieved", "Not retrieved",
        "Share of the required headings of which the record could not be read.", good="low",
    ),
    MeasureKind(
        "hallucinated", "Not supported, say reviewers",
        "Share of reviewed published statements that a reviewer found not supported by their sources.",
        good="low",
    ),
    MeasureKind(
        "omitted", "Something missing, say reviewers",
        "Share of finished reviews in which a reviewer missed something.", good="low",
    ),
    MeasureKind(
        "edited", "Changed by clinicians",
        "Characters changed before attestation, by characters of the machine's text.", good="low",
    ),
    MeasureKind(
        "marked", "Feedback", "Share of summaries that somebody marked as wrong, outdated or lacking.",
        good="low",
    ),
    MeasureKind(
        "latency", "Time to the checked summary", "Median, from the first request to the checked summary.",
        is_share=False, good="low", unit="s",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs are asked for; what is empty does not matter."""

    model: str = ""
    """A digest."""
    prompt: str = ""
    """`history@1.2.0`"""
    ward: str = ""
    weeks: int = 26

    def takes(self, group: Group) -> bool:
        """Tell whether a group's runs are asked for."""
        return (
            self.model in ("", group.model_digest)
            and self.prompt in ("", group.prompt)
            and self.ward in ("", group.ward)
        )


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """What one line stands for."""

    prompt: str
    model: str
    model_digest: str

    @property
    def name(self) -> str:
        """Return what a legend says."""
        return f"{self.model} · {self.prompt}"


@dataclass
class _Cell:
    """What was counted of one series in one week."""

    hits: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    of: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    pairs: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    seconds: list[float] = field(default_factory=list)

    def add(self, key: str, hits: int, of: int) -> None:
        self.hits[key] += hits
        self.of[key] += of

    def merge(self, other: _Cell) -> None:
        for key, of in other.of.items():
            self.add(key, other.hits[key], of)
        for key, pairs in other.pairs.items():
            self.pairs[key] += pairs
        self.seconds += other.seconds


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted of one measure on one side of a comparison."""

    hits: int
    of: int
    estimate: Estimate | None

    @property
    def share(self) -> float:
        """Return the share; 0 of nothing."""
        return self.hits / self.of if self.of else 0.0


@dataclass(frozen=True)
class Trends:
    """All measures by series and week. `weeks` are in order, those without a run too."""

    weeks: tuple[str, ...]
    series: tuple[Series, ...]
    runs: Mapping[Series, int]
    cells: Mapping[tuple[Series, str], _Cell]

    def estimate(self, kind: str, series: Series, week: str) -> Estimate | None:
        """Return one figure, or None where nothing was counted."""
        cell = self.cells.get((series, week))
        return _estimate(kind, cell) if cell is not None else None

    def over(self, kind: str, series: Iterable[Series], weeks: Sequence[str]) -> Tally:
        """Return a measure of several series over several weeks."""
        whole = _Cell()
        for one in series:
            for week in weeks:
                if (cell := self.cells.get((one, week))) is not None:
                    whole.merge(cell)
        of = {"latency": len(whole.seconds), "edited": len(whole.pairs["edited"])}.get(kind, whole.of[kind])
        return Tally(whole.hits[kind], of, _estimate(kind, whole))


def _estimate(kind: str, cell: _Cell) -> Estimate | None:
    if kind == "latency":
        return middle(cell.seconds)
    if cell.pairs.get(kind):
        return ratio(cell.pairs[kind])
    return share(cell.hits[kind], cell.of[kind])


@dataclass(frozen=True)
class Choices:
    """What there is to choose from: every model, prompt version and ward that was counted."""

    models: tuple[tuple[str, str], ...]
    """(digest, name)"""
    prompts: tuple[str, ...]
    wards: tuple[str, ...]


def read_trends(
    store: QualityStore,
    wanted: Wanted,
    today: date,
    reviews: Sequence[Review] = (),
    attestations: Sequence[Attested] = (),
) -> tuple[Trends, Choices]:
    """Return the trends of the runs that are asked for, and what else there is. Raises StoreError."""
    weeks = _weeks(today, wanted.weeks)
    cells: dict[tuple[Series, str], _Cell] = defaultdict(_Cell)
    runs: dict[Series, int] = defaultdict(int)

    def cell(group: Group) -> _Cell | None:
        return cells[_series(group), group.week] if wanted.takes(group) and group.week in known else None

    known = frozenset(weeks)
    every = store.sums(weeks[0])
    for sums in every:
        if (here := cell(sums.group)) is not None:
            runs[_series(sums.group)] += sums.runs
            _add_sums(here, sums)
    for group, seconds in store.seconds(weeks[0]):
        if (here := cell(group)) is not None:
            here.seconds.append(seconds)
    for group, count in store.marked(weeks[0]).items():
        if (here := cell(group)) is not None:
            here.add("marked", count, 0)
    _add_people(store, cell, reviews, attestations)
    series = tuple(sorted(runs, key=lambda one: (-runs[one], one)))
    return Trends(weeks, series, dict(runs), dict(cells)), _choices(every)


def _add_sums(cell: _Cell, sums: Sums) -> None:
    counts = sums.counts
    cell.add("support", counts.supported, counts.claims)
    cell.add("told", counts.told, counts.told + counts.added)
    cell.add("not_retrieved", counts.not_retrieved, counts.headings)
    cell.add("marked", 0, sums.runs)


def _add_people(
    store: QualityStore,
    cell: Callable[[Group], _Cell | None],
    reviews: Sequence[Review],
    attestations: Sequence[Attested],
) -> None:
    named = {one.run_id for one in reviews} | {one.run_id for one in attestations}
    groups = store.groups_of(sorted(named))
    for review in reviews:
        here = cell(groups[review.run_id]) if review.run_id in groups else None
        if here is not None:
            wrong = sum(score.support is Support.NOT_SUPPORTED for score in review.scores)
            here.add("hallucinated", wrong, len(review.scores))
            here.add("omitted", bool(review.omissions), 1)
    for one in attestations:
        here = cell(groups[one.run_id]) if one.run_id in groups else None
        if here is not None and one.machine_characters:
            here.pairs["edited"].append((float(one.distance), float(one.machine_characters)))


def _choices(sums: Sequence[Sums]) -> Choices:
    groups = [one.group for one in sums]
    return Choices(
        tuple(sorted({(one.model_digest, one.model) for one in groups}, key=lambda one: one[::-1])),
        tuple(sorted({one.prompt for one in groups})),
        tuple(sorted({one.ward for one in groups if one.ward}, key=str.casefold)),
    )


def _series(group: Group) -> Series:
    return Series(group.prompt, group.model, group.model_digest)


def _weeks(today: date, count: int) -> tuple[str, ...]:
    last = today - timedelta(days=today.weekday())
    return tuple((last - timedelta(weeks=back)).isoformat() for back in range(count - 1, -1, -1))


def since_of(wanted: Wanted, today: date) -> datetime:
    """Return the first instant that may lie in the first week, in whatever time zone."""
    first = date.fromisoformat(_weeks(today, wanted.weeks)[0])
    return datetime(first.year, first.month, first.day, tzinfo=UTC) - timedelta(days=1)
