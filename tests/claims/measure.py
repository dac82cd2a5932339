"""What a judge makes of the suite: planted errors caught and true claims refused, by kind, with intervals.

A judge is any function of (record, text, cites) that returns a verdict; everything but `supported` counts as
not published, so it catches a planted error and refuses a true claim.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

from service.record.facts import PatientRecord
from tests.claims.generate import PARAPHRASE, Case, Suite

Judge = Callable[[PatientRecord, str, tuple[str, ...]], str]
ChartJudge = Callable[[PatientRecord, Sequence[Case]], Iterable[str]]
"""Any function that returns the verdicts on all claims about one chart, in order."""
SUPPORTED = "supported"
Z = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True)
class Judged:
    """A case, what the judge said, and whether all that it cites exists in the record."""

    case: Case
    verdict: str
    cited_exists: bool

    @property
    def withheld(self) -> bool:
        return self.verdict != SUPPORTED


@dataclass(frozen=True)
class Row:
    """One line of the table: `hits` planted errors caught, or true claims refused, of `n`."""

    group: str
    kind: str
    wordings: str
    n: int
    hits: int
    low: float
    high: float
    by_existence: int
    """How many would have been withheld by asking only whether the citation exists."""

    @property
    def share(self) -> float:
        return self.hits / self.n if self.n else 0.0


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share; (0, 1) where nothing was counted."""
    if n == 0:
        return 0.0, 1.0
    share, square = hits / n, Z * Z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = Z * sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == n else middle + half)


def run_suite(suite: Suite, judge: Judge, cases: Iterable[Case] | None = None) -> list[Judged]:
    """Judge every case, or those given, one at a time."""

    def each(record: PatientRecord, found: Sequence[Case]) -> Iterable[str]:
        return (judge(record, case.text, case.cites) for case in found)

    return run_suite_by_chart(suite, each, cases)


def run_suite_by_chart(suite: Suite, judge: ChartJudge, cases: Iterable[Case] | None = None) -> list[Judged]:
    """Judge every case, or those given; each chart is assembled once, and let go when it is done."""
    by_chart: dict[str, list[Case]] = defaultdict(list)
    for case in suite.cases if cases is None else cases:
        by_chart[case.chart].append(case)
    return [judged for name, found in by_chart.items() for judged in _judge_chart(suite, name, found, judge)]


def _judge_chart(suite: Suite, name: str, cases: Sequence[Case], judge: ChartJudge) -> Iterable[Judged]:
    record = suite.charts[name].record()
    there = {source.reference for fact in record.facts for source in fact.sources}
    for case, verdict in zip(cases, judge(record, cases), strict=True):
        yield Judged(case, str(verdict), bool(case.cites) and there.issuperset(case.cites))


@dataclass(frozen=True)
class Understood:
    """Of `n` planted errors of a kind, `passing` stand in a wording that passes when true; so many caught."""

    kind: str
    wordings: str
    n: int
    passing: int
    caught: int


PASSES = 0.5
"""The least share of a wording's true claims that must be supported for it to count as passing."""


def passing_wordings(judged: Iterable[Judged]) -> frozenset[str]:
    """Return the ids of the wordings that pass when what they say is true."""
    true: dict[str, list[bool]] = defaultdict(list)
    for each in judged:
        if each.case.planted is None:
            true[each.case.wording].append(not each.withheld)
    return frozenset(wording for wording, passed in true.items() if sum(passed) >= PASSES * len(passed))


def understood(judged: Sequence[Judged]) -> list[Understood]:
    """Return for each kind of error, and for all, how many stand in a wording that passes when true.

    A wording that is refused even when true catches every error in it and shows nothing.
    """
    passing = passing_wordings(judged)
    cells: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for each in judged:
        if each.case.planted is not None and each.case.kind != PARAPHRASE:
            for kind in (each.case.planted, "all"):
                for part in ("frozen" if each.case.frozen else "open", "all"):
                    cells[kind, part].append(each)
    order = sorted(cells, key=lambda k: (k[0] == "all", k[0], ("all", "frozen", "open").index(k[1])))
    return [_understood(*key, cells[key], passing) for key in order]


def _understood(kind: str, part: str, found: Sequence[Judged], passing: frozenset[str]) -> Understood:
    heard = [each for each in found if each.case.wording in passing]
    return Understood(kind, part, len(found), len(heard), sum(each.withheld for each in heard))


def group_of(case: Case) -> str:
    """Return which part of the table a case belongs to."""
    truth = "planted" if case.planted else "true"
    return f"paraphrase {truth}" if case.kind == PARAPHRASE else truth


GROUPS = ("planted", "true", "paraphrase planted", "paraphrase true")


def tabulate(judged: Sequence[Judged]) -> list[Row]:
    """Return the rows: each kind with frozen, open and all wordings, and each group in all."""
    cells: dict[tuple[str, str, str], list[Judged]] = defaultdict(list)
    for each in judged:
        group, kind = group_of(each.case), each.case.planted or each.case.kind
        for name in (kind, "all"):
            for part in ("frozen" if each.case.frozen else "open", "all"):
                cells[group, name, part].append(each)
    order = sorted(
        cells, key=lambda k: (GROUPS.index(k[0]), k[1] == "all", k[1], ("frozen", "open", "all").index(k[2]))
    )
    return [_row(*key, cells[key]) for key in order]


def _row(group: str, kind: str, part: str, found: Sequence[Judged]) -> Row:
    hits = sum(each.withheld for each in found)
    low, high = wilson(hits, len(found))
    return Row(group, kind, part, len(found), hits, low, high, sum(not each.cited_exists for each in found))


TITLES = {
    "planted": "Planted errors caught",
    "true": "True claims refused",
    "paraphrase planted": "Free paraphrase of notes: planted errors caught",
    "paraphrase true": "Free paraphrase of notes: true claims refused",
}


def render(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, one part for each group."""
    lines: list[str] = []
    for group in GROUPS:
        found = [row for row in rows if row.group == group]
        if found:
            lines += [
                f"### {TITLES[group]}",
                "",
                HEAD,
                RULE,
                *(_line(found, kind) for kind in _kinds(found)),
                "",
            ]
    return "\n".join(lines)


HEAD = "| kind | n | all | 95 % interval | frozen wordings | open wordings | citation exists alone |"
RULE = "|---|---:|---:|---|---|---|---:|"


def _kinds(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.kind for row in rows))


def _line(rows: Sequence[Row], kind: str) -> str:
    part = {row.wordings: row for row in rows if row.kind == kind}
    whole = part["all"]
    alone = f"{100 * whole.by_existence / whole.n:.1f} %"
    interval = f"{100 * whole.low:.1f} to {100 * whole.high:.1f} %"
    return (
        f"| {kind} | {whole.n} | {100 * whole.share:.1f} % | {interval} "
        f"| {_part(part.get('frozen'))} | {_part(part.get('open'))} | {alone} |"
    )


def _part(row: Row | None) -> str:
    if row is None:
        return "none"
    return f"{100 * row.share:.1f} % of {row.n} ({100 * row.low:.1f} to {100 * row.high:.1f} %)"
