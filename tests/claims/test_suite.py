"""The instrument measured: enough cases, the same in every run, true where true, false where planted."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.claims import CAUGHT, CAUGHT_LOW, REFUSED, verdicts
from tests.claims.charts import day_of, text_of
from tests.claims.generate import PARAPHRASE, Case, Suite, make_suite, shown_keys
from tests.claims.measure import Judged, render, run_suite, run_suite_by_chart, tabulate, wilson
from tests.claims.notecharts import note_of
from tests.claims.phrasing import FOLDER, Wording, wordings
from tests.claims.plant import PLANTERS
from tests.claims.rawcheck import bears_out
from tests.conftest import CANARY

pytestmark = pytest.mark.shared

FROZEN = "a84a200f8af0d29c9a03d45cc6fd9837f42f746b3413ea758e8e198b48c5afc3"


@pytest.fixture(scope="module")
def suite(shared_data: Path) -> Suite:
    return make_suite(shared_data)


def _wording(case: Case) -> Wording:
    return next(wording for wording in wordings()[case.kind] if wording.id == case.wording)


def _borne_out(suite: Suite, case: Case) -> bool:
    """Judge a case by the raw JSON alone."""
    chart = suite.charts[case.chart]
    if case.kind == "quote":
        reference, day, note = note_of(chart) or ("", "", "")
        return case.cites == (reference,) and case.said["date"] == day and case.said["span"] in note
    return bears_out(case.kind, chart, case.cites, case.said, shown_keys(_wording(case)))


def test_the_frozen_wordings_are_the_ones_that_were_written_first() -> None:
    assert hashlib.sha256((FOLDER / "frozen.toml").read_bytes()).hexdigest() == FROZEN


def test_a_third_of_the_wordings_is_frozen_and_each_kind_has_its_dozen() -> None:
    every = {**wordings()}
    undone = every.pop("planned") + every.pop("not_done")
    for kind, found in {**every, "planned or not done": undone}.items():
        assert 12 <= len(found) <= 18, kind
        assert len({wording.pattern for wording in found}) == len(found), kind
    flat = [wording for found in wordings().values() for wording in found]
    assert sum(wording.frozen for wording in flat) / len(flat) == pytest.approx(1 / 3, abs=0.01)


def test_there_are_three_thousand_true_claims_and_three_hundred_of_each_error(suite: Suite) -> None:
    exact = [case for case in suite.cases if case.kind != PARAPHRASE]
    assert sum(case.planted is None for case in exact) >= 3000
    errors = Counter(case.planted for case in exact if case.planted)
    assert set(errors) == set(PLANTERS)
    assert min(errors.values()) >= 300
    assert sum(case.kind == PARAPHRASE and case.planted is None for case in suite.cases) >= 150


def test_every_chart_every_kind_and_every_wording_is_used(suite: Suite) -> None:
    assert sum(not name.startswith(("aci-", "primock-")) for name in suite.charts) == 42
    assert {case.chart for case in suite.cases} == set(suite.charts)
    used = {case.wording for case in suite.cases}
    unused = [w.id for found in wordings().values() for w in found if w.id not in used]
    assert unused == []


def test_the_frozen_third_is_a_third_of_the_cases(suite: Suite) -> None:
    worded = [case for case in suite.cases if case.kind != PARAPHRASE]
    assert 0.28 < sum(case.frozen for case in worded) / len(worded) < 0.40
    assert all(case.frozen == ("-frozen-" in case.wording) for case in suite.cases)


def test_the_suite_is_the_same_in_every_run(suite: Suite, shared_data: Path) -> None:
    assert make_suite(shared_data).cases == suite.cases


def test_true_claims_are_borne_out_by_the_raw_json(suite: Suite) -> None:
    wrong = [
        case
        for case in suite.cases
        if not case.planted and case.kind != PARAPHRASE and not _borne_out(suite, case)
    ]
    assert wrong == []


def test_planted_claims_are_not_borne_out_by_the_raw_json(suite: Suite) -> None:
    right = [
        case for case in suite.cases if case.planted and case.kind != PARAPHRASE and _borne_out(suite, case)
    ]
    assert right == []


def test_a_planted_number_or_day_stands_nowhere_in_its_source(suite: Suite) -> None:
    seen = Counter[str]()
    for case in suite.cases:
        source = suite.charts[case.chart].resources[case.cites[0]]
        if case.planted in ("value", "power_of_ten", "precision") and case.kind in (
            "result",
            "vital",
            "latest",
        ):
            assert str(source["valueQuantity"]["value"]) != case.said["value"], case
            seen["number"] += 1
        if case.planted == "date" and case.kind != "quote":
            days = {case.said[key] for key in ("date", "end_date") if key in case.said}
            assert not all(day in str(source) for day in days), case
            seen["day"] += 1
    assert seen["number"] > 300
    assert seen["day"] > 200


def test_an_illness_is_not_moved_to_a_day_on_which_it_lasted(suite: Suite) -> None:
    moved = [case for case in suite.cases if (case.planted, case.kind) == ("date", "resolved")]
    assert moved
    for case in moved:
        source = suite.charts[case.chart].resources[case.cites[0]]
        begun, ended = source["onsetDateTime"][:10], source["abatementDateTime"][:10]
        assert not begun < case.said["date"] <= ended, case


def test_what_is_said_of_the_whole_record_has_one_value_a_day(suite: Suite) -> None:
    for case in suite.cases:
        if case.kind not in ("latest", "first", "extreme", "no_other"):
            continue
        chart = suite.charts[case.chart]
        same_day = [
            reference
            for reference, resource in chart.of_type("Observation")
            if text_of(resource["code"]) == case.said["name"]
            and day_of(resource["effectiveDateTime"]) == day_of(case.said["date"])
        ]
        assert len(same_day) == 1, case


def test_no_sentence_is_both_true_and_planted_for_the_same_sources(suite: Suite) -> None:
    true = {(case.chart, case.text.lower(), case.cites) for case in suite.cases if not case.planted}
    assert [
        case for case in suite.cases if case.planted and (case.chart, case.text.lower(), case.cites) in true
    ] == []


def test_the_sentence_shows_the_numbers_and_the_error_that_it_is_counted_for(suite: Suite) -> None:
    for case in suite.cases:
        if case.kind in ("quote", PARAPHRASE):
            continue
        for key in shown_keys(_wording(case)) & {"value", "first", "second", "diff", "serial", "side"}:
            assert re.search(
                rf"(?<![\d.]){re.escape(case.said[key])}(?!\d|\.\d)", case.text, re.IGNORECASE
            ), case


def test_a_true_paraphrase_speaks_of_what_stands_in_the_note(suite: Suite) -> None:
    for case in suite.cases:
        if case.kind == PARAPHRASE and not case.planted and not case.wording.endswith("-side"):
            _, _, note = note_of(suite.charts[case.chart]) or ("", "", "")
            assert case.text.removesuffix(".").split()[-1].lower() in note.lower(), case


def test_no_claim_holds_the_fixture_patients_name_or_an_empty_slot(suite: Suite) -> None:
    for case in suite.cases:
        assert CANARY not in case.text
        assert case.kind == "quote" or not re.search(r"[{}]|\bNone\b", case.text), case
        assert case.cites
        assert case.text == case.text.strip()


def test_every_citation_exists(suite: Suite) -> None:
    assert all(ref in suite.charts[case.chart].resources for case in suite.cases for ref in case.cites)


def test_a_judge_that_supports_everything_catches_nothing_and_refuses_nothing(suite: Suite) -> None:
    rows = tabulate(run_suite(suite, lambda record, text, cites: "supported"))
    assert rows
    assert {row.hits for row in rows} == {0}
    assert {row.low for row in rows} == {0.0}
    assert {row.by_existence for row in rows} == {0}


def test_a_judge_that_supports_nothing_catches_and_refuses_everything(suite: Suite) -> None:
    rows = tabulate([Judged(case, "not_checked", cited_exists=True) for case in suite.cases])
    assert {row.share for row in rows} == {1.0}
    assert sum(row.n for row in rows if (row.kind, row.wordings) == ("all", "all")) == len(suite.cases)


def test_asking_only_whether_the_citation_exists_is_counted(suite: Suite) -> None:
    case = next(case for case in suite.cases if case.planted == "value")
    lost = replace(case, cites=("Observation/not-there",))
    rows = tabulate(run_suite(suite, lambda record, text, cites: "supported", [case, lost]))
    assert {(row.n, row.by_existence) for row in rows if row.wordings == "all"} == {(2, 1)}


def test_the_interval_is_wilsons() -> None:
    low, high = wilson(297, 300)
    assert (round(low, 4), round(high, 4)) == (0.9710, 0.9966)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_rendered_table_has_a_line_for_each_error(suite: Suite) -> None:
    judged = [
        Judged(case, "supported" if len(case.text) % 2 else "unsupported", True) for case in suite.cases
    ]
    table = render(tabulate(judged))
    assert all(f"| {error} | " in table for error in PLANTERS)
    assert "95 % interval" in table


def test_the_rules_catch_what_is_planted_and_refuse_hardly_anything_that_is_true(suite: Suite) -> None:
    rows = [row for row in tabulate(run_suite_by_chart(suite, verdicts)) if row.wordings == "all"]
    share = {(row.group, row.kind): row for row in rows}
    assert share["planted", "all"].share >= CAUGHT
    assert share["true", "all"].share <= REFUSED
    low = {row.kind: row.low for row in rows if row.group == "planted" and row.kind != "all"}
    assert {kind: bound for kind, bound in low.items() if bound < CAUGHT_LOW} == {}
