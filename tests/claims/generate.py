"""The suite: true claims in varied wording, and claims with one planted error. The same in every run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from random import Random

from tests.claims.charts import Chart, synthea_charts
from tests.claims.derived import read_derived
from tests.claims.notecharts import note_charts
from tests.claims.phrasing import Wording, set_in, wordings
from tests.claims.plant import PLANTERS, SAYS_NO_STATUS, Planted
from tests.claims.quotes import SWAPS, Spoken, paraphrases, plant_in, quotes
from tests.claims.rawcheck import bears_out
from tests.claims.statements import Statement, read_statements

TRUE_A_KIND = 135
PLANTED_A_KIND = 330
PARAPHRASE = "paraphrase"
OF_THE_LIVING = ("active", "med_active", "care_plan")
"""Kinds that speak of the present: left out for patients who have died."""
KEYS_OF = {
    "on": ("date",),
    "since": ("date",),
    "end_on": ("end_date",),
    "first_on": ("first_date",),
    "second_on": ("second_date",),
    "value": ("value", "unit"),
    "product": ("product", "drug", "dose"),
    "finding_lower": ("finding",),
    "length": ("days",),
    "highest": ("end",),
    "rose": ("direction",),
    "a_rise": ("direction",),
    "has_risen": ("direction",),
    "higher": ("direction",),
}
"""Slot → the keys of `said` that it shows; any other slot shows the key of its own name."""


@dataclass(frozen=True)
class Case:
    """One claim to judge: `planted` names its error, None for a true one; `said` is its meaning."""

    chart: str
    text: str
    cites: tuple[str, ...]
    kind: str
    wording: str
    frozen: bool
    planted: str | None = None
    said: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Suite:
    """The charts by name and every case about them."""

    charts: Mapping[str, Chart]
    cases: tuple[Case, ...]


def shown_keys(wording: Wording) -> frozenset[str]:
    """Return the keys of `said` that a wording shows."""
    return frozenset(key for slot in wording.slots for key in KEYS_OF.get(slot, (slot,)))


def make_suite(data: Path) -> Suite:
    """Return the suite of the charts under `data` (`synthea`, `notes`)."""
    charts = {chart.name: chart for chart in (*synthea_charts(data), *note_charts(data / "notes"))}
    pools = _pools(charts.values())
    cases = [*_true_cases(pools), *_planted_cases(pools), *_note_cases(list(charts.values()))]
    unique = {(case.chart, case.text, case.cites): case for case in cases}
    return Suite(charts, tuple(unique.values()))


def _pools(charts: Iterable[Chart]) -> dict[str, list[Statement]]:
    """Return the kept statements by kind, one chart after another in turn so that none dominates."""
    turns: dict[str, list[tuple[int, str, Statement]]] = defaultdict(list)
    for chart in charts:
        kept = {source.reference for fact in chart.record().facts for source in fact.sources}
        rng, dead = Random(f"pool:{chart.name}"), "deceasedDateTime" in chart.patient
        by_kind: dict[str, list[Statement]] = defaultdict(list)
        for statement in (*read_statements(chart), *read_derived(chart)):
            if kept.issuperset(statement.cites) and not (dead and statement.kind in OF_THE_LIVING):
                by_kind[statement.kind].append(statement)
        for kind, found in by_kind.items():
            rng.shuffle(found)
            turns[kind] += [(turn, chart.name, statement) for turn, statement in enumerate(found)]
    return {kind: [each[2] for each in sorted(found, key=lambda t: t[:2])] for kind, found in turns.items()}


class _Cycle:
    """Deals out the wordings of each kind in turn, so that all are used about equally."""

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()

    def fitting(self, kind: str, rng: Random) -> list[Wording]:
        found = list(wordings()[kind])
        rng.shuffle(found)
        return sorted(found, key=lambda wording: self.used[wording.id])


def _case(
    statement: Statement, said: Planted, wording: Wording, rng: Random, planted: str | None
) -> Case | None:
    gender = str(statement.chart.patient.get("gender", ""))
    text = set_in(wording, said.said, gender, rng, whole=planted == "date")
    if text is None:
        return None
    return Case(
        statement.chart.name, text, said.cites, said.kind, wording.id, wording.frozen, planted, said.said
    )


def _true_cases(pools: Mapping[str, Sequence[Statement]]) -> Iterator[Case]:
    cycle = _Cycle()
    for kind, pool in sorted(pools.items()):
        rng, made = Random(f"true:{kind}"), set[str]()
        for statement in list(pool) * 3:
            if len(made) >= TRUE_A_KIND:
                break
            as_is = Planted(kind, statement.cites, statement.said, frozenset())
            for wording in cycle.fitting(kind, rng):
                case = _case(statement, as_is, wording, rng, None)
                if case and case.text not in made:
                    cycle.used[wording.id] += 1
                    made.add(case.text)
                    yield case
                    break


def _planted_cases(pools: Mapping[str, Sequence[Statement]]) -> Iterator[Case]:
    for error, (kinds, planter) in PLANTERS.items():
        cycle, made = _Cycle(), set[str]()
        rng = Random(f"planted:{error}")
        streams = [iter(list(pools.get(kind, ())) * 6) for kind in kinds]
        while streams and len(made) < PLANTED_A_KIND:
            for stream in list(streams):
                statement = next(stream, None)
                if statement is None:
                    streams.remove(stream)
                    continue
                planted = planter(statement, rng)
                case = planted and _false_case(statement, planted, error, cycle, rng)
                if case and case.text not in made:
                    made.add(case.text)
                    yield case


def _false_case(
    statement: Statement, planted: Planted, error: str, cycle: _Cycle, rng: Random
) -> Case | None:
    for wording in cycle.fitting(planted.kind, rng):
        shown = shown_keys(wording)
        silent = error == "status" and wording.pattern in SAYS_NO_STATUS
        if silent or (planted.altered and not planted.altered & shown):
            continue
        if bears_out(planted.kind, statement.chart, planted.cites, planted.said, shown):
            continue
        case = _case(statement, planted, wording, rng, error)
        if case:
            cycle.used[wording.id] += 1
            return case
    return None


def _note_cases(charts: Sequence[Chart]) -> Iterator[Case]:
    rng, cycle = Random("notes"), _Cycle()
    found = [quote for chart in charts for quote in quotes(chart)]
    rng.shuffle(found)
    for quote in found[: 2 * TRUE_A_KIND]:
        yield _quoted(quote, cycle, rng)
    for error in SWAPS:
        planted = [bad for quote in found if (bad := plant_in(quote, error, rng))]
        for bad in planted[:TRUE_A_KIND]:
            yield _quoted(bad, cycle, rng)
    for quote in found[:80]:
        day = date.fromisoformat(quote.day) + timedelta(days=rng.choice([-400, -30, -2, 1, 5, 365]))
        moved = Spoken(quote.chart, quote.reference, day.isoformat(), quote.span, "", "date")
        yield _quoted(moved, cycle, rng)
    for chart in charts:
        for pair in paraphrases(chart):
            for spoken in pair:
                yield _paraphrased(spoken)


def _quoted(quote: Spoken, cycle: _Cycle, rng: Random) -> Case:
    wording = cycle.fitting("quote", rng)[0]
    cycle.used[wording.id] += 1
    said = {"span": quote.span, "date": quote.day}
    text = set_in(wording, said, "", rng, whole=True)
    assert text is not None
    cites = (quote.reference,)
    return Case(quote.chart.name, text, cites, "quote", wording.id, wording.frozen, quote.planted, said)


def _paraphrased(spoken: Spoken) -> Case:
    said = {"span": spoken.span, "rule": spoken.rule}
    rule = f"{PARAPHRASE}-{spoken.rule}"
    return Case(
        spoken.chart.name, spoken.span, (spoken.reference,), PARAPHRASE, rule, False, spoken.planted, said
    )
