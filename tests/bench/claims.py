"""True claims and claims with one planted error, judged by the rules: what is caught, what is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from service.grounding.claims import CitedClaim, judge_claims
from service.record.facts import PatientRecord
from tests.bench.table import Row, Table, at_least, at_most, percent
from tests.claims.generate import Case, Suite, make_suite
from tests.claims.measure import GROUPS, TITLES, Judged, Understood, run_suite_by_chart, tabulate, understood
from tests.claims.measure import Row as Share

DATA = Path(__file__).parent.parent.parent.parent / "shared" / "data"
CAUGHT, CAUGHT_LOW, REFUSED = 0.99, 0.97, 0.02
"""Planted errors: least share caught, least lower bound in a kind. True claims: largest share refused."""
PLANTED, TRUE = GROUPS[:2]
COLUMNS = (
    "kind", "n", "all", "95 % interval", "frozen wordings", "open wordings", "citation exists alone",
    "target",
)  # fmt: skip
NO_DATA = "The claims are made of the charts and notes of ../shared/data, which are not here."


def bench_claims() -> Iterator[Table]:
    """Yield a table a group of claims, and what the planted errors' wordings are worth."""
    if not (DATA / "synthea").is_dir() or not (DATA / "notes").is_dir():
        yield Table("Claims", (), remarks=[NO_DATA])
        return
    suite = make_suite(DATA)
    start = time.perf_counter()
    judged = run_suite_by_chart(suite, verdicts)
    each_ms = 1000 * (time.perf_counter() - start) / len(judged)
    rows = tabulate(judged)
    for group in GROUPS:
        found = [row for row in rows if row.group == group]
        if found:
            yield Table(f"Claims: {TITLES[group].lower()}", COLUMNS, list(_lines(found)), _said(group))
    yield _understood_table(suite, judged, each_ms)


def verdicts(record: PatientRecord, cases: Sequence[Case]) -> Iterator[str]:
    """Judge all claims about one chart as `epicrisis check` does."""
    claims = [CitedClaim(case.text, case.cites) for case in cases]
    return (judgement.verdict for judgement in judge_claims(record, claims))


def _lines(rows: list[Share]) -> Iterator[Row]:
    for kind in dict.fromkeys(row.kind for row in rows):
        part = {row.wordings: row for row in rows if row.kind == kind}
        whole = part["all"]
        frozen, opened = (_share(part.get(wordings)) for wordings in ("frozen", "open"))
        interval = f"{percent(whole.low)} to {percent(whole.high)}"
        alone = percent(whole.by_existence / whole.n)
        yield kind, f"{whole.n:,}", percent(whole.share), interval, frozen, opened, alone, _target(whole)


def _share(row: Share | None) -> str:
    return "none" if row is None else f"{percent(row.share)} of {row.n:,}"


def _target(row: Share) -> str:
    if row.group == PLANTED:
        if row.kind == "all":
            return at_least(row.share, CAUGHT, percent(CAUGHT))
        return at_least(row.low, CAUGHT_LOW, f"{percent(CAUGHT_LOW)}, lower bound")
    return at_most(row.share, REFUSED, percent(REFUSED)) if row.group == TRUE and row.kind == "all" else ""


def _said(group: str) -> list[str]:
    if group != PLANTED:
        return []
    return [
        "Every claim but a supported one counts as caught, or as refused. `citation exists alone` is what "
        "asking only whether the cited resources exist would have done. The intervals are Wilson's, at 95 %."
    ]


def _understood_table(suite: Suite, judged: list[Judged], each_ms: float) -> Table:
    """Return how many planted errors stand in a wording that passes when what it says is true."""
    table = Table(
        "Claims: planted errors in wordings that pass when true",
        ("kind", "wordings", "n", "in such a wording", "caught of these"),
    )
    table.rows = [_worth(one) for one in understood(judged)]
    table.remarks = [
        "A wording that is refused even when true catches every error and shows nothing: only errors in the "
        "others say what the rules see. A wording passes when at least half of its true claims do; "
        "quotations included, paraphrases left out.",
        f"{len(judged):,} claims about {len(suite.charts)} charts; {each_ms:.1f} ms a claim, assembly of the "
        "charts included.",
    ]
    return table


def _worth(one: Understood) -> Row:
    caught = percent(one.caught / one.passing) if one.passing else "none"
    return one.kind, one.wordings, f"{one.n:,}", percent(one.passing / one.n), caught
