"""The review store on each kind of database, and its double."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from sklearn.metrics import cohen_kappa_score
from sqlalchemy import text

from fixtures.postgres import PostgresServer
from fixtures.sample_run import CREATED, sample_run
from service.errors import ShreddedError, StoreError
from service.ports import RunId, RunState
from service.ports.reviews import (
    ActKind,
    Form,
    Omission,
    Outcome,
    QueueEntry,
    Review,
    ReviewStore,
    Rule,
    Score,
    Seeded,
    Support,
)
from service.record.facts import FactId
from service.review.agreement import ORDER, agree, claim_pairs, pair_up
from service.store.cipher import Cipher
from service.store.database import open_cipher
from service.store.keys import KeyRoom
from service.store.reviews import SqlReviews
from service.store.sql import SqlStore
from tests.conftest import CANARY
from tests.unit.in_memory_reviews import InMemoryReviews

RUN, PATIENT = RunId("run1"), f"Patient/{CANARY}-1"
ONE, TWO = "user:one", "user:two"
PLANTED = Seeded(RUN, ONE, 3, "value", f"{CANARY} weighs 700 kg.")


@pytest.fixture
def stored(url: str, cipher: Cipher) -> Iterator[SqlReviews]:
    opened = SqlReviews(url, cipher)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def reviews(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReviewStore]:
    if request.param == "memory":
        yield InMemoryReviews()
        return
    url = f"sqlite:///{tmp_path}/epicrisis.db"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.ready_database()
    opened = SqlReviews(url, open_cipher(tmp_path / "key", url))
    yield opened
    opened.close()


def entry(run: str = "run1", minute: int = 0, **more: object) -> QueueEntry:
    one = QueueEntry(RunId(run), Rule.RANDOM, "Drawn.", CREATED + timedelta(minutes=minute), PATIENT)
    return replace(one, **more)  # type: ignore[arg-type]


def begun(reviews: ReviewStore, who: str = ONE, run: str = "run1", **more: object) -> Review:
    review = Review(RunId(run), who, Rule.RANDOM, CREATED, PATIENT, by="Practitioner/7")
    return reviews.begin(replace(review, **more))  # type: ignore[arg-type]


def score(ordinal: int, support: Support = Support.SUPPORTED, who: str = ONE, run: str = "run1") -> Score:
    return Score(RunId(run), ordinal, who, CREATED, support, f"{CANARY} says so")


def finish(reviews: ReviewStore, who: str = ONE, run: str = "run1", minute: int = 1) -> Review:
    return reviews.finish(
        RunId(run), who, Outcome.REJECTED, f"{CANARY} is wrong", CREATED + timedelta(minutes=minute)
    )


def test_the_queue_is_told_oldest_first_page_by_page_and_by_rule(reviews: ReviewStore) -> None:
    for minute, run in ((3, "c"), (1, "a"), (2, "b")):
        assert reviews.enqueue(entry(run, minute, rule=Rule.WARD if run == "b" else Rule.RANDOM))
    assert [one.run_id for one in reviews.queue()] == ["a", "b", "c"]
    assert [one.run_id for one in reviews.queue(1, 1)] == ["b"]
    assert [one.run_id for one in reviews.queue(rule=Rule.WARD)] == ["b"]
    assert reviews.waiting() == {Rule.RANDOM: 2, Rule.WARD: 1}
    assert reviews.queue()[0] == entry("a", 1)


def test_a_run_stands_in_the_queue_once_and_more_reviewers_can_be_wanted(reviews: ReviewStore) -> None:
    assert reviews.enqueue(entry())
    assert not reviews.enqueue(entry(rule=Rule.HAND, wanted=2))
    assert not reviews.enqueue(entry(wanted=1))
    (one,) = reviews.queue()
    assert (one.rule, one.wanted) == (Rule.RANDOM, 2)
    assert reviews.entry_of(RUN) == one
    assert reviews.entry_of(RunId("other")) is None


def test_an_entry_is_done_after_as_many_reviews_as_are_wanted(reviews: ReviewStore) -> None:
    reviews.enqueue(entry(wanted=2))
    for number, who in enumerate((ONE, TWO), 1):
        begun(reviews, who)
        finish(reviews, who)
        found = reviews.entry_of(RUN)
        assert found is not None
        assert (found.done, found.is_done, found.reviewers) == (number, number == 2, (ONE, TWO)[:number])
        assert (found in reviews.queue()) is (number == 1)
    assert reviews.waiting() == {}


def test_a_review_is_kept_whole_and_begun_once(reviews: ReviewStore) -> None:
    first = begun(reviews, seeded=PLANTED)
    assert first == Review(
        RUN, ONE, Rule.RANDOM, CREATED, PATIENT, by="Practitioner/7", seeded=PLANTED, last=None
    )
    reviews.keep_score(score(2, Support.NOT_ADDRESSED))
    reviews.keep_score(score(0))
    reviews.keep_score(score(2, Support.NOT_SUPPORTED))
    reviews.keep_seeded(RUN, ONE, Support.NOT_SUPPORTED, CREATED, "no")
    form = Form(RUN, ONE, CREATED, {"accurate": 4, "stigmatizing": 0}, f"{CANARY} is long")
    reviews.keep_form(replace(form, answers={"accurate": 1}))
    reviews.keep_form(form)
    omission = Omission(RUN, ONE, CREATED, f"{CANARY} fell", FactId("Condition/7"))
    reviews.keep_omission(omission)
    reviews.keep_dispute(RUN, ONE, "a" * 64, CREATED)
    again = begun(reviews, rule=Rule.HAND, seeded=None)
    assert again == replace(
        first,
        scores=(score(0), score(2, Support.NOT_SUPPORTED)),
        seeded=replace(PLANTED, support=Support.NOT_SUPPORTED, words="no"),
        form=form,
        omissions=(omission,),
        disputed=frozenset({"a" * 64}),
        last=ActKind.DISPUTE,
    )
    assert again.seeded is not None
    assert again.seeded.is_caught
    ended = finish(reviews)
    assert ended == replace(
        again, ended_at=CREATED + timedelta(minutes=1), outcome=Outcome.REJECTED, reason=f"{CANARY} is wrong"
    )
    assert reviews.reviews_of(RUN) == [ended]


def test_acts_are_taken_back_the_last_first(reviews: ReviewStore) -> None:
    begun(reviews)
    reviews.keep_score(score(0))
    reviews.keep_score(score(0, Support.NOT_SUPPORTED))
    reviews.keep_dispute(RUN, ONE, "b" * 64, CREATED)
    assert reviews.undo(RUN, ONE, CREATED) == (ActKind.DISPUTE, "b" * 64)
    assert reviews.undo(RUN, ONE, CREATED) == (ActKind.SCORE, "")
    (review,) = reviews.reviews_of(RUN)
    assert (review.scores, review.disputed) == ((score(0),), frozenset())
    assert reviews.undo(RUN, ONE, CREATED) == (ActKind.SCORE, "")
    assert reviews.undo(RUN, ONE, CREATED) is None


def test_a_finished_review_and_one_that_nobody_began_take_nothing(reviews: ReviewStore) -> None:
    begun(reviews)
    reviews.keep_score(score(0))
    ended = finish(reviews)
    for who in (ONE, TWO):
        for act in (
            lambda who=who: reviews.keep_score(score(1, who=who)),
            lambda who=who: reviews.keep_seeded(RUN, who, Support.SUPPORTED, CREATED),
            lambda who=who: reviews.keep_form(Form(RUN, who, CREATED, {})),
            lambda who=who: reviews.keep_omission(Omission(RUN, who, CREATED, "x")),
            lambda who=who: reviews.keep_dispute(RUN, who, "c", CREATED),
            lambda who=who: reviews.undo(RUN, who, CREATED),
            lambda who=who: finish(reviews, who),
        ):
            with pytest.raises(StoreError):
                act()
    assert reviews.reviews_of(RUN) == [ended]


def test_reviews_are_told_by_when_they_were_finished(reviews: ReviewStore) -> None:
    for minute, run in ((5, "late"), (1, "early")):
        begun(reviews, run=run)
        finish(reviews, run=run, minute=minute)
    begun(reviews, run="open")
    minutes = [CREATED + timedelta(minutes=n) for n in (0, 1, 5, 6)]
    assert [one.run_id for one in reviews.reviews(minutes[0], minutes[3])] == ["early", "late"]
    assert [one.run_id for one in reviews.reviews(minutes[1], minutes[2])] == ["early"]


def test_sampling_looks_at_each_run_once_and_is_told_its_place(stored: SqlReviews, store: SqlStore) -> None:
    for minute, run in enumerate(("a", "b", "c", "d")):
        store.save(sample_run(run_id=run, created_at=CREATED + timedelta(minutes=minute)))
    store.save(sample_run(run_id="failed", state=RunState.FAILED))
    other = sample_run(run_id="e", created_at=CREATED + timedelta(minutes=9))
    store.save(replace(other, inputs=replace(other.inputs, model_digest="f" * 64)))
    found = stored.candidates(CREATED, 10, 2)
    assert [(one.run_id, one.place) for one in found] == [("a", 1), ("b", 2), ("c", 0), ("d", 0), ("e", 1)]
    assert [one.run_id for one in stored.candidates(CREATED + timedelta(minutes=1), 2, 2)] == ["b", "c"]
    stored.looked_at([RunId("a"), RunId("c")])
    stored.looked_at([RunId("c")])
    stored.looked_at([])
    assert [(one.run_id, one.place) for one in stored.candidates(CREATED, 10, 2)] == [
        ("b", 2), ("d", 0), ("e", 1),
    ]  # fmt: skip


def test_two_reviewers_on_twenty_documents_have_the_kappa_of_scikit_learn(reviews: ReviewStore) -> None:
    rng = Random(20)
    answers: dict[str, list[Support]] = {ONE: [], TWO: []}
    for document in range(20):
        for who in (ONE, TWO):
            begun(reviews, who, f"run{document}")
        for ordinal in range(rng.randrange(2, 5)):
            first = rng.choice(ORDER)
            second = first if rng.random() < 0.7 else rng.choice(ORDER)
            for who, support in ((ONE, first), (TWO, second)):
                answers[who].append(support)
                reviews.keep_score(score(ordinal, support, who, f"run{document}"))
        for who in (ONE, TWO):
            finish(reviews, who, f"run{document}")
    doubles = pair_up(reviews.reviews(CREATED, CREATED + timedelta(hours=1)))
    assert len(doubles) == 20
    found = agree(claim_pairs(doubles), len(ORDER))
    ours, theirs = ([ORDER.index(one) for one in answers[who]] for who in (ONE, TWO))
    assert found.pairs == len(ours)
    assert found.plain == pytest.approx(cohen_kappa_score(ours, theirs), abs=1e-12)
    weighted = cohen_kappa_score(ours, theirs, weights="quadratic", labels=[0, 1, 2])
    assert found.weighted == pytest.approx(weighted, abs=1e-12)


def test_nothing_that_a_reviewer_wrote_lies_open_in_the_database(stored: SqlReviews) -> None:
    stored.enqueue(entry())
    begun(stored, seeded=PLANTED)
    stored.keep_score(score(0))
    stored.keep_omission(Omission(RUN, ONE, CREATED, f"{CANARY} fell"))
    finish(stored)
    tables = ("epicrisis_review_entry", "epicrisis_review", "epicrisis_review_act")
    with stored.database.engine.connect() as connection:
        rows = [row for one in tables for row in connection.execute(text(f"SELECT * FROM {one}"))]
    assert len(rows) == 4
    shown = " ".join(
        bytes(value).decode("latin-1") if isinstance(value, bytes | memoryview) else str(value)
        for row in rows
        for value in row
    )
    assert CANARY not in shown
    assert ONE not in shown


@pytest.mark.parametrize("table", ["epicrisis_review_entry", "epicrisis_review", "epicrisis_review_act"])
def test_what_was_moved_to_another_row_opens_nothing(stored: SqlReviews, table: str) -> None:
    for run in ("run1", "run2"):
        stored.enqueue(entry(run))
        begun(stored, run=run)
        stored.keep_score(score(0, run=run))
    with stored.database.engine.begin() as connection:
        moved = f"SELECT content FROM {table} WHERE id = (SELECT min(id) FROM {table})"
        connection.execute(
            text(f"UPDATE {table} SET content = ({moved}) WHERE id = (SELECT max(id) FROM {table})")
        )
    with pytest.raises(StoreError):
        stored.queue() if table.endswith("entry") else stored.reviews_of(RunId("run2"))
    assert len(stored.reviews_of(RUN)) == 1


def test_what_reviewers_found_in_a_patient_is_destroyed_with_the_patients_key(
    stored: SqlReviews, store: SqlStore
) -> None:
    store.save(sample_run(run_id="run1", patient=PATIENT, state=RunState.DRY))
    for run, patient in (("run1", PATIENT), ("run2", "Patient/other")):
        stored.enqueue(replace(entry(run), patient=patient))
        begun(stored, run=run, patient=patient, seeded=PLANTED)
        stored.keep_score(score(0, run=run))
    finish(stored, run="run2")
    KeyRoom(stored.database, lambda: CREATED).shred(PATIENT, "asked for")
    assert [one.run_id for one in stored.queue()] == []
    assert stored.reviews_of(RUN) == []
    assert stored.entry_of(RUN) is None
    assert [one.run_id for one in stored.reviews(CREATED, CREATED + timedelta(days=1))] == ["run2"]
    with pytest.raises(ShreddedError):
        stored.enqueue(entry())
    with pytest.raises(ShreddedError):
        begun(stored)
    with stored.database.engine.connect() as connection:
        for table in ("epicrisis_review_entry", "epicrisis_review", "epicrisis_review_act"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 1
