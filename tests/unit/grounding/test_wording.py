"""Other words for the same: read as the record's own, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.facts import APPENDECTOMY, COLONOSCOPY, GOUT, LISINOPRIL, PRESSURE, SIMVASTATIN, fact
from service.grounding.check import Judge
from service.grounding.summary import Verdict
from service.grounding.wording import lexicon, plain_name, said_plainly
from service.record.facts import Fact, Kind, Status

FINAL: dict[str, Any] = {"status": Status.FINAL, "recorded_status": "final", "on": "2013-06-02"}
WBC = fact(
    "Leukocytes [#/volume] in Blood by Automated count: 6.2 10*3/uL on 02-Jun-2013",
    Kind.RESULT,
    value="6.2",
    unit="10*3/uL",
    **FINAL,
)
PAIN = fact("Pain severity: 3 {score} on 02-Jun-2013", Kind.VITAL, value="3", unit="{score}", **FINAL)
PARTS = (("systolic", "127.2 mm[Hg]"), ("diastolic", "80.5 mm[Hg]"))
BP = fact(PRESSURE.text, Kind.VITAL, **(FINAL | {"on": "1990-01-19", "details": PARTS}))
VIRUS = fact("COVID-19: active, since 04-Mar-2021", status=Status.ACTIVE, recorded_status="active",
             on="2021-03-04")  # fmt: skip


def verdict(text: str, *cited: Fact) -> Verdict:
    return Judge("female").verdict(text, cited)[0]


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("WBC was 6.2 ×10³/µL on June 2, 2013.", WBC),
        ("The white blood cell count came back at 6.2 10*3/uL on 02-Jun-2013.", WBC),
        ("BP 127.2/80.5 mmHg on 19-Jan-1990.", BP),
        ("The patient's blood pressure was 127.2/80.5 mm Hg on 19-Jan-1990.", BP),
        ("Pain severity was 3 on 02-Jun-2013.", PAIN),
        ("The patient underwent appendectomy on 12-Mar-2004.", APPENDECTOMY),
        ("Colonoscopy was not carried out (patient refused), recorded 12-Mar-2019.", COLONOSCOPY),
        ("Simvastatin 20 mg has been discontinued.", SIMVASTATIN),
        ("Lisinopril 10 mg is a current medication.", LISINOPRIL),
        ("The patient suffers from gout.", GOUT),
        ("COVID-19 is active.", VIRUS),
    ],
)
def test_another_wording_is_supported(text: str, cited: Fact) -> None:
    assert verdict(text, cited) is Verdict.SUPPORTED


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("WBC was 6.3 ×10³/µL on June 2, 2013.", WBC),
        ("WBC was 6.2 ×10⁶/µL on June 2, 2013.", WBC),
        ("RBC was 6.2 ×10³/µL on June 2, 2013.", WBC),
        ("BP 80.5/127.2 mmHg on 19-Jan-1990.", BP),
        ("BP 127/80 mmHg on 19-Jan-1990.", BP),
        ("The patient underwent colonoscopy.", COLONOSCOPY),
        ("Appendectomy was not carried out.", APPENDECTOMY),
        ("The patient is scheduled for appendectomy.", APPENDECTOMY),
        ("Simvastatin 20 mg is a current medication.", SIMVASTATIN),
        ("Lisinopril 10 mg has been discontinued.", LISINOPRIL),
        ("Lisinopril 20 mg is a current medication.", LISINOPRIL),
        ("Gout has resolved.", GOUT),
        ("The patient takes lisinopril 10 mg.", LISINOPRIL),
        ("Gout was diagnosed on 04-Mar-2011.", GOUT),
        ("Gout because of diet is active.", GOUT),
        ("COVID-20 is active.", VIRUS),
    ],
)
def test_what_says_something_else_is_not(text: str, cited: Fact) -> None:
    assert verdict(text, cited) is not Verdict.SUPPORTED


def test_a_salt_is_never_left_out_and_a_dose_form_may_be() -> None:
    line = "metoprolol tartrate 25 MG Oral Tablet: active order"
    tartrate = fact(line, Kind.MEDICATION, status=Status.ACTIVE, recorded_status="active")
    assert verdict("Metoprolol tartrate 25 mg is a current medication.", tartrate) is Verdict.SUPPORTED
    assert verdict("Metoprolol 25 mg is a current medication.", tartrate) is not Verdict.SUPPORTED
    assert verdict("Metoprolol succinate 25 mg is a current medication.", tartrate) is not Verdict.SUPPORTED


def test_a_wording_counts_for_its_kinds_alone() -> None:
    assert said_plainly("She had it", [Kind.PROCEDURE], ()).split() == ["She", "completed", "it"]
    assert said_plainly("She had it", [Kind.PROBLEM], ()) == "She had it"
    assert said_plainly("She had it", [Kind.PROCEDURE, Kind.PROBLEM], ()) == "She had it"
    assert said_plainly("5 mmHg", [], ()) == "5 mmHg"
    assert said_plainly("5 mmHg", [], ["mm[hg]"]) == "5 mm[Hg]"


def test_names_lose_brackets_and_specimen_but_not_what_tells_them_apart() -> None:
    assert plain_name("Hemoglobin [Mass/volume] in Blood") == "hemoglobin"
    assert plain_name("Glucose [Mass/volume] in Urine by Test strip") == "glucose in urine by test strip"


def test_no_wording_is_read_as_something_of_another_status() -> None:
    words = {wording.read.strip() for wording in lexicon().said}
    assert words == {"active", "resolved", "order", "stopped", "not done", "completed", "planned"}
    assert all(not wording.read.strip() for wording in lexicon().frames)
    for name, others in lexicon().same.items():
        assert name not in others
