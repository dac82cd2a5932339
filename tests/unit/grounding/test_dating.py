"""Which day a sentence tells: a beginning is no end, and the day of recording is neither."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.facts import APPENDECTOMY, GOUT, LISINOPRIL, SIMVASTATIN, fact
from service.grounding.dating import misdated
from service.grounding.source import Source
from service.record.facts import Fact, Kind, Status

BEGUN, ENDED = "03-Feb-2012", "17-Feb-2012"
OVER = fact(f"Acute bronchitis: resolved, from {BEGUN} to {ENDED}", status=Status.RESOLVED,
            recorded_status="resolved", on="2012-02-03", until=fact("x", on="2012-02-17").when)  # fmt: skip
ALLERGY = fact("Peanut allergy: active, recorded 04-Mar-2011", Kind.ALLERGY, status=Status.ACTIVE,
               recorded_status="active", on="2011-03-04")  # fmt: skip
BEGINS = (
    "began begin begun onset since started start starting admitted admission from diagnosed developed "
    "appeared emerged identified presented came hospitalized hospitalised occurred ordered prescribed "
    "authored first"
).split()
ENDS = (
    "resolved ended end abated discharged discharge finished cleared recovered stopped discontinued "
    "completed inactive remission over longer held hold cancelled"
).split()
RECORDED = "recorded record documented noted listed entered reported charted".split()


def is_misdated(text: str, *facts: Fact) -> bool:
    sources = [Source(one) for one in facts]
    found = list(misdated(text, frozenset().union(*(source.units for source in sources)), sources))
    assert [reason for _, reason in found] in ([], ["date_of_something_else"])
    return bool(found)


@pytest.mark.parametrize("word", [*BEGINS, "Began", "ONSET"])
def test_a_word_of_beginning_tells_the_first_day(word: str) -> None:
    assert not is_misdated(f"Acute bronchitis {word} {BEGUN}.", OVER)
    assert is_misdated(f"Acute bronchitis {word} {ENDED}.", OVER)
    assert not is_misdated(f"Resolved acute bronchitis, {word} on {BEGUN}.", OVER)
    assert is_misdated(f"Resolved acute bronchitis, {word} on {ENDED}.", OVER)


@pytest.mark.parametrize("word", [*ENDS, "to", "until", "through"])
def test_a_word_of_an_end_tells_the_last_day(word: str) -> None:
    assert not is_misdated(f"Acute bronchitis {word} {ENDED}.", OVER)
    assert is_misdated(f"Acute bronchitis {word} {BEGUN}.", OVER)
    assert is_misdated(f"Acute bronchitis began and {word} {BEGUN}.", OVER)


@pytest.mark.parametrize("word", ENDS)
@pytest.mark.parametrize("since", ["since", "from", "began", "started"])
def test_an_end_since_a_day_is_an_end(word: str, since: str) -> None:
    assert not is_misdated(f"Acute bronchitis {word} {since} {ENDED}.", OVER)
    assert is_misdated(f"Acute bronchitis {word} {since} {BEGUN}.", OVER)


@pytest.mark.parametrize("word", RECORDED)
def test_the_day_of_recording_is_neither_beginning_nor_end(word: str) -> None:
    assert not is_misdated(f"Peanut allergy {word} 04-Mar-2011.", ALLERGY)
    assert is_misdated("Peanut allergy since 04-Mar-2011.", ALLERGY)
    assert is_misdated("Peanut allergy 04-Mar-2011.", ALLERGY)
    assert not is_misdated(f"Acute bronchitis resolved and {word} {BEGUN}.", OVER)
    assert not is_misdated(f"Acute bronchitis began and {word} {ENDED}.", OVER)


def test_each_day_is_told_by_the_words_right_before_it() -> None:
    assert not is_misdated(f"Acute bronchitis from {BEGUN} to {ENDED}.", OVER)
    assert is_misdated(f"Acute bronchitis from {ENDED} to {BEGUN}.", OVER)
    assert is_misdated(f"Acute bronchitis began {BEGUN} and resolved on {BEGUN}.", OVER)
    assert is_misdated(f"Acute bronchitis began {ENDED} and resolved on {ENDED}.", OVER)
    assert not is_misdated(f"Acute bronchitis on {BEGUN} and on {ENDED}.", OVER)


def test_a_bracket_after_a_name_tells_days_of_its_own() -> None:
    assert not is_misdated(f"Resolved acute bronchitis ({BEGUN} to {ENDED}).", OVER)
    assert not is_misdated(f"Resolved acute bronchitis ({BEGUN}).", OVER)
    assert is_misdated(f"Acute bronchitis resolved ({BEGUN}).", OVER)
    assert not is_misdated(f"Acute bronchitis resolved ({ENDED}).", OVER)
    assert is_misdated(f"Resolved acute bronchitis {BEGUN}.", OVER)
    assert is_misdated(f"Acute bronchitis (resolved {BEGUN}).", OVER)
    assert is_misdated(f"Resolved (acute) bronchitis on {BEGUN}.", OVER)


def test_a_day_without_words_of_its_own_is_neither_beginning_nor_end() -> None:
    assert not is_misdated(f"Acute bronchitis resolved {ENDED} ({BEGUN}).", OVER)
    assert not is_misdated(f"Acute bronchitis began {BEGUN}, {ENDED}.", OVER)
    assert not is_misdated(f"Resolved (acute) bronchitis ({BEGUN}).", OVER)
    assert not is_misdated(f"Began ({ENDED}).", OVER)
    assert is_misdated(f"Acute bronchitis Resolved Since {BEGUN}.", OVER)


def test_a_number_with_a_unit_is_no_year() -> None:
    fluid = fact("Fluid: 2011 ml of saline, resolved, from 2011 to 2012", status=Status.RESOLVED,
                 on="2011", until=fact("x", on="2012").when)  # fmt: skip
    assert is_misdated("Fluid ended 2011.", fluid)
    assert not is_misdated("Fluid ended 2011 ml.", fluid)


def test_discharged_after_an_admission_stays_an_end() -> None:
    assert is_misdated(f"Acute bronchitis discharged from hospital {BEGUN}.", OVER)
    assert not is_misdated(f"Acute bronchitis discharged from hospital {ENDED}.", OVER)
    assert is_misdated(f"Acute bronchitis admitted, discharged home from hospital {BEGUN}.", OVER)


def test_what_has_no_end_did_not_end_on_its_first_day() -> None:
    for cited, day in ((GOUT, "04-Mar-2011"), (LISINOPRIL, "04-May-2020"), (ALLERGY, "04-Mar-2011")):
        assert is_misdated(f"{cited.name} ended {day}.", cited)
    assert not is_misdated("Gout since 04-Mar-2011.", GOUT)
    assert not is_misdated("Gout 04-Mar-2011.", GOUT)
    assert not is_misdated("Simvastatin 20 mg from 04-May-2018.", SIMVASTATIN)
    assert is_misdated("Simvastatin 20 mg stopped on 04-May-2018.", SIMVASTATIN)
    assert not is_misdated("Gout ended 05-Mar-2011.", GOUT)
    other = fact("Flag: active since 04-Mar-2011", Kind.FLAG, status=Status.ACTIVE, on="2011-03-04")
    assert not is_misdated("Flag ended 04-Mar-2011.", other)


def test_a_line_that_tells_its_day_so_itself_is_told_so() -> None:
    assert not is_misdated("Hypertension resolved on 04-Mar-2011.", replace(
        GOUT, text="Hypertension: resolved, ended 04-Mar-2011", name="Hypertension"))  # fmt: skip
    since = replace(ALLERGY, text="Peanut allergy: active, since 04-Mar-2011, recorded 04-Mar-2011")
    assert not is_misdated("Peanut allergy since 04-Mar-2011.", since)
    assert not is_misdated("Peanut allergy, 04-Mar-2011.", since)


def test_a_procedure_is_completed_on_its_day() -> None:
    assert not is_misdated("Appendectomy was completed on 12-Mar-2004.", APPENDECTOMY)
    long = replace(APPENDECTOMY, until=fact("x", on="2004-03-13").when,
                   text="Appendectomy: completed, from 12-Mar-2004 to 13-Mar-2004")  # fmt: skip
    assert not is_misdated("Appendectomy was completed on 12-Mar-2004.", long)
    assert is_misdated("Appendectomy began on 13-Mar-2004.", long)


def test_a_day_that_no_source_has_an_undated_fact_and_a_quotation_are_judged_elsewhere() -> None:
    assert not is_misdated("Acute bronchitis began 05-Feb-2012.", OVER)
    assert not is_misdated(f"Acute bronchitis began {ENDED}.", replace(OVER, when=None))
    assert not is_misdated(f"Acute bronchitis began {ENDED}.", replace(OVER, span=(0, 3)))
    assert is_misdated(f"Acute bronchitis began {ENDED}.", GOUT, OVER)


def test_a_day_told_less_exactly_is_within_the_recorded_one() -> None:
    assert not is_misdated("Acute bronchitis began in February 2012 and ended in 2012.", OVER)
    years = replace(OVER, text="Asthma: resolved, from 2010 to 2012", when=fact("x", on="2010").when,
                    until=fact("x", on="2012").when)  # fmt: skip
    assert is_misdated("Asthma began in 2012.", years)
    assert not is_misdated("Asthma began in 2010 and ended in 2012.", years)
