"""What is derived is computed again from the whole record, or is not supported."""

from __future__ import annotations

from dataclasses import replace

import pytest

from connectors.fhir.pull import Gap, GapReason
from fixtures.facts import BRONCHITIS, GOUT, LISINOPRIL, fact, record
from service.grounding.check import Judge
from service.grounding.derive import Whole
from service.grounding.summary import Verdict
from service.record.facts import Code, Fact, FactId, Kind, Person, Status

DAYS = {"2020-01-05": "05-Jan-2020", "2021-03-06": "06-Mar-2021", "2022-07-08": "08-Jul-2022"}


def sodium(value: str, on: str | None, ident: str = "", **more: object) -> Fact:
    day = {"2020-01-05": "05-Jan-2020", "2021-03-06": "06-Mar-2021", "2022-07-08": "08-Jul-2022"}.get(
        on or ""
    )
    text = f"Sodium: {value} mmol/L" + (f" on {day}" if day else "")
    return fact(text, Kind.RESULT, f"Observation/{ident or on}", status=Status.FINAL, recorded_status="final",
                on=on, value=value, unit="mmol/L", **more)  # fmt: skip


LOW, HIGH, LAST = sodium("128", "2020-01-05"), sodium("151", "2021-03-06"), sodium("140", "2022-07-08")


def judged(text: str, cited: Fact, *others: Fact, gaps: tuple[Gap, ...] = ()) -> tuple[Verdict, set[str]]:
    verdict, reasons = Judge("female", record([cited, *others], gaps)).verdict(text, [cited])
    return verdict, set(reasons)


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("The latest sodium was 140 mmol/L on 08-Jul-2022.", LAST),
        ("Sodium was most recently 140 mmol/L on 08-Jul-2022.", LAST),
        ("As of 08-Jul-2022, the most recent sodium was 140 mmol/L.", LAST),
        ("The first recorded sodium was 128 mmol/L on 05-Jan-2020.", LOW),
        ("The highest sodium was 151 mmol/L on 06-Mar-2021.", HIGH),
        ("The lowest recorded sodium was 128 mmol/L on 05-Jan-2020.", LOW),
    ],
)
def test_what_the_whole_record_bears_out_is_supported(text: str, cited: Fact) -> None:
    others = [one for one in (LOW, HIGH, LAST) if one is not cited]
    assert judged(text, cited, *others) == (Verdict.SUPPORTED, set())
    verdict, reasons = Judge("female").verdict(
        text, [cited]
    )  # without the whole record nothing of it is said
    assert verdict is Verdict.NOT_CHECKED
    assert "word_not_in_source" in reasons


@pytest.mark.parametrize(
    ("text", "cited", "reason"),
    [
        ("The latest sodium was 151 mmol/L on 06-Mar-2021.", HIGH, "a_newer_one_is_recorded"),
        ("As of 06-Mar-2021, the latest sodium was 151 mmol/L.", HIGH, "a_newer_one_is_recorded"),
        ("The first sodium was 151 mmol/L on 06-Mar-2021.", HIGH, "an_older_one_is_recorded"),
        ("The highest sodium was 140 mmol/L on 08-Jul-2022.", LAST, "another_value_is_further_out"),
        ("The lowest sodium was 140 mmol/L on 08-Jul-2022.", LAST, "another_value_is_further_out"),
        ("Only one sodium is recorded: 140 mmol/L (08-Jul-2022).", LAST, "others_are_recorded"),
    ],
)
def test_what_another_entry_overtakes_is_superseded(text: str, cited: Fact, reason: str) -> None:
    others = [one for one in (LOW, HIGH, LAST) if one is not cited]
    verdict, reasons = judged(text, cited, *others)
    assert (verdict, reasons) == (Verdict.SUPERSEDED, {reason})


def test_the_only_one_is_supported_where_there_is_one() -> None:
    assert judged("Only one sodium is recorded: 140 mmol/L (08-Jul-2022).", LAST)[0] is Verdict.SUPPORTED


