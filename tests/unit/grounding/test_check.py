"""What may be published: one table of sentences that are borne out, one of sentences that are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.facts import (
    A1C,
    APPENDECTOMY,
    BRONCHITIS,
    CHOLECYSTECTOMY,
    COLONOSCOPY,
    GOUT,
    LISINOPRIL,
    POTASSIUM,
    PRESSURE,
    SIMVASTATIN,
    SODIUM,
    TROPONIN,
    context,
    fact,
)
from service.context.chosen import Label
from service.grounding.check import Checker, judge
from service.grounding.source import Source
from service.grounding.summary import DraftClaim, Verdict
from service.record.facts import Fact, Kind, Person, Status

WARFARIN = fact(
    "warfarin 2.5mg tablet: active order from 01-May-2020",
    Kind.MEDICATION,
    status=Status.ACTIVE,
    recorded_status="active",
    on="2020-05-01",
)

SUPPORTED: list[tuple[str, list[Fact]]] = [
    ("Gout is active since 04-Mar-2011.", [GOUT]),
    ("The patient has gout, active since March 4, 2011.", [GOUT]),
    ("She has gout, active since Mar 2011.", [GOUT]),
    ("Acute bronchitis is resolved, from 03-Feb-2012 to 17-Feb-2012.", [BRONCHITIS]),
    ("Hemoglobin A1c was 5.8 % (H) on 25-Nov-2020.", [A1C]),
    ("On 2020-11-25 the hemoglobin A1c was 5.8 %.", [A1C]),
    ("Hemoglobin A1c was 5.8 % on 25-Nov-2020, reference 4.0–5.6.", [A1C]),
    ("Troponin I was <0.01 ng/mL on 20-Nov-2026.", [TROPONIN]),
    ("Blood pressure was systolic 127.2 mm[Hg] and diastolic 80.5 mm[Hg] on 19-Jan-1990.", [PRESSURE]),
    ("Lisinopril 10 MG oral tablet is an active order from 04-May-2020.", [LISINOPRIL]),
    ("Warfarin 2.5mg tablet is an active order from 01-May-2020.", [WARFARIN]),
    ("Warfarin 2.5 mg tablet is an active order from 01-May-2020.", [WARFARIN]),
    ("Simvastatin 20 MG oral tablet was stopped, order from 04-May-2018.", [SIMVASTATIN]),
    ("Colonoscopy was not done, patient refused, recorded 12-Mar-2019.", [COLONOSCOPY]),
    (
        "Appendectomy was completed on 12-Mar-2004 and cholecystectomy on 03-May-2010.",
        [APPENDECTOMY, CHOLECYSTECTOMY],
    ),
    ("Sodium was 140 mmol/L and potassium 4.2 mmol/L on 25-Nov-2020.", [SODIUM, POTASSIUM]),
]

REFUSED: list[tuple[str, list[Fact], Verdict, str]] = [
    ("Hemoglobin A1c was 5.9 % on 25-Nov-2020.", [A1C], Verdict.UNSUPPORTED, "number_not_in_source"),
    ("Hemoglobin A1c was 58 % on 25-Nov-2020.", [A1C], Verdict.UNSUPPORTED, "number_not_in_source"),
    ("Hemoglobin A1c was 5.80 % on 25-Nov-2020.", [A1C], Verdict.UNSUPPORTED, "number_not_in_source"),
    ("Hemoglobin A1c was 5.8 mg on 25-Nov-2020.", [A1C], Verdict.UNSUPPORTED, "unit_missing"),
    ("Hemoglobin A1c was 5.8 on 25-Nov-2020.", [A1C], Verdict.UNSUPPORTED, "unit_missing"),
    ("Hemoglobin A1c was 4.0 on 25-Nov-2020.", [A1C], Verdict.UNSUPPORTED, "number_of_something_else"),
    ("Hemoglobin A1c was 5.8 % on 26-Nov-2020.", [A1C], Verdict.UNSUPPORTED, "date_not_in_source"),
    ("Hemoglobin A1c was 5.8 % in Nov 2021.", [A1C], Verdict.UNSUPPORTED, "date_not_in_source"),
    ("Hemoglobin was 5.8 % on 25-Nov-2020.", [A1C], Verdict.UNSUPPORTED, "does_not_name:result"),
    ("Troponin I was 0.01 ng/mL on 20-Nov-2026.", [TROPONIN], Verdict.UNSUPPORTED, "number_not_in_source"),
    ("Troponin I was >0.01 ng/mL on 20-Nov-2026.", [TROPONIN], Verdict.UNSUPPORTED, "number_not_in_source"),
    (
        "Blood pressure was diastolic 127.2 mm[Hg] and systolic 80.5 mm[Hg] on 19-Jan-1990.",
        [PRESSURE],
        Verdict.UNSUPPORTED,
        "number_of_something_else",
    ),
    (
        "Potassium was 140 mmol/L and sodium 4.2 mmol/L on 25-Nov-2020.",
        [SODIUM, POTASSIUM],
        Verdict.UNSUPPORTED,
        "number_of_something_else",
    ),
    (
        "Appendectomy was completed on 03-May-2010 and cholecystectomy on 12-Mar-2004.",
        [APPENDECTOMY, CHOLECYSTECTOMY],
        Verdict.UNSUPPORTED,
        "date_of_something_else",
    ),
    (
        "On 03-May-2010 an appendectomy, on 12-Mar-2004 a cholecystectomy was completed.",
        [APPENDECTOMY, CHOLECYSTECTOMY],
        Verdict.NOT_CHECKED,
        "whose_value_is_unclear",
    ),
    ("The patient has acute bronchitis.", [BRONCHITIS], Verdict.CONTRADICTED, "status_lost:resolved"),
    ("Acute bronchitis is active.", [BRONCHITIS], Verdict.CONTRADICTED, "status_not_in_source:active"),
    ("Gout is resolved.", [GOUT], Verdict.CONTRADICTED, "status_not_in_source:resolved"),
    ("No gout.", [GOUT], Verdict.CONTRADICTED, "negation_not_in_source"),
    ("Colonoscopy was done, recorded 12-Mar-2019.", [COLONOSCOPY], Verdict.CONTRADICTED, "negation_lost"),
    ("Colonoscopy on 12-Mar-2019.", [COLONOSCOPY], Verdict.CONTRADICTED, "status_lost:not_done"),
    (
        "Simvastatin 20 MG oral tablet from 04-May-2018.",
        [SIMVASTATIN],
        Verdict.CONTRADICTED,
        "status_lost:stopped",
    ),
    (
        "Lisinopril 20 MG oral tablet is an active order.",
        [LISINOPRIL],
        Verdict.UNSUPPORTED,
        "number_not_in_source",
    ),
    (
        "Warfarin 7.5mg tablet is an active order from 01-May-2020.",
        [WARFARIN],
        Verdict.UNSUPPORTED,
        "number_not_in_source",
    ),
    (
        "Warfarin 5mg tablet is an active order from 01-May-2020.",
        [WARFARIN],
        Verdict.UNSUPPORTED,
        "number_not_in_source",
    ),
    (
        "Warfarin 2.5g tablet is an active order from 01-May-2020.",
        [WARFARIN],
        Verdict.UNSUPPORTED,
        "unit_not_in_source",
    ),
    ("Gout is active since 2011-13-45.", [GOUT], Verdict.UNSUPPORTED, "number_not_in_source"),
    ("Gout is active since 04-Apr-2011.", [GOUT], Verdict.UNSUPPORTED, "date_not_in_source"),
    ("Gout began three years ago.", [GOUT], Verdict.UNSUPPORTED, "relative_date"),
    ("Gout is active today.", [GOUT], Verdict.UNSUPPORTED, "relative_date"),
    ("Severe gout is active since 04-Mar-2011.", [GOUT], Verdict.NOT_CHECKED, "word_not_in_source"),
    ("Gout is active due to diet.", [GOUT], Verdict.NOT_CHECKED, "word_not_in_source"),
    (
        "Lisinopril 10 MG oral tablet for hypertension.",
        [LISINOPRIL],
        Verdict.NOT_CHECKED,
        "word_not_in_source",
    ),
    ("The latest hemoglobin A1c was 5.8 %.", [A1C], Verdict.NOT_CHECKED, "word_not_in_source"),
    ("He has gout, active since 04-Mar-2011.", [GOUT], Verdict.NOT_CHECKED, "word_not_in_source"),
    ("Gout should be treated.", [GOUT], Verdict.NOT_CHECKED, "word_not_in_source"),
    (
        "Gout is active and acute bronchitis resolved.",
        [GOUT, BRONCHITIS],
        Verdict.NOT_CHECKED,
        "whose_status_is_unclear",
    ),
    ("Gout is active since 04-Mar-2011.", [GOUT, A1C], Verdict.UNSUPPORTED, "does_not_name:result"),
    ("gout " * 200, [GOUT], Verdict.NOT_CHECKED, "too_long"),
]


def verdict_of(text: str, facts: list[Fact], gender: str = "female") -> tuple[Verdict, tuple[str, ...]]:
    claim = Checker(context(facts, gender=gender)).check(
        DraftClaim("problems", text, tuple(Label(f"F{n}") for n in range(1, len(facts) + 1)))
    )
    return claim.verdict, claim.reasons


@pytest.mark.parametrize(("text", "facts"), SUPPORTED)
def test_a_sentence_that_its_sources_bear_out_is_supported(text: str, facts: list[Fact]) -> None:
    assert verdict_of(text, facts) == (Verdict.SUPPORTED, ())


@pytest.mark.parametrize(("text", "facts", "verdict", "reason"), REFUSED)
def test_a_sentence_that_says_something_else_is_refused(
    text: str, facts: list[Fact], verdict: Verdict, reason: str
) -> None:
    found, reasons = verdict_of(text, facts)
    assert reason in reasons
    assert found is verdict


def test_a_claim_without_a_citation_is_refused() -> None:
    claim = Checker(context([GOUT])).check(DraftClaim("problems", "Gout is active.", ()))
    assert (claim.verdict, claim.reasons) == (Verdict.UNSUPPORTED, ("cites_nothing",))


def test_a_citation_that_does_not_exist_is_refused_even_beside_a_right_one() -> None:
    draft = DraftClaim("problems", "Gout is active since 04-Mar-2011.", (Label("F1"), Label("F9")))
    claim = Checker(context([GOUT])).check(draft)
    assert (claim.verdict, claim.reasons) == (Verdict.UNSUPPORTED, ("cites_unknown_label",))


def test_a_right_value_under_the_wrong_label_gets_its_citation_corrected_and_marked() -> None:
    draft = DraftClaim("results", "Sodium was 140 mmol/L on 25-Nov-2020.", (Label("F1"),))
    claim = Checker(context([A1C, SODIUM])).check(draft)
    assert (claim.verdict, claim.citations, claim.corrected) == (Verdict.SUPPORTED, (SODIUM.id,), True)


def test_a_citation_is_not_corrected_when_two_facts_match() -> None:
    again = fact(
        SODIUM.text, Kind.RESULT, "Observation/again", status=Status.FINAL, on="2020-11-25", value="140"
    )
    draft = DraftClaim("results", "Sodium was 140 mmol/L on 25-Nov-2020.", (Label("F1"),))
    claim = Checker(context([A1C, SODIUM, again])).check(draft)
    assert (claim.verdict, claim.corrected) == (Verdict.UNSUPPORTED, False)


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("Gout is active since 04-Mar-2011.", A1C, GOUT),  # a status
        ("Colonoscopy was not done (patient refused), recorded 12-Mar-2019.", A1C, COLONOSCOPY),  # a negation
        ("Sodium was 140 mmol/L.", A1C, SODIUM),  # undated
        ("Lisinopril 10 MG oral tablet is an active order from 04-May-2020.", A1C, LISINOPRIL),  # no value
    ],
)
def test_a_status_a_negation_or_an_undated_claim_is_never_corrected(
    text: str, wrong: Fact, right: Fact
) -> None:
    claim = Checker(context([wrong, right])).check(DraftClaim("problems", text, (Label("F1"),)))
    assert claim.verdict is not Verdict.SUPPORTED
    assert not claim.corrected


def test_a_sentence_said_twice_is_published_once() -> None:
    checker = Checker(context([GOUT]))
    draft = DraftClaim("problems", "Gout is active since 04-Mar-2011.", (Label("F1"),))
    assert checker.check(draft).verdict is Verdict.SUPPORTED
    again = checker.check(draft)
    assert (again.verdict, again.reasons) == (Verdict.NOT_CHECKED, ("said_before",))


def test_a_relatives_illness_is_not_the_patients() -> None:
    mothers = fact(
        "Family history, mother: breast cancer",
        Kind.FAMILY_HISTORY,
        name="breast cancer",
        person=Person("relative", "mother"),
    )
    assert verdict_of("The patient has breast cancer.", [mothers])[1] == ("another_person",)
    for said in (
        "Family history: mother breast cancer.",
        "The patient's mother had breast cancer.",
        "The patient has a mother with breast cancer.",
        "She has a family history of breast cancer (mother).",
    ):
        assert verdict_of(said, [mothers])[0] is Verdict.SUPPORTED, said
    for said in (
        "The patient and her mother have breast cancer.",
        "She has breast cancer; her mother has it.",
        "The patient has breast cancer from her mother.",
    ):
        assert "another_person" in verdict_of(said, [mothers])[1], said


def test_a_suspected_diagnosis_is_not_said_to_be_certain() -> None:
    suspected = fact("Pulmonary embolism: active, suspected", certainty="suspected", status=Status.ACTIVE)
    assert "certainty_lost" in verdict_of("Pulmonary embolism is active.", [suspected])[1]
    assert verdict_of("Pulmonary embolism is active, suspected.", [suspected])[0] is Verdict.SUPPORTED


@given(st.text(max_size=80))
def test_judging_never_raises_and_never_supports_text_without_the_facts_name(text: str) -> None:
    faults = list(judge(text, [Source(A1C)], ""))
    if "a1c" not in text.casefold():
        assert faults


@given(
    st.decimals(min_value=0, max_value=999, places=1).filter(
        lambda value: str(value) not in ("5.8", "4.0", "5.6")
    )
)
def test_no_other_number_is_ever_supported(value: object) -> None:
    assert list(judge(f"Hemoglobin A1c was {value} % on 25-Nov-2020.", [Source(A1C)], ""))
