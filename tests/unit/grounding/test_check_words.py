"""The judge word by word: who is spoken of, what kind of thing it is, signs, pronouns, days beside values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.facts import A1C, BRONCHITIS, GOUT, LISINOPRIL, PRESSURE, SODIUM, context, fact, record
from service.context.chosen import Label
from service.grounding.check import MAX_CHARACTERS, Checker, Judge, judge
from service.grounding.source import Source
from service.grounding.summary import DraftClaim, Origin, Verdict
from service.record.facts import Fact, FactId, Kind, Person, Status

MOTHERS = fact("Family history, mother: breast cancer", Kind.FAMILY_HISTORY, name="breast cancer",
               person=Person("relative", "mother"))  # fmt: skip
PARTS = (("systolic", "127.2 mm[Hg]"), ("diastolic", "80.5 mm[Hg]"))
BP = replace(PRESSURE, details=PARTS)


def codes(text: str, *cited: Fact, gender: str = "female") -> set[str]:
    return {reason for _, reason in judge(text, [Source(one) for one in cited], gender)}


RELATIVES = (
    "mother father sister brother son daughter aunt uncle cousin grandmother grandfather parent sibling "
    "maternal paternal"
).split()


@pytest.mark.parametrize("word", RELATIVES)
def test_an_illness_of_one_relative_is_not_said_of_another(word: str) -> None:
    persons = replace(MOTHERS, text=f"Family history, {word}: breast cancer", person=Person("relative", word))
    assert "another_person" not in codes(f"Family history: {word}, breast cancer.", persons)
    assert "another_person" in codes("Family history: breast cancer.", persons)
    other = "mother" if word != "mother" else "father"
    assert "another_person" in codes(f"Family history: {word} and {other}, breast cancer.", persons)
    assert "another_person" in codes(f"Family history: {word}, breast cancer ({other}).", persons)
    several = replace(persons, name="colon cancer", text=f"Family history, {word}: colon cancer")
    both = f"Family history: {word}, breast cancer; {word}, colon cancer."
    assert "another_person" not in codes(both, persons, several)


def test_a_relative_of_several_words_is_told_once() -> None:
    aunt = replace(
        MOTHERS,
        text="Family history, maternal aunt: breast cancer",
        person=Person("relative", "maternal aunt"),
    )
    assert "another_person" not in codes("Family history: maternal aunt, breast cancer.", aunt)
    assert "another_person" not in codes("Family history: aunt, breast cancer.", aunt)
    assert "another_person" in codes("Family history: maternal aunt and uncle, breast cancer.", aunt)
    assert "another_person" in codes("Breast cancer of the mother.", aunt)
    assert Judge("").verdict("Breast cancer.", [aunt])[0] is Verdict.CONTRADICTED


@pytest.mark.parametrize("who", ["The patient", "He", "she", "They"])
@pytest.mark.parametrize(
    "what", ["and", "or", "also", "is", "was", "suffers", "suffered", "developed", "experienced", "diagnosed",
             "has", "had", "have", "has a", "has an odd"]
)  # fmt: skip
def test_what_a_relative_has_is_not_said_of_the_patient_too(who: str, what: str) -> None:
    assert "another_person" in codes(f"{who} {what} breast cancer, mother.", MOTHERS)


@pytest.mark.parametrize(
    "relation",
    "family relative mother father sister brother son daughter aunt uncle cousin grandmother "
    "grandson sibling parent".split(),
)
@pytest.mark.parametrize("what", ["has a {}", "had an {}", "have {}", "has a very old {}"])
def test_who_has_a_relative_has_not_their_illness(relation: str, what: str) -> None:
    persons = replace(
        MOTHERS, person=Person("relative", relation), text=f"Family history, {relation}: breast cancer"
    )
    assert "another_person" not in codes(f"The patient {what.format(relation)} with breast cancer.", persons)
    assert "another_person" in codes(f"The patient has breast cancer of a {relation}.", persons)


def test_whose_mother_it_is_may_not_turn_the_sentence() -> None:
    assert "another_person" in codes("The patient, whose mother died, breast cancer.", MOTHERS)
    assert "another_person" not in codes("The mother, whose daughter is known, breast cancer.", replace(
        MOTHERS, person=Person("relative", "mother daughter")))  # fmt: skip
    assert codes("The patient has gout, active.", GOUT) == set()


FLU = fact("Influenza vaccine: completed on 01-Oct-2020", Kind.IMMUNIZATION, status=Status.COMPLETED,
           recorded_status="completed", on="2020-10-01", name="Influenza")  # fmt: skip


@pytest.mark.parametrize(
    "word", ["vaccine", "vaccinated", "immunized", "immunization", "shot", "jab", "dose", "injection",
             "administered", "given", "received", "not done", "completed on", "Vaccination"]
)  # fmt: skip
def test_a_vaccine_is_told_from_its_disease(word: str) -> None:
    assert "does_not_name:immunization" not in codes(f"Influenza {word} 01-Oct-2020.", FLU)
    assert "does_not_name:immunization" in codes("Influenza completed, 01-Oct-2020.", FLU)


@pytest.mark.parametrize("word", ["goal", "target", "aim", "aims", "Goal"])
def test_a_goal_is_told_from_a_result(word: str) -> None:
    goal = fact("Weight goal: 70 kg", Kind.GOAL, status=Status.ACTIVE, name="Weight")
    assert "does_not_name:goal" not in codes(f"Weight {word} 70 kg.", goal)
    assert "does_not_name:goal" in codes("Weight 70 kg.", goal)
    assert "does_not_name:goal" in codes(f"Weight xx{word} 70 kg.", goal)


def test_an_allergy_is_told_where_the_record_calls_it_one() -> None:
    allergy = fact("Peanut allergy: active", Kind.ALLERGY, status=Status.ACTIVE)
    intolerance = fact("Peanut: active, intolerance", Kind.ALLERGY, status=Status.ACTIVE)
    assert "does_not_name:allergy" not in codes("Allergic to peanut allergy, active.", allergy)
    assert "does_not_name:allergy" in codes("Allergic to peanut, active.", intolerance)
    assert "does_not_name:allergy" in codes("Peanut Allergy, active.", intolerance)
    assert "does_not_name:allergy" not in codes("Peanut intolerance, active.", intolerance)
    assert "does_not_name:problem" not in codes("Gout is active, allergic.", GOUT)


@pytest.mark.parametrize(
    "written",
    ["127.2/80.5 mmHg", "127.2/80.5 mm Hg", "127.2 / 80.5 mm[Hg]", "127.2/80.5mmHg", "127.2/80.5 MMHG"],
)
def test_a_blood_pressure_is_read_with_a_stroke(written: str) -> None:
    assert codes(f"Blood pressure was {written} on 19-Jan-1990.", BP) == set()
    assert codes(f"Blood pressure was {written} on 19-Jan-1990.", PRESSURE) != set()
    swapped = written.replace("80.5", "x").replace("127.2", "80.5").replace("x", "127.2")
    assert codes(f"Blood pressure was {swapped} on 19-Jan-1990.", BP) != set()


@pytest.mark.parametrize(
    "written", ["127.2/80.5", "1/127.2/80.5 mmHg", "127.2/80.5/3 mmHg", "127.2-80.5 mmHg", "127.2/80.5 kPa"]
)
def test_what_is_no_blood_pressure_is_not_read_as_one(written: str) -> None:
    assert codes(f"Blood pressure was {written} on 19-Jan-1990.", BP) != set()


def test_a_blood_pressure_of_two_or_three_digits_is_one() -> None:
    low = fact("Blood pressure: systolic 98 mm[Hg], diastolic 100 mm[Hg]", Kind.VITAL, status=Status.FINAL,
               details=(("systolic", "98 mm[Hg]"), ("diastolic", "100 mm[Hg]")))  # fmt: skip
    assert codes("Blood pressure was 98/100 mmHg.", low) == set()
    tiny = fact("Blood pressure: systolic 9 mm[Hg], diastolic 1000 mm[Hg]", Kind.VITAL, status=Status.FINAL,
                details=(("systolic", "9 mm[Hg]"), ("diastolic", "1000 mm[Hg]")))  # fmt: skip
    assert codes("Blood pressure was 9/1000 mmHg.", tiny) != set()


@pytest.mark.parametrize("sign", "–—“”„«»‘’…·•°×")
def test_plain_punctuation_says_nothing(sign: str) -> None:
    assert "sign_not_in_source" not in codes(f"Gout {sign} active.", GOUT)


@pytest.mark.parametrize("sign", "µ≤≥")
def test_signs_of_measures_are_plain(sign: str) -> None:
    assert "sign_not_in_source" not in codes(f"Gout {sign}x active.", GOUT)


@pytest.mark.parametrize("sign", "¬−≠→↑↓①４ⅷ\u0336\u200b\x07№²")
def test_another_sign_says_something(sign: str) -> None:
    assert "sign_not_in_source" in codes(f"Gout {sign} active.", GOUT)
    assert "sign_not_in_source" not in codes(
        f"Gout {sign} active.", replace(GOUT, text=f"{GOUT.text} {sign}")
    )


def test_letters_of_any_language_are_plain() -> None:
    assert "sign_not_in_source" not in codes("Gout é ß ж 病 active.", GOUT)


@pytest.mark.parametrize("sign", "–—?!=^|&~")
def test_a_sign_right_before_a_number_is_one_of_the_source(sign: str) -> None:
    for told in (f"{sign}140", f"{sign} 140"):
        assert "sign_not_in_source" in codes(f"Sodium was {told} mmol/L.", SODIUM)
        marked = replace(SODIUM, text=f"Sodium: {told} mmol/L on 25-Nov-2020")
        assert "sign_not_in_source" not in codes(f"Sodium was {told} mmol/L.", marked)
    for before in ("x", ")", "]"):
        assert "sign_not_in_source" not in codes(f"Sodium was {before}{sign}140 mmol/L.", SODIUM)
    assert "sign_not_in_source" not in codes(f"Sodium {sign} was 140 mmol/L.", SODIUM)


@pytest.mark.parametrize(
    ("gender", "own"),
    [("female", {"she", "her", "hers"}), ("male", {"he", "his", "him"}), ("other", set()), ("", set())],
)
def test_a_pronoun_fits_the_patient(gender: str, own: set[str]) -> None:
    for word in ("she", "her", "hers", "he", "his", "him", "they", "their"):
        expected = set() if word in own | {"they", "their"} else {"word_not_in_source"}
        assert codes(f"Gout, {word}, is active.", GOUT, gender=gender) == expected


def test_a_sentence_is_checked_up_to_its_greatest_length() -> None:
    text = "Gout is active.".ljust(MAX_CHARACTERS)
    assert MAX_CHARACTERS == 600
    assert codes(text, GOUT) == set()
    assert codes(f"{text} ", GOUT) == {"too_long"}
    assert Judge("").verdict(f"{text} ", [GOUT]) == (Verdict.NOT_CHECKED, ("too_long",))


def test_the_worst_of_several_faults_is_the_verdict_and_every_reason_is_told_once() -> None:
    verdict, reasons = Judge("").verdict("No gout since 05-Mar-2011 with pain, ache.", [GOUT])
    assert verdict is Verdict.CONTRADICTED
    assert len(reasons) == len(set(reasons))
    assert {"negation_not_in_source", "date_not_in_source", "word_not_in_source"} <= set(reasons)
    unsupported = Judge("").verdict("Gout since 05-Mar-2011, ache.", [GOUT])
    assert unsupported == (Verdict.UNSUPPORTED, ("date_not_in_source", "word_not_in_source"))
    newer = replace(SODIUM, id=FactId("Observation/n"), when=fact("x", on="2022-01-01").when)
    whole = Judge("", record([SODIUM, newer]))
    assert whole.verdict("The latest sodium was 141 mmol/L.", [SODIUM])[0] is Verdict.SUPERSEDED
    assert whole.verdict("No latest sodium was 140 mmol/L.", [SODIUM])[0] is not Verdict.NOT_CHECKED
    assert whole.verdict("The past 3 weeks sodium was 140 mmol/L.", [SODIUM])[1].count("relative_date") == 1


PLAN = fact(
    "Diabetes plan: active, from 01-May-2020 to 01-Jun-2020",
    Kind.PLAN,
    "CarePlan/1",
    status=Status.ACTIVE,
    recorded_status="active",
    on="2020-05-01",
    until=fact("x", on="2020-06-01").when,
)
DIET = fact("Diet: active; plan: Diabetes plan", Kind.PLAN, "CarePlan/1#a1", status=Status.ACTIVE,
            recorded_status="active", details=(("plan", "Diabetes plan"),))  # fmt: skip


def test_an_activity_has_the_days_of_its_plan() -> None:
    text = "Diet is active, from 01-May-2020 to 01-Jun-2020 (diabetes plan)."
    whole = record([PLAN, DIET])
    assert Judge("", whole).verdict(text, [DIET]) == (Verdict.SUPPORTED, ())
    assert Judge("", whole).verdict(text.replace("Jun", "Jul"), [DIET])[0] is not Verdict.SUPPORTED
    assert Judge("").verdict(text, [DIET])[0] is not Verdict.SUPPORTED
    for other in (
        replace(PLAN, name="Another plan"),
        replace(PLAN, when=None),
        replace(PLAN, source=replace(PLAN.source, reference="CarePlan/2")),
    ):
        assert Judge("", record([other, DIET])).verdict(text, [DIET])[0] is not Verdict.SUPPORTED
    open_end = Judge("", record([replace(PLAN, until=None), DIET]))
    assert (
        open_end.verdict("Diet is active, from 01-May-2020 (diabetes plan).", [DIET])[0] is Verdict.SUPPORTED
    )
    assert open_end.verdict(text, [DIET])[0] is not Verdict.SUPPORTED
    dated = replace(DIET, when=fact("x", on="2019-01-01").when)
    assert Judge("", whole).verdict(text, [dated])[0] is not Verdict.SUPPORTED
    kind = replace(DIET, kind=Kind.FLAG)
    assert Judge("", record([PLAN, kind])).verdict(text, [kind])[0] is not Verdict.SUPPORTED


OTHER = replace(SODIUM, id=FactId("Observation/o"), text="Sodium: 150 mmol/L on 26-Nov-2020",
                when=fact("x", on="2020-11-26").when)  # fmt: skip


def test_several_values_of_one_thing_each_stand_with_their_day() -> None:
    assert codes("Sodium was 140 mmol/L and 150 mmol/L.", SODIUM, OTHER) >= {"value_of_another_day"}
    right = "Sodium was 140 mmol/L on 25-Nov-2020 and sodium 150 mmol/L on 26-Nov-2020."
    assert "value_of_another_day" not in codes(right, SODIUM, OTHER)
    wrong = "Sodium was 150 mmol/L on 25-Nov-2020 and sodium 140 mmol/L on 26-Nov-2020."
    assert "value_of_another_day" in codes(wrong, SODIUM, OTHER)
    lead = "On 25-Nov-2020 sodium was 140 mmol/L, on 26-Nov-2020 sodium 150 mmol/L."
    assert "value_of_another_day" not in codes(lead, SODIUM, OTHER)
    crossed = "On 25-Nov-2020 sodium was 150 mmol/L, on 26-Nov-2020 sodium 140 mmol/L."
    assert "value_of_another_day" in codes(crossed, SODIUM, OTHER)
    assert "value_of_another_day" not in codes("Sodium.", SODIUM, OTHER)
    potassium = fact("Potassium: 4 mmol/L on 26-Nov-2020", Kind.RESULT)
    assert "value_of_another_day" not in codes(
        "Sodium was 140 mmol/L, potassium 4 mmol/L.", SODIUM, potassium
    )
    assert "value_of_another_day" not in codes("Sodium was 140 mmol/L.", SODIUM, LISINOPRIL)
    assert "value_of_another_day" not in codes("Sodium was 999 mmol/L on 25-Nov-2020.", SODIUM, OTHER)


def test_a_number_that_no_words_tie_to_a_fact_is_that_of_the_one_before() -> None:
    potassium = fact("Potassium: 4.2 mmol/L on 25-Nov-2020", Kind.RESULT)
    assert "whose_value_is_unclear" not in codes(
        "Sodium 140 mmol/L, potassium 4.2 mmol/L.", SODIUM, potassium
    )
    assert "whose_value_is_unclear" in codes("140 mmol/L sodium, potassium 4.2 mmol/L.", SODIUM, potassium)
    assert "whose_value_is_unclear" in codes("Sodium, potassium 4.2 mmol/L, 140 mmol/L.", SODIUM, potassium)
    assert "whose_value_is_unclear" not in codes("25-Nov-2020: sodium 140 mmol/L, potassium 4.2 mmol/L.",
                                                 SODIUM, potassium)  # fmt: skip
    assert codes("140 mmol/L was the sodium.", SODIUM) == set()


def corrected(text: str, *facts: Fact, labels: tuple[str, ...] = ("F1",)) -> bool:
    claim = Checker(context(facts)).check(DraftClaim("results", text, tuple(map(Label, labels))))
    return claim.corrected and claim.verdict is Verdict.SUPPORTED


def test_a_citation_is_corrected_for_a_value_a_unit_and_a_whole_day_alone() -> None:
    text = "Sodium was 140 mmol/L on 25-Nov-2020."
    assert corrected(text, A1C, SODIUM)
    assert not corrected(text, A1C, SODIUM, labels=("F1", "F9"))
    assert not corrected(text.replace("25-Nov", "Nov"), A1C, SODIUM)
    assert not corrected("Sodium was measured on 25-Nov-2020.", A1C, SODIUM)
    assert not corrected(text, A1C, replace(SODIUM, quantity=None))
    assert not corrected(text, A1C, replace(SODIUM, when=None))
    assert not corrected(f"No {text}", A1C, SODIUM)
    assert not corrected(text.replace("140", "141"), A1C, SODIUM)
    assert not corrected(text, SODIUM, A1C)
    assert corrected(text, A1C, OTHER, SODIUM, GOUT)


def test_the_same_sentence_with_another_value_is_another_one() -> None:
    checker = Checker(context([SODIUM, OTHER]))
    for text, label, verdict in (
        ("Sodium was 140 mmol/L on 25-Nov-2020.", "F1", Verdict.SUPPORTED),
        ("Sodium was 150 mmol/L on 26-Nov-2020.", "F2", Verdict.SUPPORTED),
        ("sodium WAS 150 mmol/L on 2020-11-26", "F2", Verdict.NOT_CHECKED),
        ("Sodium was 150 mmol/L on 25-Nov-2020.", "F2", Verdict.UNSUPPORTED),
    ):
        assert checker.check(DraftClaim("results", text, (Label(label),))).verdict is verdict


def test_what_a_draft_says_of_the_whole_is_checked_against_the_whole_record() -> None:
    draft = DraftClaim("results", "The latest sodium was 140 mmol/L on 25-Nov-2020.", (Label("F1"),))
    shown = context([SODIUM])
    assert Checker(shown, record([SODIUM])).check(draft).verdict is Verdict.SUPPORTED
    assert Checker(shown, record([SODIUM, OTHER])).check(draft).verdict is Verdict.SUPERSEDED
    assert Checker(shown).check(draft).verdict is Verdict.NOT_CHECKED


def test_an_activity_whose_plan_is_not_in_the_record_has_no_days() -> None:
    alone = Judge("", record([GOUT]))
    assert alone.verdict("Diet is active (diabetes plan).", [DIET]) == (Verdict.SUPPORTED, ())
    assert alone.verdict("Diet is active, from 01-May-2020 (diabetes plan).", [DIET])[1] == (
        "date_not_in_source", "word_not_in_source",
    )  # fmt: skip


def test_an_activity_began_on_the_first_day_of_its_plan_and_not_on_the_last() -> None:
    whole = Judge("", record([PLAN, DIET]))
    begun = "Diet is active, from {} (diabetes plan)."
    assert whole.verdict(begun.format("01-May-2020"), [DIET]) == (Verdict.SUPPORTED, ())
    assert whole.verdict(begun.format("01-Jun-2020"), [DIET])[1] == ("date_of_something_else",)


def test_every_fault_of_a_sentence_is_told_and_not_the_first_alone() -> None:
    potassium = fact("Potassium: 4.2 mmol/L on 25-Nov-2020", Kind.RESULT)
    told = codes("140 mmol/L sodium, potassium 9.9 mmol/L on 26-Nov-2020.", SODIUM, potassium)
    assert told >= {"whose_value_is_unclear", "number_not_in_source", "date_not_in_source"}
    assert codes("Gout 7, since 05-Mar-2011.", GOUT) >= {"number_not_in_source", "date_not_in_source"}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Sodium was 141 mmol/L.", "number_not_in_source"),
        ("Sodium was 140.", "unit_missing"),
        ("Sodium was 140mg.", "unit_not_in_source"),
        ("Sodium was 140 mmol/L on 26-Nov-2020.", "date_not_in_source"),
        ("Sodium was 140 mmol/L on 25-Nov-2020.", ""),
    ],
)
def test_what_is_wrong_with_a_value_is_told(said: str, reason: str) -> None:
    assert codes(said, SODIUM) == ({reason} if reason else set())


def test_a_value_or_a_day_beside_words_of_another_is_that_of_something_else() -> None:
    assert codes("Diastolic 127.2 mm[Hg] blood pressure.", PRESSURE) == {"number_of_something_else"}
    first = fact("Sodium: recorded 3 times, first 01-May-2020, latest 02-May-2021", Kind.RESULT)
    assert "date_of_something_else" in codes("Sodium: latest 01-May-2020.", first)


@pytest.mark.parametrize("character", [chr(code) for code in range(32, 127)])
def test_every_plain_character_says_nothing_by_itself(character: str) -> None:
    assert "sign_not_in_source" not in codes(f"Gout {character} active.", GOUT)


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f"])
def test_a_character_that_nobody_sees_says_something(character: str) -> None:
    assert "sign_not_in_source" in codes(f"Gout {character} active.", GOUT)


def test_a_claim_says_whether_its_citation_was_corrected() -> None:
    checker = Checker(context([A1C, SODIUM]))
    text = "Sodium was 140 mmol/L on 25-Nov-2020."
    wrong = checker.check(DraftClaim("results", text, (Label("F1"),)))
    assert (wrong.corrected, wrong.citations, wrong.reasons) == (True, (SODIUM.id,), ())
    right = Checker(context([A1C, SODIUM])).check(DraftClaim("results", text, (Label("F2"),)))
    assert (right.corrected, right.citations, right.reasons) == (False, (SODIUM.id,), ())
    assert (right.section, right.text, right.origin) == ("results", text, Origin.MODEL)
    refused = checker.check(DraftClaim("results", "Sodium was 141 mmol/L.", (Label("F2"),)))
    assert (refused.corrected, refused.verdict) == (False, Verdict.UNSUPPORTED)


def test_a_citation_that_two_facts_could_mend_is_not_corrected() -> None:
    again = replace(SODIUM, id=FactId("Observation/again"))
    assert corrected("Sodium was 140 mmol/L on 25-Nov-2020.", A1C, SODIUM)
    assert not corrected("Sodium was 140 mmol/L on 25-Nov-2020.", A1C, SODIUM, again)


def test_what_is_not_present_is_what_the_record_calls_so() -> None:
    bare = fact("Gout: active, no", status=Status.ACTIVE, recorded_status="active")
    assert "negation_of_something_else" not in codes("Gout is active, no.", bare)
    assert "negation_of_something_else" in codes("Gout is active, not present.", bare)


def test_a_duration_told_from_today_is_relative_though_it_is_computed() -> None:
    over = replace(BRONCHITIS, until=fact("x", on="2012-02-17").when)
    whole = Judge("", record([over]))
    assert whole.verdict("Acute bronchitis lasted 2 weeks.", [over]) == (Verdict.SUPPORTED, ())
    assert "relative_date" in whole.verdict("Acute bronchitis, in the past 2 weeks, resolved.", [over])[1]
