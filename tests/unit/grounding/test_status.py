"""What a sentence must not lose of a fact, and must not lend it: status, certainty, `as needed`, a dosage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fixtures.facts import COLONOSCOPY, GOUT, LISINOPRIL, SIMVASTATIN, fact
from service.grounding.check import Judge
from service.grounding.status import MUST_SAY, STATUS_WORDS
from service.grounding.summary import Verdict
from service.record.facts import Fact, Kind, Status


def codes(text: str, *cited: Fact) -> set[str]:
    return set(Judge("").verdict(text, cited)[1])


def problem(status: Status, recorded: str = "", **more: Any) -> Fact:
    recorded = recorded or status.value
    return fact(f"Gout: {recorded}", status=status, recorded_status=recorded, **more)


def drug(line: str, status: Status = Status.ACTIVE, dosage: str = "", **more: Any) -> Fact:
    return fact(
        f"metformin 500 MG Oral Tablet: {line}", Kind.MEDICATION, status=status, recorded_status=status.value,
        details=(("dosage", dosage),) if dosage else (), **more,
    )  # fmt: skip


TOLD = [
    "resolved",
    "inactive",
    "refuted",
    "planned",
    "on hold",
    "stopped",
    "cancelled",
    "not done",
    "preliminary",
]


@pytest.mark.parametrize("word", TOLD)
def test_a_status_that_changes_what_is_said_must_be_said(word: str) -> None:
    status = Status(word)
    assert codes(f"Gout is {word}.", problem(status)) == set()
    assert f"status_lost:{word.replace(' ', '_')}" in codes("Gout.", problem(status))
    assert Judge("").verdict("Gout.", [problem(status)])[0] is Verdict.CONTRADICTED


def test_no_other_status_must_be_said_but_of_a_drug_that_was_completed() -> None:
    assert {status.value for status in MUST_SAY} == set(TOLD)
    for status in set(Status) - MUST_SAY:
        assert not any(code.startswith("status_lost") for code in codes("Gout.", problem(status)))
    assert "status_lost:completed" in codes("Metformin 500 mg.", drug("completed", Status.COMPLETED))
    assert codes("Metformin 500 mg was completed.", drug("completed", Status.COMPLETED)) == set()


@pytest.mark.parametrize(
    "word",
    "active resolved inactive refuted planned hold completed stopped cancelled done preliminary corrected "
    "remission relapse recurrence confirmed provisional suspected ordered given dispensed".split(),
)
def test_every_word_of_a_status_is_one_that_must_be_recorded(word: str) -> None:
    assert word in STATUS_WORDS
    flag = fact("Fall risk: noted", Kind.FLAG, status=Status.UNKNOWN)
    verdict, reasons = Judge("").verdict(f"Fall risk {word}.", [flag])
    assert f"status_not_in_source:{word}" in reasons
    assert verdict is Verdict.CONTRADICTED


def test_two_statuses_and_a_word_of_one_leave_it_open() -> None:
    both = (GOUT, SIMVASTATIN)
    assert "whose_status_is_unclear" in codes("Gout and simvastatin 20 mg: active, stopped.", *both)
    assert "whose_status_is_unclear" in codes("Gout, not simvastatin 20 mg.", *both)
    assert "whose_status_is_unclear" not in codes("Gout and simvastatin 20 mg.", *both)
    same = replace(GOUT, name="Asthma", text="Asthma: active")
    assert "whose_status_is_unclear" not in codes("Gout and asthma are active.", GOUT, same)
    patient = fact("Patient: female", Kind.PATIENT)
    assert "whose_status_is_unclear" not in codes("The female patient has gout, active.", patient, GOUT)


def test_a_status_beside_a_plan_and_its_activity_is_the_plans() -> None:
    plan = fact("Diabetes plan: active", Kind.PLAN, status=Status.ACTIVE, recorded_status="active")
    diet = fact("Diet: planned", Kind.PLAN, status=Status.PLANNED, recorded_status="planned",
                details=(("plan", "Diabetes plan"),))  # fmt: skip
    other = replace(diet, details=(("plan", "Another plan"),))
    text = "The diabetes plan is active: diet planned."
    assert "whose_status_is_unclear" not in codes(text, plan, diet)
    assert "whose_status_is_unclear" in codes(text, plan, other)


def test_what_was_not_done_needs_a_denial_or_the_refusal() -> None:
    assert codes("Colonoscopy was not done, recorded 12-Mar-2019.", COLONOSCOPY) == set()
    assert codes("Colonoscopy was refused, recorded 12-Mar-2019.", COLONOSCOPY) == set()
    assert "status_lost:not_done" in codes("Colonoscopy was done.", COLONOSCOPY)
    assert "status_lost:not_done" in codes("Colonoscopy, no.", COLONOSCOPY)
    assert "status_lost:not_done" in codes("Done colonoscopy.", COLONOSCOPY)
    unexplained = fact("Colonoscopy: not done", Kind.PROCEDURE, status=Status.NOT_DONE)
    assert "status_lost:not_done" in codes("Colonoscopy was refused.", unexplained)


def test_a_drug_is_active_only_where_one_that_is_cited_is() -> None:
    stopped = drug("stopped order, active ingredient", Status.STOPPED)
    assert "status_not_in_source:active" in codes("Metformin 500 mg, active, was stopped.", stopped)
    assert "status_not_in_source:active" not in codes("Metformin 500 mg is active.", drug("active"))
    assert "status_not_in_source:active" not in codes(
        "Metformin 500 mg is active, stopped.", drug("x"), stopped
    )


@pytest.mark.parametrize("word", ["given", "dispensed"])
def test_a_line_may_say_a_drugs_status_in_other_words(word: str) -> None:
    was = drug(f"{word} on 01-May-2020", Status.COMPLETED, on="2020-05-01")
    assert codes(f"Metformin 500 mg was {word} on 01-May-2020.", was) == set()
    assert "status_lost:completed" in codes("Metformin 500 mg on 01-May-2020.", was)
    assert "status_lost:completed" in codes("Metformin 500 mg given.", drug("completed", Status.COMPLETED))


@pytest.mark.parametrize("word", ["plan", "due"])
def test_a_line_may_say_an_orders_status_in_other_words(word: str) -> None:
    order = fact(f"Colonoscopy: {word} 01-May-2027", Kind.ORDER, status=Status.PLANNED, on="2027-05-01",
                 recorded_status="draft")  # fmt: skip
    assert not any(c.startswith("status_lost") for c in codes(f"Colonoscopy {word} 01-May-2027.", order))
    assert "status_lost:planned" in codes("Colonoscopy 01-May-2027.", order)
    assert "status_lost:planned" in codes(f"Gout {word}.", replace(GOUT, status=Status.PLANNED,
                                                                   text=f"Gout: {word}"))  # fmt: skip


def test_a_certainty_must_be_said_of_the_thing_and_not_of_its_day() -> None:
    for certainty in ("suspected", "provisional", "differential"):
        unsure = problem(Status.ACTIVE, certainty=certainty, on="2020-05-01")
        unsure = replace(unsure, text=f"Gout: active, {certainty}, since 01-May-2020")
        assert "certainty_lost" in codes("Gout is active.", unsure)
        assert "certainty_lost" not in codes(f"Gout is active, {certainty}.", unsure)
        for told in (f"{certainty} date", f"{certainty} onset", f"date {certainty}", f"onset is {certainty}",
                     f"date was {certainty}", f"onset ({certainty})", f"DATE: {certainty}"):  # fmt: skip
            assert "certainty_lost" in codes(f"Gout is active, {told}, 01-May-2020.", unsure), told
    confirmed = problem(Status.ACTIVE, certainty="confirmed")
    assert codes("Gout is active.", confirmed) == set()
    assert "certainty_lost" in codes("Gout is active, confirmed date.", confirmed)


OFTEN = "time every each per day daily hour hourly week weekly night nightly once twice".split()


@pytest.mark.parametrize("word", OFTEN)
def test_how_a_drug_is_taken_is_told_with_as_needed(word: str) -> None:
    line = f"active; {' '.join(OFTEN)}, as needed"
    assert "as_needed_lost" in codes(f"Metformin 500 mg {word}.", drug(line))
    for needed in ("as needed", "As Needed", "PRN", "p.r.n."):
        assert "as_needed_lost" not in codes(f"Metformin 500 mg {word} {needed}.", drug(line))
    assert "as_needed_lost" in codes(f"Metformin 500 mg {word} needed.", drug(line))
    assert "as_needed_lost" not in codes(f"Metformin 500 mg {word}.", drug("active; daily"))
    stopped = drug(f"stopped; {line}", Status.STOPPED)
    assert "as_needed_lost" not in codes(f"Metformin 500 mg {word}, stopped.", stopped)
    assert "as_needed_lost" not in codes("Metformin 500 mg is active.", drug(line))
    flag = fact(f"Metformin: {line}", Kind.FLAG)
    assert "as_needed_lost" not in codes(f"Metformin {word}.", flag)


@pytest.mark.parametrize("word", OFTEN)
def test_how_often_a_drug_is_taken_is_told_with_how_much(word: str) -> None:
    taken = drug(f"active; 2 tablets {' '.join(OFTEN)}", dosage=f"2 tablets {' '.join(OFTEN)}")
    assert "dosage_not_whole" in codes(f"Metformin 500 mg {word}.", taken)
    assert "dosage_not_whole" not in codes(f"Metformin 500 mg 2 tablets {word}.", taken)
    assert "dosage_not_whole" not in codes("Metformin 500 mg is active.", taken)
    assert "dosage_not_whole" not in codes(f"Metformin 500 mg {word}.", drug("active; daily"))
    flag = replace(taken, kind=Kind.FLAG)
    assert "dosage_not_whole" not in codes(f"Metformin 500 mg {word}.", flag)


@pytest.mark.parametrize(
    "piece", "tablet tablets capsule pill puff patch suppository drop dose drops".split()
)
def test_one_piece_may_go_unsaid(piece: str) -> None:
    one = drug(f"active; 1 {piece} daily", dosage=f"1 {piece} daily")
    assert "dosage_not_whole" not in codes("Metformin 500 mg daily.", one)
    two = drug(f"active; 2 {piece} daily", dosage=f"2 {piece} daily")
    assert "dosage_not_whole" in codes("Metformin 500 mg daily.", two)
    spoon = drug("active; 1 spoon daily", dosage="1 spoon daily")
    assert "dosage_not_whole" in codes("Metformin 500 mg daily.", spoon)


def test_a_denial_of_the_line_is_not_lost() -> None:
    without = fact("Chest pain: active, without fever", status=Status.ACTIVE, recorded_status="active")
    assert "negation_lost" in codes("Chest pain is active, fever.", without)
    assert "negation_lost" not in codes("Chest pain is active, without fever.", without)
    refuted = fact("Gout: refuted, no crystals", status=Status.REFUTED, recorded_status="refuted")
    assert "negation_lost" not in codes("Gout was refuted.", refuted)
    assert "negation_lost" in codes("Gout is active, refuted.", refuted)
    assert "negation_lost" not in codes("Lisinopril 10 mg is active.", LISINOPRIL)


def test_what_is_planned_is_not_said_to_be_active() -> None:
    order = fact("Colonoscopy: active", Kind.ORDER, status=Status.PLANNED, recorded_status="active")
    assert "status_lost:planned" in codes("Colonoscopy is active.", order)
    assert "status_lost:planned" not in codes("Colonoscopy is planned.", order)
