"""What a run came to, in numbers."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from fixtures.sample_run import sample_run
from service.grounding.summary import Origin, Verdict
from service.ports import StoredRun
from service.quality.count import count_run, measure_run, week_of
from service.record.facts import Absence, FactId
from tests.conftest import CANARY


def with_claims(run: StoredRun, **change: object) -> StoredRun:
    """The same run with every published claim changed."""
    sections = tuple(
        replace(one, claims=tuple(replace(claim, **change) for claim in one.claims))  # type: ignore[arg-type]
        for one in run.summary.sections
    )
    return replace(run, summary=replace(run.summary, sections=sections))


def test_statements_of_the_model_are_counted_once_each_and_by_what_the_rules_found() -> None:
    run = sample_run()
    counts, _ = count_run(run)
    model = {claim for claim in run.summary.published if claim.origin is Origin.MODEL}
    assert counts.supported == len(model)
    assert counts.claims == len(model) + len(run.summary.refused)
    assert counts.contradicted == 0
    assert counts.refused == {"number_not_in_source": 3}
    twice = replace(
        run, summary=replace(run.summary, sections=(*run.summary.sections, *run.summary.sections))
    )
    assert count_run(twice)[0].claims == counts.claims


@pytest.mark.parametrize(
    ("verdict", "reason", "is_supported", "is_contradicted"),
    [
        (Verdict.CONTRADICTED, "status_lost:stopped", False, True),
        (Verdict.NOT_CHECKED, "the_record_says_more", True, False),
        (Verdict.UNSUPPORTED, "second_pass_no", False, False),
    ],
)
def test_a_statement_that_is_not_shown_counts_as_what_the_rules_found(
    verdict: Verdict, reason: str, is_supported: bool, is_contradicted: bool
) -> None:
    run = sample_run()
    before, _ = count_run(run)
    more = replace(run.summary.refused[0], text="Another.", verdict=verdict, reasons=(reason,))
    counts, _ = count_run(replace(run, summary=replace(run.summary, refused=(*run.summary.refused, more))))
    assert counts.claims == before.claims + 1
    assert counts.supported - before.supported == is_supported
    assert counts.contradicted == is_contradicted


def test_what_follows_a_reasons_colon_is_not_kept_nor_a_reason_that_is_none() -> None:
    run = sample_run()
    refused = (
        replace(run.summary.refused[0], reasons=(f"number_not_in_source:{CANARY}",)),
        replace(run.summary.refused[1], reasons=(f"{CANARY.lower()}",)),
    )
    counts, _ = count_run(replace(run, summary=replace(run.summary, refused=refused)))
    assert counts.refused == {"number_not_in_source": 1, "other": 1}
    assert CANARY.casefold() not in str(asdict(counts)).casefold()


def test_a_required_fact_is_told_by_the_model_added_by_code_or_missing() -> None:
    run = sample_run()
    counts, told = count_run(run)
    assert counts.told == len(told.by_model) > 0
    assert counts.added == len(told.added) > 0
    assert counts.missing == 0
    wanted = [*sorted(told.by_model)[:2], *sorted(told.added)[:1], FactId("Condition/nowhere")]
    exact, which = count_run(run, wanted)
    assert (exact.told, exact.added, exact.missing) == (2, 1, 1)
    assert which.required == frozenset(wanted)


def test_a_sentence_that_leaves_something_of_a_required_fact_out_does_not_tell_it() -> None:
    vague = with_claims(sample_run(), text="Something is recorded.")
    counts, told = count_run(vague)
    assert counts.told == 0
    assert told.by_model == frozenset()


def test_headings_that_could_not_be_read_are_counted() -> None:
    run = sample_run(incomplete=True)
    states = [section.state for section in run.summary.sections]
    counts, _ = count_run(run)
    assert counts.not_retrieved == states.count(Absence.NOT_RETRIEVED) > 0
    assert counts.headings == sum(state is not None for state in states)


def test_a_published_statement_of_a_required_heading_that_nothing_bears_out_is_fabricated() -> None:
    run = sample_run()
    assert count_run(run)[0].fabricated == 0
    under = sum(len(one.claims) for one in run.summary.sections if one.state is not None)
    for change in ({"verdict": Verdict.UNSUPPORTED}, {"citations": (FactId("Condition/none"),)}):
        assert count_run(with_claims(run, **change))[0].fabricated == under


def test_filing_is_no_time_of_the_model() -> None:
    run = replace(sample_run(), seconds={"generate": 2.0, "verify": 0.5, "publish": 40.0})
    assert count_run(run)[0].seconds == 2.5


@pytest.mark.parametrize(
    ("at", "week"),
    [
        ("2026-11-23T00:30:00", "2026-11-16"),
        ("2026-11-23T05:00:00", "2026-11-23"),
        ("2027-01-01T12:00:00", "2026-12-28"),
    ],
)
def test_a_week_begins_on_monday_where_the_site_is(at: str, week: str) -> None:
    zone = ZoneInfo("America/New_York")
    assert week_of(datetime.fromisoformat(at).replace(tzinfo=UTC), zone) == week


def test_a_measure_names_its_model_prompt_and_ward() -> None:
    group = measure_run(sample_run(), UTC).group
    assert (group.week, group.model, group.prompt, group.ward) == (
        "2026-11-23", "SmolLM2-135M-Instruct", "history@1", "",
    )  # fmt: skip