def test_nothing_is_the_latest_where_observations_were_not_read_whole() -> None:
    text = "The latest sodium was 140 mmol/L on 08-Jul-2022."
    for gap in (Gap("Observation", GapReason.PAGING), Gap(None, GapReason.TIMED_OUT)):
        assert judged(text, LAST, gaps=(gap,)) == (Verdict.NOT_CHECKED, {"record_not_read_whole"})
    assert judged(text, LAST, gaps=(Gap("Goal", GapReason.NOT_SUPPORTED),))[0] is Verdict.SUPPORTED


def test_undated_and_simultaneous_values_leave_it_open() -> None:
    text = "The latest sodium was 140 mmol/L on 08-Jul-2022."
    assert judged(text, LAST, sodium("99", None, "u"))[1] == {"undated_values"}
    same = sodium("99", "2022-07-08", "same")
    assert judged(text, LAST, same)[1] == {"another_of_the_same_time"}
    moment = fact("x", on="2022-07-08T10:00:00Z").when
    at_once = replace(LAST, when=moment), replace(same, when=moment)
    assert judged(text, *at_once)[1] == {"another_of_the_same_time"}


def test_a_series_goes_by_code_too_and_another_person_is_no_part_of_it() -> None:
    text = "The latest sodium was 140 mmol/L on 08-Jul-2022."
    code = (Code("http://loinc.org", "2951-2", ""),)
    newer = replace(sodium("150", None, "n"), name="Na", codes=code, when=fact("x", on="2024-01-01").when)
    assert judged(text, replace(LAST, codes=code), newer)[1] == {"a_newer_one_is_recorded"}
    fetal = replace(newer, person=Person("fetus", "the fetus"))
    assert judged(text, replace(LAST, codes=code), fetal)[0] is Verdict.SUPPORTED
    cancelled = replace(newer, status=Status.CANCELLED)
    assert judged(text, replace(LAST, codes=code), cancelled)[0] is Verdict.SUPPORTED


def test_values_that_do_not_compare_have_no_highest() -> None:
    text = "The highest sodium was 151 mmol/L on 06-Mar-2021."
    other = sodium("2", "2020-01-05", "mg")
    assert other.quantity is not None
    for changed in ({"unit": "mg/dL"}, {"comparator": "<"}, {"number": None}):
        odd = replace(other, quantity=replace(other.quantity, **changed))
        assert judged(text, HIGH, odd)[1] == {"values_that_do_not_compare"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Gout is active, since 04-Mar-2011, at age 59.", set()),
        ("Gout is active, since 04-Mar-2011, at age 60.", {"age_is_another"}),
        ("Gout is active, since 04-Mar-2011, at age 95.", {"age_is_another"}),
    ],
)
def test_an_age_is_computed_from_the_birth_date(text: str, expected: set[str]) -> None:
    assert judged(text, GOUT)[1] == expected


def test_an_age_at_a_date_that_is_not_to_the_day_is_not_checked() -> None:
    vague = replace(GOUT, when=fact("x", on="2011-03").when)
    assert "age_not_computable" in judged("Gout is active, at age 59.", vague)[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Acute bronchitis lasted 14 days, from 03-Feb-2012 to 17-Feb-2012.", set()),
        ("Acute bronchitis resolved 14 days after its onset on 03-Feb-2012.", set()),
        ("The duration of acute bronchitis was 14 days.", set()),
        ("Acute bronchitis lasted 15 days.", {"duration_is_another"}),
        ("Acute bronchitis lasted four days.", {"duration_is_another"}),
    ],
)
def test_a_duration_is_computed_and_says_that_it_is_over(text: str, expected: set[str]) -> None:
    over = replace(BRONCHITIS, until=fact("x", on="2012-02-17").when)
    assert judged(text, over)[1] == expected


def test_without_an_end_nothing_lasted_so_long() -> None:
    assert "duration_not_computable" in judged("Gout lasted 14 days.", GOUT)[1]


