"""Labels that stand for a row, a trend or a digest: a sentence is judged against what it names alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from fixtures.facts import APPENDECTOMY, CHOLECYSTECTOMY, GOUT, LISINOPRIL, POTASSIUM, SODIUM, context, fact
from service.context.chosen import Label
from service.grounding.check import Checker
from service.grounding.summary import Claim, DraftClaim, Verdict
from service.record.facts import Fact, Kind, Status

ROW, OTHER = Label("R@25-Nov-2020"), Label("R@26-Nov-2020")


def measured(name: str, value: str, on: str = "25-Nov-2020", fact_id: str = "", unit: str = "mg/dL") -> Fact:
    iso = {"25-Nov-2020": "2020-11-25", "26-Nov-2020": "2020-11-26", "27-Nov-2020": "2020-11-27"}[on]
    fact_id = fact_id or f"Observation/{name}-{value}-{on}".replace(" ", "-")
    return fact(
        f"{name}: {value} {unit} on {on}", Kind.RESULT, fact_id,
        status=Status.FINAL, on=iso, value=value, unit=unit,
    )  # fmt: skip


GLUCOSE = measured("Glucose", "100")
EVENING = measured("Glucose", "140")
NEXT_DAY = measured("Glucose", "120", "26-Nov-2020")
THIRD_DAY = measured("Glucose", "100", "27-Nov-2020")
URINE = measured("Glucose in Urine", "15")
CREATININE = measured("Creatinine", "1.2")
MORNING = (GLUCOSE, URINE, CREATININE)
TREND = (GLUCOSE, NEXT_DAY, THIRD_DAY)


def checked(text: str, group: Sequence[Fact], label: Label = ROW, *labels: Label) -> Claim:
    shown = replace(context([]), cites={ROW: tuple(group), OTHER: (NEXT_DAY,)})
    return Checker(shown).check(DraftClaim("results", text, (label, *labels)))


SUPPORTED: list[tuple[str, Sequence[Fact], list[Fact]]] = [
    ("Glucose was 100 mg/dL on 25-Nov-2020.", MORNING, [GLUCOSE]),
    ("Glucose in urine was 15 mg/dL on 25-Nov-2020.", MORNING, [URINE]),
    ("Creatinine was 1.2 mg/dL on 25-Nov-2020.", MORNING, [CREATININE]),
    ("Creatinine was 1.2 mg/dL.", MORNING, [CREATININE]),
    ("Glucose was 100 mg/dL and creatinine 1.2 mg/dL on 25-Nov-2020.", MORNING, [GLUCOSE, CREATININE]),
    ("Glucose was 140 mg/dL on 25-Nov-2020.", (GLUCOSE, EVENING), [EVENING]),
    ("Glucose was 100 mg/dL on 25-Nov-2020.", (EVENING, GLUCOSE), [GLUCOSE]),
    ("Glucose was 120 mg/dL on 26-Nov-2020.", TREND, [NEXT_DAY]),
    ("Glucose was 100 mg/dL on 27-Nov-2020.", TREND, [THIRD_DAY]),
    ("Glucose was 100 mg/dL on 25-Nov-2020 and glucose 120 mg/dL on 26-Nov-2020.", TREND[:2],
     [GLUCOSE, NEXT_DAY]),
    ("Gout is active since 04-Mar-2011.", (GOUT, LISINOPRIL, SODIUM), [GOUT]),
    ("Sodium was 140 mmol/L on 25-Nov-2020.", (GOUT, LISINOPRIL, SODIUM), [SODIUM]),
    (
        "Appendectomy was completed on 12-Mar-2004 and cholecystectomy on 03-May-2010.",
        (GOUT, APPENDECTOMY, CHOLECYSTECTOMY),
        [APPENDECTOMY, CHOLECYSTECTOMY],
    ),
]  # fmt: skip

REFUSED: list[tuple[str, Sequence[Fact], str]] = [
    ("Glucose was 15 mg/dL on 25-Nov-2020.", MORNING, "number_not_in_source"),
    ("Glucose in urine was 100 mg/dL on 25-Nov-2020.", MORNING, "number_not_in_source"),
    ("Creatinine was 100 mg/dL on 25-Nov-2020.", MORNING, "number_not_in_source"),
    ("Glucose was 1.2 mg/dL and creatinine 100 mg/dL on 25-Nov-2020.", MORNING, "number_of_something_else"),
    ("Glucose was 100 mg/dL on 26-Nov-2020.", MORNING, "date_not_in_source"),
    ("Glucose was 120 mg/dL on 25-Nov-2020.", TREND, "value_of_another_day"),
    ("Glucose was 100 mg/dL on 26-Nov-2020.", TREND, "value_of_another_day"),
    ("On 25-Nov-2020 glucose was 120 mg/dL.", TREND, "value_of_another_day"),
    ("Glucose on 25-Nov-2020: glucose 120 mg/dL.", TREND, "value_of_another_day"),
    ("Glucose on 25-Nov-2020: glucose 120 mg/dL, glucose on 26-Nov-2020: glucose 100 mg/dL.", TREND,
     "value_of_another_day"),
    ("Glucose was 120 mg/dL on 25-Nov-2020 and glucose 100 mg/dL on 26-Nov-2020.", TREND,
     "value_of_another_day"),
    ("Glucose was 100 mg/dL on 25-Nov-2020 and 140 mg/dL.", (GLUCOSE, EVENING), "whose_value_is_unclear"),
    ("Glucose was 100 mg/dL and glucose 120 mg/dL on 25-Nov-2020.", TREND, "number_not_in_source"),
    ("Glucose 120 mg/dL on 26-Nov-2020 and glucose 100 mg/dL.", TREND[:2], "number_not_in_source"),
    ("Potassium was 100 mg/dL on 25-Nov-2020.", MORNING, "cites_nothing"),
    ("All values were normal.", MORNING, "cites_nothing"),
    ("Urine was 15 mg/dL.", (URINE, CREATININE), "cites_nothing"),
    ("Gout is resolved.", (GOUT, SODIUM), "status_not_in_source:resolved"),
    ("Gout and lisinopril 10 MG oral tablet are active.", (GOUT, SODIUM), "number_not_in_source"),
    (
        "Appendectomy was completed on 03-May-2010 and cholecystectomy on 12-Mar-2004.",
        (APPENDECTOMY, CHOLECYSTECTOMY),
        "date_of_something_else",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "group", "cited"), SUPPORTED)
def test_a_sentence_on_a_row_cites_what_it_names(text: str, group: Sequence[Fact], cited: list[Fact]) -> None:
    claim = checked(text, group)
    assert (claim.verdict, claim.reasons) == (Verdict.SUPPORTED, ())
    assert claim.citations == tuple(f.id for f in cited)


@pytest.mark.parametrize(("text", "group", "reason"), REFUSED)
def test_a_value_of_another_day_or_analyte_of_the_row_is_refused(
    text: str, group: Sequence[Fact], reason: str
) -> None:
    claim = checked(text, group)
    assert claim.verdict is not Verdict.SUPPORTED
    assert reason in claim.reasons


def test_rows_of_two_days_are_cited_together() -> None:
    text = "Glucose was 100 mg/dL on 25-Nov-2020 and glucose 120 mg/dL on 26-Nov-2020."
    claim = checked(text, MORNING, ROW, OTHER)
    assert (claim.verdict, claim.citations) == (Verdict.SUPPORTED, (GLUCOSE.id, NEXT_DAY.id))
    swapped = "Glucose was 120 mg/dL on 25-Nov-2020 and glucose 100 mg/dL on 26-Nov-2020."
    assert checked(swapped, MORNING, ROW, OTHER).verdict is not Verdict.SUPPORTED


def test_a_row_that_does_not_exist_beside_one_that_does_is_refused() -> None:
    claim = checked("Glucose was 100 mg/dL on 25-Nov-2020.", MORNING, ROW, Label("R@01-Jan-1999"))
    assert (claim.verdict, claim.reasons) == (Verdict.UNSUPPORTED, ("cites_unknown_label",))


def test_the_order_within_a_row_changes_no_verdict() -> None:
    for text, group, cited in SUPPORTED:
        claim = checked(text, tuple(reversed(group)))
        assert claim.verdict is Verdict.SUPPORTED
        assert set(claim.citations) == {f.id for f in cited}


def test_a_status_of_one_fact_of_a_digest_is_not_lent_to_another() -> None:
    stopped = fact("gout medicine: stopped order", Kind.MEDICATION, status=Status.STOPPED)
    assert checked("Gout is stopped.", (GOUT, stopped)).reasons == ("status_not_in_source:stopped",)


def test_what_a_checker_looked_at_is_known() -> None:
    checker = Checker(context([GOUT, POTASSIUM]))
    checker.check(DraftClaim("problems", "Gout is active since 04-Mar-2011.", (Label("F1"),)))
    assert checker.facts == (GOUT,)


def test_a_citation_is_corrected_to_no_fact_that_does_not_bear_the_sentence_out() -> None:
    text = "Sodium was 999 mmol/L on 25-Nov-2020."
    claim = Checker(context([GOUT, SODIUM, POTASSIUM])).check(DraftClaim("results", text, (Label("F1"),)))
    assert (claim.verdict, claim.corrected) == (Verdict.UNSUPPORTED, False)


def test_of_a_trend_the_values_that_are_told_are_cited_and_no_others() -> None:
    text = "Glucose was 100 mg/dL on 25-Nov-2020 and glucose 120 mg/dL on 26-Nov-2020."
    claim = checked(text, (GLUCOSE, EVENING, NEXT_DAY))
    assert (claim.verdict, claim.citations) == (Verdict.SUPPORTED, (GLUCOSE.id, NEXT_DAY.id))
