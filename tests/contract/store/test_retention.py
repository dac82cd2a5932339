"""Retention, legal holds, and the trail as it is read, on each kind of database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlmodel import SQLModel

from service.audit.anchor import AnchorFile
from service.audit.lines import line_of
from service.errors import ExpiredError, ShreddedError, StoreError
from service.ports import Action, AuditEntry, RunId, StoredRun, Wanted
from service.ports.attesting import Act, Attested, Disposal, Edit
from service.ports.feedback import Feedback, FeedbackId, Mark
from service.ports.holds import Expired, LegalHold
from service.ports.questions import Question, QuestionId
from service.ports.reviews import Omission, QueueEntry, Review, Rule
from service.ports.trail import Checked, Sought
from service.store.attesting import SqlAttesting
from service.store.cipher import Cipher
from service.store.feedback import SqlFeedback
from service.store.holds import SqlHolds
from service.store.inputs import SqlInputs
from service.store.keys import KeyRoom
from service.store.ledger import SqlLedger
from service.store.questions import SqlQuestions
from service.store.retention import Retention
from service.store.reviews import SqlReviews
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from service.store.vault import SqlVault
from tests.conftest import CANARY
from tests.contract.store.test_patient_keys import CHART, document_of, is_told, made_of, readable, run_of

NOW = datetime(2026, 11, 28, 8, 0, tzinfo=UTC)
OLD, NEW = NOW - timedelta(days=400), NOW - timedelta(days=10)
BEFORE = NOW - timedelta(days=365)
FREE, HELD, YOUNG = "Patient/77", "Patient/78", "Patient/79"
BY = "user:one"


@dataclass
class Site:
    """Everything that stores something about patients, on one database."""

    url: str
    cipher: Cipher
    folder: Path

    def __post_init__(self) -> None:
        given = (self.url, self.cipher)
        self.store, self.vault = SqlStore(*given), SqlVault(*given, lambda: OLD)
        self.audit = SqlAuditLog(*given, partial(AnchorFile, self.folder / "anchors", lambda: NOW))
        self.feedback, self.questions = SqlFeedback(*given), SqlQuestions(*given)
        self.reviews, self.attesting = SqlReviews(*given), SqlAttesting(*given)
        self.holds = SqlHolds(*given, lambda: NOW)
        self.retention = Retention(self.store.database)
        self.keys = KeyRoom(self.store.database, lambda: NOW)

    def close(self) -> None:
        for edge in (
            self.store, self.vault, self.audit, self.feedback, self.questions, self.reviews, self.attesting,
            self.holds,
        ):  # fmt: skip
            edge.close()

    def fill(self, patient: str, at: datetime) -> StoredRun:
        """Store a run of a patient and all that quotes it; return the run."""
        run = replace(run_of(patient), created_at=at)
        assert SqlInputs(self.store).save(run, made_of(patient))
        self.store.put_document(document_of(patient))
        self.audit.append(AuditEntry(Action.GENERATE, BY, patient, at, run_id=run.run_id))
        if at is OLD:
            self.vault.put("snapshot", f"server {patient}", CHART)
        number = patient.rpartition("/")[2]
        for about in (run.run_id, f"question-{number}"):
            self.feedback.say(
                Feedback(FeedbackId(f"{about}-f"), about, "server", patient, Mark.WRONG, BY, at, words=CANARY)
            )
        self.reviews.enqueue(QueueEntry(run.run_id, Rule.WARD, f"Of {CANARY}.", at, patient))
        self.reviews.begin(Review(run.run_id, BY, Rule.WARD, at, patient))
        self.reviews.keep_omission(Omission(run.run_id, BY, at, f"{CANARY} has gout."))
        edit = Edit(run.run_id, 0, f"{CANARY} has gout.", "No gout.", 3, "Practitioner/1", at, BY)
        self.attesting.open(run.run_id, patient, BY, at)
        self.attesting.dispose(Disposal(run.run_id, patient, BY, "Practitioner/1", Act.EDITED, at, 0), edit)
        self.attesting.keep_attested(
            Attested(run.run_id, patient, "DocumentReference/9", "Practitioner/1", BY, at, at, 1, 3, 40)
        )
        return run


@pytest.fixture
def site(url: str, cipher: Cipher, tmp_path: Path) -> Iterator[Site]:
    opened = Site(url, cipher, tmp_path)
    yield opened
    opened.close()


def hold_of(patient: str, reason: str = "Claim 7 of 2026.") -> LegalHold:
    return LegalHold(0, patient, reason, "system:cli", NOW)


def rows_of(site: Site, table: str, patient: str) -> int:
    hashed = site.store.database.hash_of(patient)
    with site.store.database.reading() as session:
        wanted = f"SELECT count(*) FROM {table} WHERE patient_hash = '{hashed}'"
        return int(session.connection().exec_driver_sql(wanted).scalar_one())


QUOTING = (
    "epicrisis_feedback", "epicrisis_run_input", "epicrisis_input_part", "epicrisis_review",
    "epicrisis_review_entry", "epicrisis_review_act", "epicrisis_decision", "epicrisis_opening",
    "epicrisis_kept",
)  # fmt: skip


def test_what_is_too_old_goes_and_a_hold_and_the_trail_stay(site: Site) -> None:
    runs = {patient: site.fill(patient, at) for patient, at in ((FREE, OLD), (HELD, OLD), (YOUNG, NEW))}
    site.holds.add(hold_of(HELD))
    counted = site.retention.count(BEFORE)
    assert (counted.runs, counted.held) == (1, 1)
    before = site.audit.verify()

    done = site.retention.delete(BEFORE)
    assert (done.runs, done.held) == (1, 1)
    assert site.retention.count(BEFORE) == Expired(0, 0, 1)
    with pytest.raises(ExpiredError):
        site.store.get(runs[FREE].run_id)
    for patient in (HELD, YOUNG):
        found = site.store.get(runs[patient].run_id)
        assert found is not None
        assert found.summary == runs[patient].summary
    for table in QUOTING:
        assert rows_of(site, table, FREE) == 0, table
        assert rows_of(site, table, HELD) > 0, table
    assert SqlInputs(site.store).inputs_of(runs[HELD]) is not None

    report = site.audit.verify()
    assert report.is_intact
    assert (report.entries, report.head, report.shredded) == (before.entries, before.head, 0)
    told = [one.entry for one in SqlLedger(site.audit.database).newest(Sought(patient=FREE))]
    assert [(one.run_id, one.patient) for one in told] == [(runs[FREE].run_id, FREE)]


def test_of_one_patient_alone_no_word_is_left_and_recall_still_finds_the_document(site: Site) -> None:
    run = site.fill(FREE, OLD)
    assert is_told(CANARY, readable(site.url, site.cipher))
    site.retention.delete(BEFORE)
    left = readable(site.url, site.cipher)
    for secret in (CANARY, "Penicillin", "Diabetes", "gout"):
        assert not is_told(secret, left), secret
    source = run.summary.facts[0].sources[0]
    for wanted in (Wanted(source=source.reference), Wanted(model=run.inputs.model)):
        assert [one.run_id for one in site.store.find_documents(wanted)] == [run.run_id]
        assert site.store.find_runs(wanted) == [run.run_id]
    assert site.store.find_runs(Wanted(source="Observation/none")) == []
    ((row,), _) = site.store.rows()
    assert (row.patient_name, row.patient, row.model) == ("Text deleted", FREE, run.inputs.model)
    assert site.store.find_by_key(run.inputs.key) is None
    attested = site.attesting.attested_of(run.run_id)
    assert attested is not None


def test_every_table_with_a_patients_text_is_known_to_retention_or_has_a_rule_of_its_own() -> None:
    """A table that comes later must be decided on."""
    sealed = {
        table.name
        for table in SQLModel.metadata.sorted_tables
        if "patient_hash" in table.columns and "content" in table.columns
    }
    by_retention = {
        *QUOTING, "epicrisis_run", "epicrisis_question", "epicrisis_shadow", "epicrisis_answer",
        "epicrisis_glass", "epicrisis_hook_card", "epicrisis_hook_feedback", "epicrisis_generation",
        "epicrisis_told",
    }  # fmt: skip
    acts = {"epicrisis_attested", "epicrisis_hidden", "epicrisis_hold", "epicrisis_document"}
    session_long = {"epicrisis_launch"}
    assert sealed - by_retention - acts - session_long == set()


def test_a_question_goes_by_its_own_age(site: Site) -> None:
    for patient, at in ((FREE, OLD), (HELD, OLD), (YOUNG, NEW)):
        site.questions.ask(question_of(patient, at))
    site.holds.add(hold_of(HELD))
    assert site.retention.delete(BEFORE).others == 1
    found = [site.questions.get_question(QuestionId(f"q-{one}")) for one in (FREE, HELD, YOUNG)]
    assert [one is not None for one in found] == [False, True, True]


def question_of(patient: str, at: datetime) -> Question:
    question_id = QuestionId(f"q-{patient}")
    return Question(question_id, "server", patient, BY, "user:p", f"Has {CANARY} gout?", at)


def test_inputs_of_a_held_patient_outlive_their_own_rule(site: Site) -> None:
    runs = {patient: site.fill(patient, OLD) for patient in (FREE, HELD)}
    site.holds.add(hold_of(HELD))
    inputs = SqlInputs(site.store)
    assert inputs.prune(BEFORE) == 1
    assert [inputs.inputs_of(runs[one]) is not None for one in (FREE, HELD)] == [False, True]
    site.holds.lift(HELD, BY, "Settled.")
    assert inputs.prune(BEFORE) == 1


def test_a_held_patient_is_shredded_despite_it_alone_and_the_chain_holds(site: Site) -> None:
    site.fill(HELD, OLD)
    site.holds.add(hold_of(HELD))
    with pytest.raises(StoreError, match="legal hold"):
        site.keys.shred(HELD, "asked for", leave_drafts=True)
    assert site.store.get(run_of(HELD).run_id) is not None
    site.keys.shred(HELD, "a court said so", despite_hold=True)
    with pytest.raises(ShreddedError):
        site.store.get(run_of(HELD).run_id)
    assert site.holds.holds() == []
    assert not is_told(CANARY, readable(site.url, site.cipher))
    report = site.audit.verify()
    assert report.is_intact
    assert report.shredded == 1
    with pytest.raises(ShreddedError):
        site.holds.add(hold_of(HELD))


def test_each_hold_ends_by_itself(site: Site) -> None:
    first, second = site.holds.add(hold_of(HELD)), site.holds.add(hold_of(HELD, "Claim 8."))
    other = site.holds.add(hold_of(FREE))
    assert site.holds.holds(HELD) == [first, second]
    assert site.holds.holds() == [first, second, other]
    with pytest.raises(StoreError, match="2 holds"):
        site.holds.lift(HELD, BY, "Settled.")
    assert site.holds.lift(FREE, BY, "Settled.", first.number) == []
    (lifted,) = site.holds.lift(HELD, BY, "Settled.", first.number)
    assert (lifted.reason, lifted.lifted_by, lifted.lifted_because) == (first.reason, BY, "Settled.")
    with pytest.raises(StoreError, match="legal hold"):
        site.keys.shred(HELD, "asked for")
    assert site.holds.lift(HELD, BY, "Settled.") == [replace(second, lifted_by=BY, lifted_because="Settled.")]
    assert site.holds.lift(HELD, BY, "Settled.") == []


def test_the_trail_is_read_in_order_without_gaps_and_by_what_is_sought(site: Site) -> None:
    for number in range(25):
        site.audit.append(
            AuditEntry(
                (Action.READ, Action.VIEW)[number % 2], f"user:{number % 3}", (FREE, "", HELD)[number % 3],
                NOW + timedelta(hours=number), run_id=f"run-{number % 5}", target="DocumentReference/9",
            )
        )  # fmt: skip
    ledger = SqlLedger(site.audit.database)
    every = list(ledger.oldest(Sought()))
    assert [one.number for one in every] == list(range(1, 26))
    assert (every[-1].number, every[-1].hash) == ledger.head()
    assert ledger.hash_at(7) == every[6].hash
    assert ledger.hash_at(99) == ""
    assert list(ledger.oldest(Sought(), after=20)) == every[20:]
    assert list(ledger.oldest(Sought(), after=20, until=22)) == every[20:22]
    assert list(ledger.newest(Sought(), 5, before=10)) == every[8:3:-1]
    wanted: dict[Sought, Callable[[AuditEntry], bool]] = {
        Sought(actor="user:1"): lambda e: e.actor == "user:1",
        Sought(action="view"): lambda e: e.action is Action.VIEW,
        Sought(patient=HELD): lambda e: e.patient == HELD,
        Sought(run_id="run-3"): lambda e: e.run_id == "run-3",
        Sought(since=NOW + timedelta(hours=20)): lambda e: e.at >= NOW + timedelta(hours=20),
        Sought(until=NOW + timedelta(hours=5)): lambda e: e.at < NOW + timedelta(hours=5),
    }
    for sought, is_meant in wanted.items():
        found = list(ledger.oldest(sought))
        assert found == [one for one in every if is_meant(one.entry)]
        assert 0 < len(found) < len(every)
    assert {one.patient_hash for one in every if not one.entry.patient} == {""}


def test_a_line_names_nobody_unless_it_is_wanted(site: Site) -> None:
    entry = AuditEntry(
        Action.VIEW, BY, FREE, NOW, run_id="r1", target="DocumentReference/secret-9/_history/2",
        counts={"b": 2, "a": 1}, by="Practitioner/roe",
    )  # fmt: skip
    site.audit.append(entry)
    site.audit.append(replace(entry, target="break-glass"))
    site.audit.append(replace(entry, target=f"{CANARY} said so"))
    first, second, third = SqlLedger(site.audit.database).oldest(Sought())
    line = line_of(first)
    told = json.loads(line)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert told["target"] == "DocumentReference"
    assert told["patient_hash"] == site.store.database.hash_of(FREE)
    assert (told["number"], told["hash"], told["counts"]) == (1, first.hash, {"a": 1, "b": 2})
    for secret in (b"Patient/77", b"secret-9", b"Practitioner", b"roe"):
        assert secret not in line
    assert json.loads(line_of(second))["target"] == "break-glass"
    assert json.loads(line_of(third))["target"] == ""
    named = json.loads(line_of(first, references=True))
    assert (named["patient"], named["by"], named["target"]) == (FREE, "Practitioner/roe", entry.target)


def test_what_a_check_came_to_is_kept_and_cannot_be_made_up(site: Site) -> None:
    ledger = SqlLedger(site.audit.database)
    assert ledger.last_check() is None
    for faults in (0, 3):
        ledger.keep_check(Checked(NOW, 9, faults, OLD))
    assert ledger.last_check() == Checked(NOW, 9, 3, OLD)
    with site.store.database.writing() as session:
        session.connection().exec_driver_sql("UPDATE epicrisis_audit_check SET content = content || 'x'")
    with pytest.raises(StoreError):
        ledger.last_check()


def test_the_last_anchor_is_found_without_reading_all(site: Site) -> None:
    assert site.audit.last_anchor() is None
    site.audit.append(AuditEntry(Action.READ, BY, FREE, NOW))
    anchor = site.audit.last_anchor()
    assert anchor is not None
    assert SqlLedger(site.audit.database).hash_at(anchor.number) == anchor.hash
    (site.folder / "anchors").write_bytes((site.folder / "anchors").read_bytes() + b'{"torn')
    assert site.audit.last_anchor() == anchor


def test_runs_of_many_are_deleted_in_several_steps(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.retention.BATCH", 2)
    for number in range(5):
        site.store.save(
            replace(run_of(FREE), run_id=RunId(f"many-{number}"), created_at=OLD + timedelta(days=number))
        )
    assert site.retention.delete(BEFORE).runs == 5
    assert site.retention.delete(BEFORE).runs == 0