@pytest.mark.parametrize("text", ["Sodium is 151 mmol/L.", "Sodium is 128 mmol/L."])
def test_a_value_that_is_without_a_day_is_the_latest(text: str) -> None:
    cited = HIGH if "151" in text else LOW
    others = [one for one in (LOW, HIGH, LAST) if one is not cited]
    assert judged(text, cited, *others) == (Verdict.SUPERSEDED, {"a_newer_one_is_recorded"})
    assert judged("Sodium is 140 mmol/L.", LAST, LOW, HIGH)[0] is Verdict.SUPPORTED
    assert judged("Sodium is 151 mmol/L on 06-Mar-2021.", HIGH, LAST)[0] is Verdict.SUPERSEDED
    assert judged("Sodium was 151 mmol/L on 06-Mar-2021.", HIGH, LAST)[0] is Verdict.SUPPORTED


def test_what_a_newer_entry_ended_is_not_current() -> None:
    newer = replace(LISINOPRIL, id=FactId("MedicationStatement/1"), status=Status.STOPPED,
                    until=fact("x", on="2022-01-01").when)  # fmt: skip
    text = "Lisinopril 10 mg is a current medication."
    assert judged(text, LISINOPRIL) == (Verdict.SUPPORTED, set())
    assert judged(text, LISINOPRIL, newer) == (Verdict.SUPERSEDED, {"a_newer_status_is_recorded"})
    older = replace(newer, until=fact("x", on="2019-01-01").when, when=None)
    assert judged(text, LISINOPRIL, older)[0] is Verdict.SUPPORTED


def test_what_ended_at_the_moment_at_which_an_entry_began_is_not_newer_than_it() -> None:
    text, moment = "Lisinopril 10 mg is a current medication.", "2021-05-04T10:00:00Z"
    begun = replace(LISINOPRIL, when=fact("x", on=moment).when)
    ended = replace(LISINOPRIL, id=FactId("MedicationStatement/1"), status=Status.STOPPED,
                    until=fact("x", on=moment).when)  # fmt: skip
    assert judged(text, begun, ended) == (Verdict.SUPPORTED, set())
    after = replace(ended, until=fact("x", on="2021-05-04T10:00:01Z").when)
    assert judged(text, begun, after) == (Verdict.SUPERSEDED, {"a_newer_status_is_recorded"})


def test_beginning_and_end_are_not_swapped() -> None:
    over = replace(BRONCHITIS, until=fact("x", on="2012-02-17").when)
    assert judged("Acute bronchitis resolved on 17-Feb-2012.", over)[0] is Verdict.SUPPORTED
    assert judged("Acute bronchitis resolved on 03-Feb-2012.", over)[1] == {"date_of_something_else"}
    assert "date_of_something_else" in judged("Acute bronchitis began 17-Feb-2012 and is resolved.", over)[1]


def test_a_cancelled_value_is_no_part_of_its_own_series() -> None:
    cancelled = replace(LAST, status=Status.CANCELLED)
    assert judged("The latest sodium was 140 mmol/L on 08-Jul-2022.", cancelled)[0] is not Verdict.SUPPORTED
    assert judged("The only sodium was 140 mmol/L on 08-Jul-2022.", cancelled)[0] is not Verdict.SUPPORTED


def test_what_is_told_of_all_values_need_not_be_the_latest() -> None:
    assert judged("The highest sodium is 151 mmol/L.", HIGH, LOW, LAST) == (Verdict.SUPPORTED, set())
    assert judged("The first sodium is 128 mmol/L.", LOW, HIGH, LAST) == (Verdict.SUPPORTED, set())


def test_two_values_of_one_moment_leave_open_which_is_the_first_or_the_latest() -> None:
    for on in ("2022-07-08", "2022-07-08T10:00:00Z"):
        moment = fact("x", on=on).when
        one, other = replace(LAST, when=moment), replace(sodium("99", "2022-07-08", "same"), when=moment)
        for told in ("latest", "first"):
            text = f"The {told} sodium was 140 mmol/L on 08-Jul-2022."
            assert judged(text, one, other) == (Verdict.NOT_CHECKED, {"another_of_the_same_time"})


