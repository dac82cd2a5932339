"""Every turn of phrase by which a sentence derives something: borne out where it is so, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.facts import BRONCHITIS, GOUT, LISINOPRIL, fact, record
from service.grounding.check import Judge
from service.grounding.summary import Verdict
from service.record.facts import Fact, FactId, Kind, Status
from tests.unit.grounding.test_derive import HIGH, LAST, LOW, sodium

OVER = replace(BRONCHITIS, until=fact("x", on="2012-02-17").when)
FEVER = replace(
    OVER, text="Fever: resolved, from 03-Feb-2012 to 17-Feb-2012", name="Fever", id=FactId("Condition/f")
)


def judged(text: str, cited: Fact, *others: Fact) -> tuple[Verdict, set[str]]:
    verdict, reasons = Judge("female", record([cited, *others])).verdict(text, [cited])
    return verdict, set(reasons)


def others_of(cited: Fact) -> list[Fact]:
    return [one for one in (LOW, HIGH, LAST) if one is not cited]


LATEST = [
    "As of {day}, sodium was {value} mmol/L.",
    "Sodium was most recently {value} mmol/L on {day}.",
    "The most recent sodium was {value} mmol/L on {day}.",
    "The most up-to-date sodium was {value} mmol/L on {day}.",
    "The most up to date sodium was {value} mmol/L on {day}.",
    "The last recorded sodium was {value} mmol/L on {day}.",
    "The latest sodium was {value} mmol/L on {day}.",
    "The newest sodium was {value} mmol/L on {day}.",
    "The current sodium was {value} mmol/L on {day}.",
    "Sodium was currently {value} mmol/L on {day}.",
    "Sodium was presently {value} mmol/L on {day}.",
    "Sodium was at present {value} mmol/L on {day}.",
    "Sodium was now {value} mmol/L on {day}.",
    "The last sodium was {value} mmol/L on {day}.",
    *(
        f"Sodium was {{value}} mmol/L on {{day}}; no {newer} sodium {told}."
        for newer in ("newer", "later", "more recent", "subsequent")
        for told in ("was recorded", "has been measured", "is on record", "is available", "exists", "exist",
                     "was documented", "has been recorded since")
    ),
    *(
        f"Sodium {verb} {{value}} mmol/L, measured {{day}}."
        for verb in ("is", "has", "reads", "has been")
    ),
    "Her sodium values are {value} mmol/L, measured {day}.",
    "Those who have sodium {value} mmol/L, dated {day}.",
]  # fmt: skip


@pytest.mark.parametrize("form", LATEST)
def test_what_is_told_as_the_latest_is_so_where_nothing_is_newer(form: str) -> None:
    text = form.format(value=140, day="08-Jul-2022")
    assert judged(text, LAST, LOW, HIGH) == (Verdict.SUPPORTED, set())
    overtaken = form.format(value=151, day="06-Mar-2021")
    assert judged(overtaken, HIGH, LOW, LAST) == (Verdict.SUPERSEDED, {"a_newer_one_is_recorded"})


@pytest.mark.parametrize(
    "told", ["no newer potassium was recorded", "no potassium other than that", "no other potassium besides"]
)
def test_what_there_is_no_more_of_is_what_was_told_of(told: str) -> None:
    assert judged(f"Sodium was 140 mmol/L on 08-Jul-2022; {told}.", LAST)[1] == {"word_not_in_source"}


FIRST = [
    *(f"Sodium was first {told} on {{day}}: {{value}} mmol/L." for told in
      "recorded measured documented noted seen obtained checked".split()),
    "The earliest sodium was {value} mmol/L on {day}.",
    "The first ever sodium was {value} mmol/L on {day}.",
    "Sodium was measured for the first time on {day}: {value} mmol/L.",
    "The oldest sodium was {value} mmol/L on {day}.",
    "Sodium was initially {value} mmol/L on {day}.",
    "The initial sodium was {value} mmol/L on {day}.",
    "The first sodium was {value} mmol/L on {day}.",
]  # fmt: skip


@pytest.mark.parametrize("form", FIRST)
def test_what_is_told_as_the_first_is_so_where_nothing_is_older(form: str) -> None:
    text = form.format(value=128, day="05-Jan-2020")
    assert judged(text, LOW, HIGH, LAST) == (Verdict.SUPPORTED, set())
    late = form.format(value=151, day="06-Mar-2021")
    assert judged(late, HIGH, LOW, LAST) == (Verdict.SUPERSEDED, {"an_older_one_is_recorded"})


HIGHEST = [
    *(f"The {told} sodium was {{value}} mmol/L on {{day}}." for told in
      "highest maximum maximal peak greatest largest".split()),
    "Sodium peaked at {value} mmol/L on {day}.",
    "The all-time high of sodium was {value} mmol/L on {day}.",
    "The record high of sodium was {value} mmol/L on {day}.",
    "The sodium high was {value} mmol/L on {day}.",
    "Sodium was at a high, on record, of {value} mmol/L on {day}.",
    "The highest recorded sodium was {value} mmol/L on {day}.",
    "The highest value of sodium was {value} mmol/L on {day}.",
    "The highest recorded value of ever recorded sodium was {value} mmol/L on {day}.",
    "The highest ever recorded sodium was {value} mmol/L on {day}.",
    *(f"Sodium was {{value}} mmol/L on {{day}} and was never {told}." for told in
      ("higher", "above", "over", "greater", "higher than", "been higher", "measured higher",
       "recorded above", "been recorded over", "been measured greater than", "exceeded")),
]  # fmt: skip
LOWEST = [
    *(f"The {told} sodium was {{value}} mmol/L on {{day}}." for told in
      "lowest minimum minimal nadir smallest".split()),
    "The all-time low of sodium was {value} mmol/L on {day}.",
    "The record low of sodium was {value} mmol/L on {day}.",
    "The sodium low was {value} mmol/L on {day}.",
    "The lowest recorded value of sodium was {value} mmol/L on {day}.",
    *(f"Sodium was {{value}} mmol/L on {{day}} and was never {told}." for told in
      ("lower", "below", "under", "less", "lower than", "been lower", "measured lower", "recorded below",
       "been recorded under", "been measured less than")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "cited", "value", "day"),
    [
        *((form, HIGH, 151, "06-Mar-2021") for form in HIGHEST),
        *((form, LOW, 128, "05-Jan-2020") for form in LOWEST),
    ],
)
def test_what_is_told_as_an_extreme_is_so_where_no_value_is_further_out(
    form: str, cited: Fact, value: int, day: str
) -> None:
    assert judged(form.format(value=value, day=day), cited, *others_of(cited)) == (Verdict.SUPPORTED, set())
    other = form.format(value=140, day="08-Jul-2022")
    assert judged(other, LAST, LOW, HIGH) == (Verdict.SUPERSEDED, {"another_value_is_further_out"})


ENTRIES = "values value results result measurements measurement readings reading entry entries".split()
ONES = (
    "value result measurement reading recording record entry one determination observation test occasion"
).split()
BODY = "Sodium was 140 mmol/L on 08-Jul-2022"
ONLY = [
    *(f"{BODY}; no {more}sodium {but} that." for more in ("", "other ", "further ", "additional ", "second ")
      for but in ("other than", "besides", "except", "except for", "apart from", "aside from", "beyond")),
    f"{BODY}; there is no other.",
    f"{BODY}; there are no other.",
    f"{BODY}; no other.",
    *(f"{BODY}; no other {what}." for what in ENTRIES),
    *(f"{BODY}; no other sodium {what} are on record." for what in ENTRIES[:2]),
    *(f"{BODY}; no other values {told}." for told in
      ("is on record", "are recorded", "was available", "were documented", "has been found",
       "have been on record")),
    f"{BODY}: nothing on record than this.".replace("nothing ", ""),
    *(f"{BODY}, {told} nothing.".replace(" nothing", "") for told in
      ("apart from", "aside from", "besides", "except for")),
    *(f"{BODY}; no {more} {what}." for more in
      ("further", "additional", "repeat", "subsequent", "second", "more")
      for what in ("values", "sodium values")),
    *(f"{BODY}; it {told}." for told in
      ("was not repeated", "has never been repeated", "was not measured again", "was never recorded again",
       "has not been checked again", "never repeated", "not been repeated")),
    *(f"The {told} sodium was 140 mmol/L on 08-Jul-2022." for told in
      "only sole single solitary unique lone".split()),
    *(f"The only {what} of sodium was 140 mmol/L on 08-Jul-2022." for what in ONES),
    *(f"The only {told} of sodium was 140 mmol/L on 08-Jul-2022." for told in
      ("one", "single value", "a single value", "single", "a single", "one value")),
    *(f"Sodium was measured {told} on 08-Jul-2022: 140 mmol/L." for told in
      ("once", "only once", "just once", "exactly once", "but once", "once only", "one time",
       "one time only", "but only once")),
    "A single sodium was 140 mmol/L on 08-Jul-2022.",
    "Just a single sodium was 140 mmol/L on 08-Jul-2022.",
    "Exactly one sodium is recorded: 140 mmol/L (08-Jul-2022).",
    "Just one sodium is recorded: 140 mmol/L (08-Jul-2022).",
    "Only one sodium is recorded: 140 mmol/L (08-Jul-2022).",
]  # fmt: skip


@pytest.mark.parametrize("text", ONLY)
def test_what_is_told_as_the_only_one_is_so_where_there_is_no_other(text: str) -> None:
    assert judged(text, LAST) == (Verdict.SUPPORTED, set())
    verdict, reasons = judged(text, LAST, LOW)
    assert (verdict, reasons) == (Verdict.SUPERSEDED, {"others_are_recorded"})


AGES = [
    *(f"Gout is active, since 04-Mar-2011, {told}." for told in
      ("at age {}", "at the age of {}", "at age of {}", "aged {}", "age {}", "age at onset {}", "age at: {}",
       "age of onset {}", "age: {}", "age was {}", "age of {}", "at age {} years", "aged {} yrs",
       "age {} years old", "age {} years of age", "age {} year", "age {} yr", "at age {}-years-old",
       "aged {} y/o", "aged {} yo",
       "at {} years old", "when {} years old", "being {} years of age", "a {}-year-old",
       "as a {} year old", "as an {}-yr-old", "was {}, when diagnosed",
       "at {} years", "when she was {}", "when the patient was {}", "at {} y/o", "at {} yo")),
]  # fmt: skip


@pytest.mark.parametrize("form", AGES)
def test_an_age_is_computed_however_it_is_told(form: str) -> None:
    assert judged(form.format(59), GOUT) == (Verdict.SUPPORTED, set())
    assert "age_is_another" in judged(form.format(58), GOUT)[1]


NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()


@pytest.mark.parametrize(("number", "name"), list(enumerate(NUMBERS, 1)))
def test_numbers_are_read_as_words_too(number: int, name: str) -> None:
    over = replace(OVER, text=f"Acute bronchitis: resolved, from 03-Feb-2012 to {number + 3:02d}-Feb-2012",
                   until=fact("x", on=f"2012-02-{number + 3:02d}").when)  # fmt: skip
    for told in (str(number), name, name.title()):
        assert judged(f"Acute bronchitis lasted {told} days.", over) == (Verdict.SUPPORTED, set())
    assert judged(f"Acute bronchitis lasted {number + 1} days.", over)[1] == {"duration_is_another"}


DURATIONS = [
    *(f"Acute bronchitis, resolved, {told}." for told in
      ("lasted {} days", "lasting {} days", "for {} days", "duration of {} days", "duration was {} days",
       "duration: {} days", "duration {} days", "length of {} days", "length was {} days", "length: {} days",
       "persisted for {} days", "persisting {} days", "persisted {} days", "was {} days", "took {} days",
       "spanning {} days", "spanned {} days", "totaling {} days", "totalling {} days", "a {} days",
       "of {} days",
       "total of {} days", "a total of {} days", "lasted a total of {} days", "lasted {} full days",
       "lasted {}-days", "{} days long", "{} days in duration", "{} days in length", "{} days in total",
       "{} days in all", "{} day", "lasted {} days in total")),
    "Acute bronchitis resolved {} days later.",
    "Acute bronchitis resolved after {} days.",
    "Acute bronchitis resolved {} days after onset on 03-Feb-2012.",
    "Acute bronchitis resolved {} days after its onset on 03-Feb-2012.",
    "Acute bronchitis resolved {} days after the onset on 03-Feb-2012.",
    "Acute bronchitis ended {} days after its onset on 03-Feb-2012 and is resolved.",
]  # fmt: skip


@pytest.mark.parametrize("form", DURATIONS)
def test_a_duration_is_computed_however_it_is_told(form: str) -> None:
    assert judged(form.format(14), OVER) == (Verdict.SUPPORTED, set())
    assert "duration_is_another" in judged(form.format(15), OVER)[1]


def test_a_week_has_seven_days() -> None:
    assert judged("Acute bronchitis lasted 2 weeks.", OVER)[0] is Verdict.SUPPORTED
    assert judged("Acute bronchitis lasted two weeks.", OVER)[0] is Verdict.SUPPORTED
    assert judged("Acute bronchitis lasted 14 weeks.", OVER)[1] == {"duration_is_another"}
    assert judged("Acute bronchitis lasted 1 week.", OVER)[1] == {"duration_is_another"}


STAY = fact(
    "Inpatient stay: finished, from 03-Feb-2012 to 17-Feb-2012", Kind.ENCOUNTER, status=Status.COMPLETED,
    recorded_status="finished", on="2012-02-03", until=fact("x", on="2012-02-17").when,
)  # fmt: skip


@pytest.mark.parametrize(
    "told", ["stay of {} days", "stayed {} days", "length of stay {} days", "length of stay was {} days"]
)
def test_a_stay_is_as_long_as_it_lasted(told: str) -> None:
    assert judged(f"Inpatient stay finished, {told.format(14)}.", STAY) == (Verdict.SUPPORTED, set())
    assert "duration_is_another" in judged(f"Inpatient stay finished, {told.format(15)}.", STAY)[1]


def test_a_stay_ends_so_long_after_the_admission() -> None:
    text = "The inpatient stay finished {} days after admission on 03-Feb-2012."
    assert judged(text.format(14), STAY) == (Verdict.SUPPORTED, set())
    assert "duration_is_another" in judged(text.format(15), STAY)[1]


@pytest.mark.parametrize("told", "active current currently ongoing still continues remains now".split())
def test_what_is_told_as_current_is_not_where_a_newer_entry_ended_it(told: str) -> None:
    newer = replace(LISINOPRIL, id=FactId("MedicationStatement/1"), status=Status.STOPPED,
                    until=fact("x", on="2022-01-01").when)  # fmt: skip
    text = f"Lisinopril 10 mg {told}."
    assert "a_newer_status_is_recorded" not in judged(text, LISINOPRIL)[1]
    assert "a_newer_status_is_recorded" in judged(text, LISINOPRIL, newer)[1]


@pytest.mark.parametrize(
    "status", ["STOPPED", "NOT_DONE", "CANCELLED", "RESOLVED", "REFUTED", "INACTIVE", "COMPLETED"]
)
@pytest.mark.parametrize("cited", [GOUT, LISINOPRIL])
def test_every_status_that_ends_something_ends_it(status: str, cited: Fact) -> None:
    newer = replace(cited, id=FactId("x/newer"), status=Status[status], when=fact("x", on="2023-01-01").when)
    text = f"{cited.name.casefold().replace(' tablet', '')} is active."
    ended = "a_newer_status_is_recorded" in judged(text, cited, newer)[1]
    assert ended is (status != "CANCELLED")
    assert "a_newer_status_is_recorded" not in judged(text, cited, replace(newer, status=Status.PLANNED))[1]


@pytest.mark.parametrize("told", "not never no".split())
def test_what_is_denied_is_not_derived(told: str) -> None:
    text = f"Sodium was {told} the latest 140 mmol/L on 08-Jul-2022.".replace(" the ", " ")
    assert "negation_not_in_source" in judged(text, LAST, LOW, HIGH)[1]


def test_a_denial_of_the_record_itself_denies_nothing_that_is_derived() -> None:
    clear = replace(LAST, text=f"{LAST.text}, not hemolyzed")
    told = "The latest sodium was 140 mmol/L on 08-Jul-2022, not hemolyzed."
    assert judged(told, clear, LOW) == (Verdict.SUPPORTED, set())
    verdict, reasons = judged(
        "Not the latest sodium was 140 mmol/L, hemolyzed.".replace("the ", ""), clear, LOW
    )
    assert "negation_not_in_source" in reasons
    assert verdict is Verdict.CONTRADICTED


@pytest.mark.parametrize(
    "told", "was were had came measured showed reached returned recorded noted found".split()
)
def test_a_value_told_as_past_needs_no_day(told: str) -> None:
    assert judged(f"Sodium {told} 151 mmol/L.", HIGH, LOW, LAST)[1] == set()
    assert judged("Sodium 151 mmol/L.", HIGH, LOW, LAST)[1] == {"a_newer_one_is_recorded"}


PRESENT = (
    "is are has have since remain remains continues continued ongoing still current currently now active"
)


@pytest.mark.parametrize("told", [*PRESENT.split(), "lives", "suffers"])
def test_what_is_over_is_not_told_in_the_present_with_an_age(told: str) -> None:
    assert judged("Acute bronchitis at age 60.", OVER) == (Verdict.SUPPORTED, set())
    assert judged(f"Acute bronchitis {told} at age 60.", OVER)[0] is not Verdict.SUPPORTED


@pytest.mark.parametrize("told", "resolved discharged ended abated cleared finished recovered over".split())
def test_the_age_at_an_end_is_not_computed(told: str) -> None:
    assert "age_not_computable" in judged(f"Acute bronchitis {told} at age 60.", OVER)[1]
    assert "duration_not_computable" not in judged(f"Acute bronchitis {told} 14 days later.", OVER)[1]
    assert "duration_not_computable" in judged("Acute bronchitis resolving 14 days later.", OVER)[1]


def test_a_name_that_holds_such_a_word_derives_nothing() -> None:
    last = fact(
        "Last menstrual period start: 7 d on 08-Jul-2022",
        Kind.RESULT,
        "Observation/lmp",
        status=Status.FINAL,
        recorded_status="final",
        on="2022-07-08",
        value="7",
        unit="d",
    )
    newer = replace(last, id=FactId("Observation/n"), when=fact("x", on="2023-01-01").when)
    assert judged("Last menstrual period start was 7 d on 08-Jul-2022.", last, newer)[0] is Verdict.SUPPORTED
    assert judged("The last last menstrual period start was 7 d on 08-Jul-2022.", last, newer)[1] == {
        "a_newer_one_is_recorded"
    }


def test_a_word_told_of_the_whole_is_told_of_values_alone() -> None:
    assert judged("The latest gout is active, since 04-Mar-2011.", GOUT)[0] is not Verdict.SUPPORTED
    assert sodium("1", "2020-01-05").kind is Kind.RESULT


@pytest.mark.parametrize("told", [*PRESENT.split(), "currentness", "lives", "suffers", "Is", "STILL"])
def test_what_is_told_as_present_does_not_say_that_it_is_over(told: str) -> None:
    assert judged("Acute bronchitis at age 60.", OVER) == (Verdict.SUPPORTED, set())
    assert "status_lost:resolved" in judged(f"Acute bronchitis {told} at age 60.", OVER)[1]
    assert "status_lost:resolved" in judged(f"Acute bronchitis {told} for 14 days.", OVER)[1]
    assert "status_lost:resolved" not in judged(f"Acute bronchitis xx{told}xx at age 60.", OVER)[1]
