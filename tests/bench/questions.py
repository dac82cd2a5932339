"""Questions whose answer is known: the newest of each value by its plain name, and names of other charts.

No model is asked: what is measured is which facts a question finds, on all charts that are here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from statistics import median

from connectors.fhir.codec import decode
from service.ask.match import match_facts
from service.ask.question import sought_in
from service.context.pivot import in_order
from service.grounding.wording import lexicon, plain_name
from service.record.assemble import assemble_record, resources_of
from service.record.facts import Fact, Kind, PatientRecord
from tests.bench.table import Row, Table, at_least, percent

KINDS = (Kind.RESULT, Kind.VITAL)
FOUND, ABSENT = 0.98, 1.0
LONGEST_NAME = 40
A_CHART = 25
"""Absent names that each chart is asked for."""
COLUMNS = ("questions", "n", "answered as they must be", "any line that holds the name", "target")


def bench_questions(charts: Sequence[bytes]) -> Iterator[Table]:
    """Yield what is found of what is there, and of what is not."""
    records = [assemble_record(resources_of(decode(chart))) for chart in charts]
    table = Table("Questions", COLUMNS)
    taken: list[float] = []
    known = {name for record in records for name in _names(record)}
    there = [one for record in records for one in _asked_of(record, taken)]
    absent = [one for record in records for one in _absent_from(record, known, taken)]
    table.rows += [
        _row("the newest value of a name, or of another name for it", there, FOUND),
        _row("a name that stands in another chart alone", absent, ABSENT),
    ]
    facts = sum(len(record.facts) for record in records)
    table.remarks.append(
        "A value is answered as it must be where its newest fact is named and no other value with it; a name "
        "that is not there, where nothing is named. The baseline takes any line that holds the name. "
        f"{len(records)} charts, {facts:,} facts; {1000 * median(taken):.0f} ms a question in the middle, "
        f"{1000 * max(taken):.0f} ms at most."
    )
    yield table


Judged = tuple[bool, bool]
"""Whether ours, and whether the baseline, answers as it must."""


def _row(what: str, judged: Sequence[Judged], target: float) -> Row:
    ours, baseline = (sum(one[n] for one in judged) / max(len(judged), 1) for n in (0, 1))
    wanted = at_least(ours, target, percent(target))
    return what, f"{len(judged):,}", percent(ours), percent(baseline), wanted


def _asked_of(record: PatientRecord, taken: list[float]) -> Iterator[Judged]:
    for name, facts in _names(record).items():
        newest = max(facts, key=in_order)
        for said in (name, *lexicon().same.get(name, ())):
            named = _named(record, said, taken)
            values = {plain_name(fact.name) for fact in named if fact.kind in KINDS}
            ours = newest in named and values == {name}
            lines = [fact for fact in record.facts if said in fact.text.casefold()]
            yield ours, bool(lines) and max(lines, key=in_order) is newest


def _absent_from(record: PatientRecord, known: set[str], taken: list[float]) -> Iterator[Judged]:
    text = "\n".join(fact.text.casefold() for fact in record.facts)
    here = set(_names(record))
    absent = [name for name in sorted(known - here) if not any(one in text for one in _called(name))]
    for name in absent[:: max(1, len(absent) // A_CHART)]:
        yield not _named(record, name, taken), True


def _called(name: str) -> set[str]:
    """Return all names of what is called so."""
    same = (({first, *others}) for first, others in lexicon().same.items())
    return {name}.union(*(names for names in same if name in names))


def _named(record: PatientRecord, name: str, taken: list[float]) -> Sequence[Fact]:
    began = time.perf_counter()
    found = match_facts(record, sought_in(f"What was the last {name}?"))
    taken.append(time.perf_counter() - began)
    return found.named


def _names(record: PatientRecord) -> dict[str, list[Fact]]:
    """Return the facts with a value by their plain names, those that are as short as somebody would type."""
    held: dict[str, list[Fact]] = {}
    for fact in record.facts:
        if fact.kind in KINDS and fact.quantity is not None and fact.when is not None:
            held.setdefault(plain_name(fact.name), []).append(fact)
    return {name: facts for name, facts in held.items() if len(name) <= LONGEST_NAME}
