"""Feedback, questions and who wants no summaries: the stores in a database, and their doubles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from fixtures.facts import A1C, GOUT
from fixtures.postgres import PostgresServer
from service.engine.prompt import Completion, Message, Prompt, Sampling, Usage
from service.errors import ShreddedError, StoreError
from service.grounding.summary import Claim, Origin, Verdict
from service.ports.feedback import ClaimKey, Feedback, FeedbackId, FeedbackStore, Mark, Ruling
from service.ports.questions import Answer, Question, QuestionId, QuestionState, QuestionStore, Standing
from service.record.facts import FactId
from service.store.cipher import Cipher
from service.store.database import Database, open_cipher
from service.store.feedback import SqlFeedback
from service.store.keys import KeyRoom
from service.store.questions import SqlQuestions
from tests.conftest import CANARY
from tests.unit.ask.in_memory import InMemoryFeedback, InMemoryQuestions
from tests.unit.writeback.charts import make_run

AT = datetime(2026, 11, 28, 8, 0, tzinfo=UTC)
SERVER, PATIENT = "https://ehr.example.org/fhir", f"Patient/{CANARY}-1"
CLAIM = Claim(
    "problems",
    f"{CANARY} has gout.",
    (FactId("Condition/1"), FactId("Condition/2")),
    Origin.MODEL,
    Verdict.SUPPORTED,
)


@dataclass
class Desk:
    """The two stores of one kind; `database` is None for the doubles."""

    feedback: FeedbackStore
    questions: QuestionStore
    database: Database | None = None

    def key(self, claim: Claim = CLAIM) -> ClaimKey:
        return self.feedback.claim_key(SERVER, PATIENT, claim)

    def tap(self, number: int, mark: Mark = Mark.WRONG, actor: str = "user:one", **more: object) -> Feedback:
        one = Feedback(
            FeedbackId(f"{number:032x}"),
            "run1",
            SERVER,
            PATIENT,
            mark,
            actor,
            AT + timedelta(minutes=number),
            claim=self.key(),
            text=CLAIM.text,
            words=f"{CANARY} says no",
            by="Practitioner/7",
        )
        one = replace(one, **more)  # type: ignore[arg-type]
        self.feedback.say(one)
        return one

    def disputed(self) -> bool:
        return self.key() in self.feedback.disputes_of(SERVER, PATIENT)


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    if request.param == "memory":
        yield Desk(InMemoryFeedback(), InMemoryQuestions())
        return
    url = f"sqlite:///{tmp_path}/epicrisis.db"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.ready_database()
    yield from opened(url, open_cipher(tmp_path / "key", url))


@pytest.fixture
def stored(url: str, cipher: Cipher) -> Iterator[Desk]:
    yield from opened(url, cipher)


def opened(url: str, cipher: Cipher) -> Iterator[Desk]:
    feedback, questions = SqlFeedback(url, cipher), SqlQuestions(url, cipher)
    yield Desk(feedback, questions, feedback.database)
    feedback.close()
    questions.close()


def question(number: int = 1, **more: object) -> Question:
    one = Question(
        QuestionId(f"{number:032x}"),
        SERVER,
        PATIENT,
        "user:one",
        "user:p",
        f"Has {CANARY} gout?",
        AT,
        run_id="run1",
        encounter="Encounter/9",
        by="Practitioner/7",
    )
    return replace(one, **more)  # type: ignore[arg-type]


def answered(one: Question) -> Question:
    answer = Answer(
        claims=(CLAIM,),
        beside=(),
        refused=(replace(CLAIM, verdict=Verdict.UNSUPPORTED, reasons=("x",)),),
        facts=(GOUT, A1C),
        searched=412,
        nowhere=("latex",),
        elsewhere=(),
        standings=(Standing("A", "B", "C"),),
        unshown=3,
        advice=True,
        gaps=(),
        left_out=(),
        restricted=True,
        as_of=A1C.when,
        read_at=AT,
    )
    prompt = Prompt((Message("user", f"{CANARY}?"),), Sampling(10), {"type": "object", "enum": ["a"]})
    return replace(
        one,
        state=QuestionState.ANSWERED,
        answer=answer,
        inputs=make_run().inputs,
        prompts=(prompt,),
        completions=(Completion("x", "stop", Usage(1, 1), 0.5),),
    )


def test_the_same_statement_has_the_same_key_and_no_other_has_it(desk: Desk) -> None:
    same = replace(CLAIM, section="other", citations=CLAIM.citations[::-1], origin=Origin.RECORD)
    assert desk.key(same) == desk.key()
    others = [replace(CLAIM, text="Gout."), replace(CLAIM, citations=CLAIM.citations[:1])]
    keys = {desk.key(one) for one in others} | {
        desk.feedback.claim_key("https://other.example.org/fhir", PATIENT, CLAIM),
        desk.feedback.claim_key(SERVER, "Patient/2", CLAIM),
    }
    assert len(keys) == 4
    assert desk.key() not in keys
    assert desk.feedback.claim_key(f"{SERVER}/", PATIENT, CLAIM) == desk.key()
    assert desk.feedback.claim_keys(SERVER, PATIENT, [CLAIM, same]) == {CLAIM: desk.key(), same: desk.key()}


@pytest.mark.parametrize(
    ("mark", "disputes"),
    [(Mark.WRONG, True), (Mark.OUTDATED, True), (Mark.MISSING, False), (Mark.UNHELPFUL, False)],
)
def test_what_is_said_is_kept_whole_and_wrong_or_outdated_disputes(
    desk: Desk, mark: Mark, disputes: bool
) -> None:
    one = desk.tap(1, mark)
    assert desk.feedback.said_of("run1") == [one]
    assert desk.feedback.said_of("run2") == []
    assert desk.disputed() is disputes
    assert list(desk.feedback.unsettled()) == ([one] if disputes else [])
    assert desk.feedback.disputes_of(SERVER, "Patient/2") == frozenset()
    assert desk.feedback.disputes_of("https://other.example.org/fhir", PATIENT) == frozenset()


def test_the_last_tap_of_a_user_is_undone_first_and_nobody_elses(desk: Desk) -> None:
    first, second = desk.tap(1), desk.tap(2, Mark.OUTDATED)
    other = desk.tap(3, actor="user:two")
    undone = desk.feedback.undo("run1", "user:one", AT)
    assert undone == replace(second, undone_at=AT)
    assert desk.feedback.said_of("run1") == [first, undone, other]
    desk.feedback.undo("run1", "user:one", AT)
    assert desk.disputed()
    assert desk.feedback.undo("run1", "user:one", AT) is None
    desk.feedback.undo("run1", "user:two", AT)
    assert not desk.disputed()


def test_one_statement_alone_is_undone_where_it_is_named(desk: Desk) -> None:
    first = desk.tap(1)
    desk.tap(2, claim=ClaimKey("0" * 64))
    undone = desk.feedback.undo("run1", "user:one", AT, desk.key())
    assert undone is not None
    assert undone.id == first.id


def test_a_ruling_settles_every_open_dispute_of_a_statement_and_a_new_one_opens_it_again(desk: Desk) -> None:
    desk.tap(1)
    desk.tap(2, Mark.OUTDATED, "user:two")
    desk.tap(3, Mark.UNHELPFUL)
    settled = desk.feedback.settle(
        SERVER, PATIENT, desk.key(), Ruling.DISMISSED, "user:r", AT, f"{CANARY} is right"
    )
    assert settled == 2
    assert not desk.disputed()
    assert desk.feedback.unsettled() == []
    first = desk.feedback.said_of("run1")[0]
    told = (first.ruling, first.ruled_by, first.ruled_at, first.ruled_words)
    assert told == (Ruling.DISMISSED, "user:r", AT, f"{CANARY} is right")
    assert desk.feedback.settle(SERVER, PATIENT, desk.key(), Ruling.UPHELD, "user:r", AT) == 0
    desk.tap(4, actor="user:two")
    assert desk.disputed()


def test_an_upheld_dispute_stays_and_cannot_be_undone(desk: Desk) -> None:
    desk.tap(1)
    desk.feedback.settle(SERVER, PATIENT, desk.key(), Ruling.UPHELD, "user:r", AT)
    assert desk.feedback.undo("run1", "user:one", AT) is None
    assert desk.disputed()


def test_a_user_switches_summaries_off_and_on_for_themselves(desk: Desk) -> None:
    desk.feedback.switch_off("user:one", AT)
    desk.feedback.switch_off("user:one", AT)
    assert (desk.feedback.is_off("user:one"), desk.feedback.is_off("user:two")) == (True, False)
    desk.feedback.switch_on("user:one")
    assert not desk.feedback.is_off("user:one")
    desk.feedback.switch_on("user:one")


def test_a_question_comes_back_as_it_was_kept(desk: Desk) -> None:
    one = question()
    desk.questions.ask(one)
    assert desk.questions.get_question(one.id) == one
    done = answered(one)
    assert desk.questions.settle_question(done)
    assert desk.questions.get_question(one.id) == done
    assert desk.questions.get_question(QuestionId("f" * 32)) is None


def test_questions_about_a_patient_stand_newest_first_and_no_others(desk: Desk) -> None:
    for n in range(1, 5):
        desk.questions.ask(question(n))
    desk.questions.ask(question(5, patient="Patient/2"))
    desk.questions.ask(question(6, server="https://other.example.org/fhir"))
    found = desk.questions.questions_about(SERVER, PATIENT, limit=3)
    assert [int(one.id, 16) for one in found] == [4, 3, 2]


def test_what_was_cancelled_stays_so_whatever_is_answered_later(desk: Desk) -> None:
    one = question()
    desk.questions.ask(one)
    assert desk.questions.note(one.id, "generate")
    kept = desk.questions.get_question(one.id)
    assert kept is not None
    assert kept.stage == "generate"
    desk.questions.cancel(one.id)
    assert not desk.questions.note(one.id, "verify")
    assert not desk.questions.settle_question(answered(one))
    kept = desk.questions.get_question(one.id)
    assert kept is not None
    assert (kept.state, kept.answer) == (QuestionState.CANCELLED, None)


def test_what_was_answered_is_not_cancelled_any_more(desk: Desk) -> None:
    one = question()
    desk.questions.ask(one)
    desk.questions.settle_question(answered(one))
    desk.questions.cancel(one.id)
    kept = desk.questions.get_question(one.id)
    assert kept is not None
    assert kept.state is QuestionState.ANSWERED


def test_nothing_of_it_lies_in_the_clear(stored: Desk) -> None:
    stored.tap(1)
    stored.feedback.settle(SERVER, PATIENT, stored.key(), Ruling.UPHELD, "user:r", AT, f"{CANARY} too")
    stored.feedback.switch_off(f"user:{CANARY}", AT)
    stored.questions.ask(question())
    stored.questions.settle_question(answered(question()))
    assert stored.database is not None
    lying = ""
    with stored.database.reading() as session:
        for table in ("feedback", "question", "sidebar_off"):
            rows = session.connection().execute(text(f"SELECT * FROM epicrisis_{table}"))
            cells = [bytes(cell) if isinstance(cell, memoryview) else cell for row in rows for cell in row]
            assert cells
            lying += repr(cells)
    for word in (CANARY, "gout", "Practitioner", "Encounter/9", "Patient/", "says no"):
        assert word not in lying


def test_what_was_moved_to_another_row_opens_nothing(stored: Desk) -> None:
    stored.tap(1)
    stored.tap(2)
    stored.questions.ask(question(1))
    stored.questions.ask(question(2))
    assert stored.database is not None
    with stored.database.writing() as session:
        for table in ("feedback", "question"):
            newest = f"(SELECT content FROM epicrisis_{table} WHERE id = 2)"
            session.connection().execute(
                text(f"UPDATE epicrisis_{table} SET content = {newest} WHERE id = 1")
            )
    with pytest.raises(StoreError):
        stored.feedback.said_of("run1")
    with pytest.raises(StoreError):
        stored.questions.get_question(question(1).id)


def test_shredding_a_patient_leaves_nothing_and_takes_nothing_more(
    stored: Desk, url: str, cipher: Cipher, tmp_path: Path
) -> None:
    other = "Patient/2"
    stored.tap(1)
    stored.tap(2, patient=other)
    stored.questions.ask(question(1))
    stored.questions.ask(question(2, patient=other))
    assert stored.database is not None
    KeyRoom(stored.database, lambda: AT, tmp_path / "key").shred(PATIENT, "asked for")
    assert stored.questions.get_question(question(1).id) is None
    assert stored.questions.get_question(question(2).id) == question(2, patient=other)
    assert [one.patient for one in stored.feedback.said_of("run1")] == [other]
    assert not stored.disputed()
    with pytest.raises(ShreddedError):
        stored.tap(3)
    with pytest.raises(ShreddedError):
        stored.questions.ask(question(3))


def test_half_of_a_character_is_refused_and_not_stored(stored: Desk) -> None:
    with pytest.raises(StoreError):
        stored.tap(1, words="half \ud83d")
    with pytest.raises(StoreError):
        stored.questions.ask(question(text="half \ud83d"))
    assert stored.feedback.said_of("run1") == []


def test_a_database_that_fails_is_a_store_error(stored: Desk) -> None:
    assert stored.database is not None
    with stored.database.writing() as session:
        for table in ("feedback", "question", "sidebar_off"):
            session.connection().execute(text(f"DROP TABLE epicrisis_{table}"))
    for call in (
        lambda: stored.feedback.disputes_of(SERVER, PATIENT),
        lambda: stored.feedback.is_off("user:one"),
        lambda: stored.questions.get_question(QuestionId("0" * 32)),
        lambda: stored.tap(1),
    ):
        with pytest.raises(StoreError):
            call()
