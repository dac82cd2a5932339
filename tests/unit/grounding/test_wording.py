"""Other words for the same: read as the record's own, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.facts import APPENDECTOMY, COLONOSCOPY, GOUT, LISINOPRIL, PRESSURE, SIMVASTATIN, fact
from service.grounding.check import Judge
from service.grounding.status import STATUS_WORDS
from service.grounding.summary import Verdict
from service.grounding.wording import (
    by_recorded_names,
    in_recorded_units,
    lexicon,
    neutral_words,
    plain_name,
    read_lexicon,
    recorded_forms,
    said_plainly,
    without_asides,
)
from service.grounding.words import NEGATIONS
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
        ("The patient takes lisinopril 10 mg.", LISINOPRIL),
        ("Gout was diagnosed on 04-Mar-2011.", GOUT),
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
        ("The patient no longer takes lisinopril 10 mg.", LISINOPRIL),
        ("Lisinopril 10 mg was given.", LISINOPRIL),
        ("Lisinopril 10 mg was dispensed.", LISINOPRIL),
        ("Gout was diagnosed on 05-Mar-2011.", GOUT),
        ("The patient has a history of gout.", GOUT),
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


def test_every_wording_is_read_as_a_status_a_setting_a_reason_or_nothing() -> None:
    words = {wording.read.strip() for wording in lexicon().wordings}
    statuses = {"active", "resolved", "order", "stopped", "not done", "completed", "planned"}
    states = {"refuted", "on hold", "given", "refused", "finished"}
    assert words == statuses | states | {
        "inpatient",
        "emergency",
        "reason",
        "oral",
        "subcutaneous",
        "intravenous",
        "",
    }


def test_no_wording_of_a_status_is_read_as_another_for_the_same_kind() -> None:
    told: dict[tuple[Kind, str], set[str]] = {}
    for wording in lexicon().wordings:
        for kind in wording.kinds:
            told.setdefault((kind, wording.pattern.pattern), set()).add(wording.read.strip())
    assert {key: reads for key, reads in told.items() if len(reads) > 1} == {}


def test_no_name_is_another_name_of_itself() -> None:
    for name, others in lexicon().same.items():
        assert name not in others
    drugs = [form for forms in lexicon().drugs for form in forms]
    assert len(drugs) == len(set(drugs))


def test_neutral_words_deny_nothing_and_give_no_status() -> None:
    for kind in Kind:
        words = neutral_words(frozenset({kind}), True)
        assert not words & (NEGATIONS | STATUS_WORDS - {"ordered", "confirmed"}), kind
        assert not words & set(
            "left right mother father only never since severe mild likely possible".split()
        ) - ({"since"} if kind in (Kind.PLAN, Kind.GOAL) else set())


def test_words_that_tie_are_neutral_beside_a_single_entry_only() -> None:
    assert "for" in neutral_words(frozenset({Kind.ENCOUNTER}), True)
    assert "for" not in neutral_words(frozenset({Kind.ENCOUNTER}), False)
    assert "laboratory" not in neutral_words(frozenset({Kind.RESULT, Kind.PROBLEM}), True)


@pytest.mark.parametrize(
    ("line", "said", "is_so"),
    [
        ("2 times per day", "twice daily", True),
        ("2 times per day", "BID", True),
        ("twice daily", "two times a day", True),
        ("2 times per day", "three times daily", False),
        ("2 times per day", "daily", False),
        ("every day", "once daily", True),
        ("every day", "twice daily", False),
        ("every day, as needed", "daily", False),
        ("every day, as needed", "daily PRN", True),
    ],
)
def test_a_frequency_is_one_frequency_in_all_its_forms(line: str, said: str, is_so: bool) -> None:
    order = fact(f"Metformin 500 MG Oral Tablet: active order from 02-Jun-2013; {line}", Kind.MEDICATION,
                 status=Status.ACTIVE, recorded_status="active", on="2013-06-02")  # fmt: skip
    told = verdict(f"The patient takes metformin 500 mg {said}.", order)
    assert (told is Verdict.SUPPORTED) is is_so


def test_a_frequency_that_the_record_does_not_tell_is_read_as_the_first_of_its_forms() -> None:
    for lines in ((), ("Metformin: active order",), ("Metformin: active order; every day",)):
        told = said_plainly("Metformin b.i.d.", [Kind.MEDICATION], (), lines=lines)
        assert told.split() == ["Metformin", "2", "times", "per", "day"]


@pytest.mark.parametrize("said", ["Zocor 20 mg was stopped.", "Simvastatin 20 mg was stopped."])
def test_a_brand_stands_for_its_ingredient(said: str) -> None:
    assert verdict(said, SIMVASTATIN) is Verdict.SUPPORTED
    assert verdict(said.replace("20", "40"), SIMVASTATIN) is not Verdict.SUPPORTED
    assert verdict("Lipitor 20 mg was stopped.", SIMVASTATIN) is not Verdict.SUPPORTED


def test_a_salt_that_makes_another_drug_is_never_left_out() -> None:
    tartrate = fact(
        "Metoprolol tartrate 25 MG Oral Tablet: active order", Kind.MEDICATION, status=Status.ACTIVE
    )
    sodium = fact("Naproxen sodium 220 MG Oral Tablet: active order", Kind.MEDICATION, status=Status.ACTIVE)
    assert verdict("Metoprolol 25 mg is active.", tartrate) is not Verdict.SUPPORTED
    assert verdict("Metoprolol succinate 25 mg is active.", tartrate) is not Verdict.SUPPORTED
    assert verdict("Naproxen 220 mg is active.", sodium) is Verdict.SUPPORTED
    bicarbonate = fact(
        "Sodium bicarbonate 650 MG Oral Tablet: active order", Kind.MEDICATION, status=Status.ACTIVE
    )
    assert verdict("Bicarbonate 650 mg is active.", bicarbonate) is not Verdict.SUPPORTED


TAGS = (
    "disorder", "finding", "situation", "procedure", "regime/therapy", "physical object", "record "
    "artifact", "event",
    "substance", "product", "morphologic abnormality", "body structure",
)  # fmt: skip


@pytest.mark.parametrize(
    "aside",
    [f"({tag})" for tag in (*TAGS, "adult", "hemogram", "organism", "CBC", "FEV-1", "T3", "ABCDEFGH")]
    + ["[Mass/volume]", "[]"],
)
def test_what_stands_in_brackets_after_a_name_may_go_unsaid(aside: str) -> None:
    assert without_asides(f"Gout {aside} of  hip") == "Gout of hip"
    assert plain_name(f"Gout {aside}") == "gout"
    assert recorded_forms(f"Gout {aside}") == {f"Gout {aside}", "Gout", "gout"}


@pytest.mark.parametrize(
    "told", ["(ruled out)", "(left)", "(a)", "(A)", "(ABCDEFGHI)", "(disorder of hip)", "(Adult)"]
)
def test_what_else_stands_in_brackets_is_said(told: str) -> None:
    assert without_asides(f"Gout {told}") == f"Gout {told}"


@pytest.mark.parametrize("tag", TAGS)
def test_a_semantic_tag_says_nothing_in_a_sentence(tag: str) -> None:
    assert said_plainly(f"Gout ({tag}) seen", [], ()) == "Gout seen"
    assert said_plainly(f"Gout ({tag.title()}) seen", [], ()) == f"Gout ({tag.title()}) seen"
    assert said_plainly(f"Gout({tag}) seen", [], ()) == f"Gout({tag}) seen"


def test_a_name_has_no_empty_form_and_ends_with_no_dash() -> None:
    assert recorded_forms("[x]") == {"[x]"}
    assert recorded_forms("Pain - [x]") == {"Pain - [x]", "Pain -", "pain"}
    assert recorded_forms("gout") == {"gout"}


@pytest.mark.parametrize("side", ["left", "right", "Left", "RIGHT"])
@pytest.mark.parametrize("joint", ["-", " "])
def test_a_side_is_a_side(side: str, joint: str) -> None:
    assert said_plainly(f"A {side}{joint}sided stroke", [], ()) == f"A {side} stroke"
    assert said_plainly(f"A {side}{joint}sided stroke", [], (), (), ["right-sided stroke"]) == (
        f"A {side}{joint}sided stroke"
    )
    assert said_plainly(f"A {side}{joint}sideds stroke", [], ()) == f"A {side}{joint}sideds stroke"


LEXICON: dict[str, Any] = {
    "neutral": [
        {"kinds": ["*"], "words": "Some tests"},
        {"kinds": ["result", "vital"], "words": "alone here", "alone": True},
    ],
    "said": [{"kinds": ["problem"], "say": ["is over", "is over and done"], "word": "resolved"}],
    "frame": [{"kinds": ["*"], "say": [" as told "]}],
    "often": [{"forms": ["daily", "every day"]}],
    "unit": [{"recorded": "mm[Hg]", "say": ["mmHg", "mm Hg"]}],
    "tail": [{"say": [" in Blood", " in Blood by Test"]}, {"say": [" by Count"]}],
    "form": [{"say": ["tablet", "pill"]}],
    "salt": [{"say": ["sodium"]}],
    "same": [{"forms": ["leukocytes", "wbc", "white cells"]}],
    "drug": [{"forms": ["simvastatin", "zocor"]}],
}


def test_a_lexicon_is_read_as_it_is_written() -> None:
    read = read_lexicon(LEXICON)
    first, second = read.neutral
    assert (first.kinds, second.kinds) == (frozenset(Kind), frozenset({Kind.RESULT, Kind.VITAL}))
    assert (first.words, second.words) == (frozenset({"some", "test"}), frozenset({"alone", "here"}))
    assert (first.alone, second.alone) == (False, True)
    assert [wording.read for wording in read.wordings] == [" resolved ", "  ", " resolved "]
    assert [wording.kinds for wording in read.wordings] == [{Kind.PROBLEM}, frozenset(Kind), {Kind.PROBLEM}]
    assert read.often == (("daily", "every day"),)
    ((recorded, pattern),) = read.units
    assert recorded == "mm[Hg]"
    assert [bool(pattern.search(text)) for text in ("5 mmHg", "5mm hg", "5 mmHgs", "x mmHg")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert read.tails.sub("", "Glucose IN BLOOD BY TEST by count") == "Glucose"
    assert read.forms == {"tablet", "pill"}
    assert read.salts == {"sodium"}
    assert read.same == {"leukocytes": ("white cells", "wbc")}
    assert read.drugs == (("simvastatin", "zocor"),)


@pytest.mark.parametrize("key", sorted(LEXICON))
def test_a_lexicon_without_one_of_its_parts_is_none(key: str) -> None:
    with pytest.raises(KeyError):
        read_lexicon({name: part for name, part in LEXICON.items() if name != key})


def test_a_lexicon_of_an_unknown_kind_is_none() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        read_lexicon(LEXICON | {"neutral": [{"kinds": ["nonsense"], "words": "x"}]})


def test_no_word_is_neutral_where_nothing_is_cited() -> None:
    assert neutral_words(frozenset(), True) == frozenset()
    assert "assay" in neutral_words(frozenset({Kind.RESULT}), False)
    assert "assay" not in neutral_words(frozenset({Kind.RESULT, Kind.PROBLEM}), True)
    assert "listed" in neutral_words(frozenset({Kind.RESULT, Kind.PROBLEM}), False)


def test_a_unit_is_written_as_recorded_after_a_number_alone() -> None:
    assert in_recorded_units("5mmHg and 6 mm Hg", ["mm[hg]"]) == "5 mm[Hg] and 6 mm[Hg]"
    assert in_recorded_units("mmHg 5 mmHg", []) == "mmHg 5 mmHg"
    assert in_recorded_units("the mmHg", ["mm[hg]"]) == "the mmHg"


def test_another_name_of_the_same_is_read_as_the_recorded_one() -> None:
    name = "Leukocytes [#/volume] in Blood by Automated count"
    results = frozenset({Kind.RESULT})
    assert by_recorded_names("WBC was 6", results, [name]) == "leukocytes was 6"
    assert by_recorded_names("White blood cell count was 6", results, [name]) == "leukocytes was 6"
    assert by_recorded_names("Leukocytes (WBC) was 6", results, [name]) == "Leukocytes (WBC) was 6"
    assert by_recorded_names("WBC-x was 6", results, [name]) == "WBC-x was 6"
    assert by_recorded_names("WBC was 6", results, ["Sodium"]) == "WBC was 6"
    assert (
        by_recorded_names("Zocor 20 mg", frozenset({Kind.MEDICATION}), ["simvastatin 20 MG"])
        == "simvastatin 20 mg"
    )
    assert by_recorded_names("Zocor 20 mg", frozenset({Kind.PROBLEM}), ["simvastatin 20 MG"]) == "Zocor 20 mg"
    both = by_recorded_names("Zocor, simvastatin", frozenset({Kind.MEDICATION}), ["simvastatin 20 MG"])
    assert both == "Zocor, simvastatin"


def test_a_wording_that_the_record_uses_itself_stays() -> None:
    assert said_plainly("Gout has resolved", [Kind.PROBLEM], ()).split() == ["Gout", "resolved"]
    assert said_plainly("Gout has resolved", [Kind.PROBLEM], (), (), ["x", "Gout has resolved"]) == (
        "Gout has resolved"
    )
    daily = said_plainly("Taken BID", [Kind.MEDICATION], (), (), ["x", "x 2 times per day"])
    assert "2 times per day" in daily
    assert "2 times per day" not in said_plainly("Taken BID", [Kind.PROBLEM], (), (), ["x 2 times per day"])
    assert "BID" not in said_plainly("Taken BID", [Kind.MEDICATION], ())
