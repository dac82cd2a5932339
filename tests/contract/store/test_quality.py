"""Numbers of runs, shadow runs and evaluations, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from fixtures.sample_run import sample_run
from service.errors import ShreddedError, StoreError
from service.ports import RunId, RunState, Wanted
from service.ports.feedback import ClaimKey, Feedback, FeedbackId, Mark
from service.ports.quality import Counts, Evaluation, EvaluationId, Group, Identity, Measure, Shadow
from service.quality.backlog import count_backlog, counter_of
from service.quality.count import count_run
from service.store.cipher import Cipher
from service.store.feedback import SqlFeedback
from service.store.keys import KeyRoom
from service.store.quality import SqlQuality
from service.store.sql import SqlStore
from tests.conftest import CANARY

AT = datetime(2026, 11, 24, 14, 0, tzinfo=UTC)
WEEK, WARD = "2026-11-23", f"{CANARY} ward"
GROUP = Group(WEEK, "small", "d1", "history@1", WARD)
COUNTS = Counts(claims=10, supported=9, told=4, added=1, headings=3, seconds=2.5, refused={"said_before": 1})
IDENTITY = Identity("small", "d1", "history@1", "t1", "6", "scripted/1")


@pytest.fixture
def quality(url: str, cipher: Cipher) -> Iterator[SqlQuality]:
    opened = SqlQuality(url, cipher)
    yield opened
    opened.close()


def measure(number: int, group: Group = GROUP, counts: Counts = COUNTS) -> Measure:
    return Measure(RunId(f"run{number}"), AT, group, "t1", "6", counts)


def shadow(quality: SqlQuality, run_id: str = "shadow", patient: str = f"Patient/{CANARY}") -> Shadow:
    run = sample_run(run_id=run_id, patient=patient, state=RunState.GENERATED)
    counts, told = count_run(run)
    made = Shadow(EvaluationId("e1"), 0, run, counts, told.by_model, told.required)
    quality.keep_shadow(made)
    return made


def evaluation(number: str = "e1", against: Identity | None = None) -> Evaluation:
    return Evaluation(EvaluationId(number), AT, IDENTITY, against, "cohort", 2)


def test_numbers_are_added_up_by_week_model_prompt_and_ward(quality: SqlQuality) -> None:
    other = replace(GROUP, ward="")
    for number, group in enumerate((GROUP, GROUP, other)):
        quality.keep(measure(number, group))
    quality.keep(measure(0, other, Counts(claims=99)))  # counted before: it stays
    quality.keep(measure(9, replace(GROUP, week="2026-11-09")))

    sums = quality.sums(WEEK)
    assert [(one.group, one.runs, one.counts.claims, one.counts.told) for one in sums] == [
        (other, 1, 10, 4), (GROUP, 2, 20, 8)
    ]  # fmt: skip
    assert len(quality.sums("2026-11-02")) == 3
    assert sorted(quality.seconds(WEEK)) == sorted([(GROUP, 2.5), (GROUP, 2.5), (other, 2.5)])
    assert quality.groups_of([RunId("run0"), RunId("run2"), RunId("nobody")]) == {
        RunId("run0"): GROUP, RunId("run2"): other
    }  # fmt: skip


def test_a_run_that_was_marked_counts_once_until_it_is_taken_back(
    quality: SqlQuality, url: str, cipher: Cipher
) -> None:
    feedback = SqlFeedback(url, cipher)
    for number in (0, 1):
        quality.keep(measure(number))
    tap = Feedback(
        FeedbackId("1"), "run0", "https://ehr.example.org/fhir", "Patient/1", Mark.WRONG, "user:a", AT,
        claim=ClaimKey("0" * 64),
    )  # fmt: skip
    feedback.say(tap)
    feedback.say(replace(tap, id=FeedbackId("2"), actor="user:b"))
    assert quality.marked(WEEK) == {GROUP: 1}
    for actor in ("user:a", "user:b"):
        feedback.undo("run0", actor, AT)
    assert quality.marked(WEEK) == {}
    feedback.close()


def test_what_was_stored_and_not_counted_is_found_newest_first_and_what_is_destroyed_is_passed_over(
    quality: SqlQuality, store: SqlStore
) -> None:
    for number, state in enumerate((RunState.FILED, RunState.FAILED, RunState.DRY)):
        store.save(sample_run(run_id=f"r{number}", state=state, patient=f"Patient/{number}"))
    assert quality.uncounted(10) == ("r2", "r0")
    KeyRoom(quality.database, lambda: AT).shred("Patient/0", "wanted", leave_drafts=True)
    assert count_backlog(store, quality, UTC, lambda: AT, most=1) == 1
    assert quality.count_uncounted() == 1
    assert count_backlog(store, quality, UTC, lambda: AT) == 1
    assert quality.count_uncounted() == 0
    assert [one.runs for one in quality.sums("")] == [1]  # a run of which nothing is left is in no week


def test_a_run_that_is_counted_as_it_is_stored_is_not_waited_for(
    quality: SqlQuality, store: SqlStore
) -> None:
    run = sample_run()
    store.save(run)
    counter_of(quality, UTC)(run)
    assert quality.count_uncounted() == 0
    assert quality.sums(WEEK)[0].counts.supported == 21


def test_no_name_of_a_ward_and_no_word_of_a_shadow_run_lies_readable_in_the_database(
    quality: SqlQuality,
) -> None:
    quality.keep(measure(1))
    shadow(quality)
    with quality.database.reading() as session:
        for table in ("epicrisis_measure", "epicrisis_measured_ward", "epicrisis_shadow"):
            assert (
                CANARY.casefold() not in str(session.execute(text(f"SELECT * FROM {table}")).all()).casefold()
            )


def test_a_shadow_run_comes_back_as_it_was_and_is_no_summary_for_anything_that_asks_for_one(
    quality: SqlQuality, store: SqlStore
) -> None:
    made = shadow(quality)
    run, inputs = made.run, made.run.inputs
    assert quality.shadows(EvaluationId("e1"), 0) == {inputs.patient: made}
    assert quality.shadows(EvaluationId("e1"), 1) == {}
    assert store.get(run.run_id) is None
    assert store.find_by_key(inputs.key) is None
    assert store.find_latest(inputs.patient, inputs.kind) is None
    assert store.newest(inputs.server, inputs.patient, inputs.kind) is None
    assert store.rows() == ((), 0)
    assert store.names([run.run_id]) == {}
    assert store.find_by_patient(inputs.patient) == ()
    source = run.summary.facts[0].source
    assert store.find_by_source(source.reference) == ()
    assert store.find_documents(Wanted(model=inputs.model_digest)) == []
    assert store.find_documents(Wanted(source=source.reference)) == []
    assert store.find_templates(inputs.prompt_id, inputs.prompt_version) == ()
    assert store.drafts() == []
    assert quality.count_uncounted() == 0


def test_a_chart_has_one_shadow_run_in_an_arm(quality: SqlQuality) -> None:
    shadow(quality)
    with pytest.raises(StoreError):
        shadow(quality, "again")


def test_a_shadow_run_of_another_row_is_not_believed(quality: SqlQuality) -> None:
    shadow(quality)
    with quality.database.writing() as session:
        session.execute(text("UPDATE epicrisis_shadow SET run_id = 'other'"))
    with pytest.raises(StoreError, match="changed"):
        quality.shadows(EvaluationId("e1"), 0)


def test_shredding_a_patient_takes_their_shadow_runs_and_nothing_more_is_kept(
    quality: SqlQuality, store: SqlStore
) -> None:
    shadow(quality)
    shadow(quality, "other", "Patient/2")
    KeyRoom(quality.database, lambda: AT).shred(f"Patient/{CANARY}", "wanted")
    assert list(quality.shadows(EvaluationId("e1"), 0)) == ["Patient/2"]
    with quality.database.reading() as session:
        assert session.execute(text("SELECT count(*) FROM epicrisis_shadow")).scalar_one() == 1
    with pytest.raises(ShreddedError):
        shadow(quality, "later")


def test_an_evaluation_that_was_cut_off_is_gone_on_with_and_one_that_ended_is_not(
    quality: SqlQuality,
) -> None:
    assert quality.begin(evaluation()) == evaluation()
    assert quality.begin(evaluation("e2")).id == "e1"
    against = replace(IDENTITY, model_digest="d2")
    assert quality.begin(evaluation("e3", against)).id == "e3"
    assert quality.evaluations() == []
    later = AT + timedelta(hours=1)
    quality.end(EvaluationId("e1"), later, {"arms": [{"charts": 2}]})
    assert quality.begin(evaluation("e4")).id == "e4"
    ended = replace(evaluation(), ended_at=later, report={"arms": [{"charts": 2}]})
    assert quality.evaluations() == [ended]
    assert quality.get_evaluation(EvaluationId("e1")) == ended
    kept = quality.get_evaluation(EvaluationId("e3"))
    assert kept is not None
    assert (kept.against, kept.ended_at) == (against, None)
    assert quality.get_evaluation(EvaluationId("none")) is None
    with pytest.raises(StoreError):
        quality.end(EvaluationId("none"), later, {})