def test_a_value_of_another_moment_leaves_nothing_open() -> None:
    early, late = (fact("x", on=f"2022-07-08T10:00:0{second}Z").when for second in (1, 2))
    one, other = replace(LAST, when=early), replace(sodium("99", "2022-07-08", "same"), when=late)
    latest, first = (f"The {told} sodium was 140 mmol/L on 08-Jul-2022." for told in ("latest", "first"))
    assert judged(first, one, other) == (Verdict.SUPPORTED, set())
    assert judged(latest, one, other) == (Verdict.SUPERSEDED, {"a_newer_one_is_recorded"})
    assert judged(latest, replace(one, when=late), replace(other, when=early)) == (Verdict.SUPPORTED, set())


def test_a_month_may_hold_a_day_that_is_told_as_the_latest() -> None:
    month = replace(sodium("99", "2022-07-08", "month"), when=fact("x", on="2022-06").when)
    text = "The latest sodium was 140 mmol/L on 08-Jul-2022."
    assert judged(text, LAST, month) == (Verdict.SUPPORTED, set())
    same_month = replace(month, when=fact("x", on="2022-07").when)
    assert judged(text, LAST, same_month) == (Verdict.SUPERSEDED, {"a_newer_one_is_recorded"})
    same_year = replace(month, when=fact("x", on="2022").when)
    first = "The first sodium was 140 mmol/L on 08-Jul-2022."
    assert judged(first, LAST, same_year) == (Verdict.SUPERSEDED, {"an_older_one_is_recorded"})


def test_the_same_is_told_three_times_at_most() -> None:
    three = "The only, single sodium, measured once: 140 mmol/L on 08-Jul-2022."
    assert judged(three, LAST) == (Verdict.SUPPORTED, set())
    assert judged(three.replace("single", "single, sole"), LAST)[1] == {"word_not_in_source"}


def test_what_is_current_must_be_so_by_its_own_entry_too() -> None:
    unknown = replace(
        LISINOPRIL, status=Status.UNKNOWN, recorded_status="", text="lisinopril 10 MG Oral Tablet"
    )
    assert "status_not_in_source:active" in judged("Lisinopril 10 mg is active.", unknown)[1]


def test_a_cancelled_value_is_no_extreme_and_one_without_a_number_neither() -> None:
    cancelled = replace(LAST, status=Status.CANCELLED, recorded_status="cancelled")
    for told in ("highest", "lowest"):
        text = f"The {told} sodium was 140 mmol/L on 08-Jul-2022, cancelled."
        assert judged(text, cancelled)[1] == set()
        assert judged(text.replace(", cancelled", ""), cancelled)[1] == {"status_lost:cancelled"}
        in_words = replace(LAST, quantity=None)
        assert "values_that_do_not_compare" in judged(text, in_words)[1]
    assert judged("The highest sodium was 140 mmol/L on 08-Jul-2022, cancelled.", cancelled, HIGH)[1] == {
        "another_value_is_further_out"
    }


def test_a_list_that_was_not_read_has_not_all_of_what_stands_in_it() -> None:
    statement = fact("Aspirin: active", Kind.MEDICATION, "MedicationStatement/1")
    for missing, is_whole in (("MedicationStatement", False), (None, False), ("Medication", True)):
        whole = Whole(record([statement], (Gap(missing, GapReason.FAILED),)))
        assert whole.has_all_of(statement) is is_whole
    assert Whole(record([statement])).has_all_of(statement)


def test_a_word_that_begins_or_ends_a_name_derives_nothing() -> None:
    for name in ("Last weight at visit", "Weight at visit, last"):
        weight = fact(f"{name}: 70 kg on 08-Jul-2022", Kind.VITAL, "Observation/w", status=Status.FINAL,
                      recorded_status="final", on="2022-07-08", value="70", unit="kg", name=name)  # fmt: skip
        newer = replace(weight, id=FactId("Observation/n"), when=fact("x", on="2023-01-01").when)
        for told in (name, name.upper(), name.casefold()):
            assert judged(f"{told} was 70 kg on 08-Jul-2022.", weight, newer) == (Verdict.SUPPORTED, set())
