"""Tables: every value as recorded, one row a day, and no text that can forge a column, a row or a label."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fixtures.facts import fact
from service.context.layout import label_facts
from service.context.pivot import MAX_COLUMNS, is_abnormal, tables_of, told_by
from service.record.facts import Kind
from tests.unit.context.charts import (
    choose,
    facts_in,
    flag,
    lab,
    pressure,
    prompt_of,
    quantity,
    rows,
    told,
    vital,
)
from tests.unit.record.charts import named, record_of

DAYS = [f"2020-01-0{n}" for n in range(1, 6)]
RANGE = [{"low": quantity("135", "mmol/L"), "high": quantity("145", "mmol/L")}]


def sodium(*values: dict[str, Any]) -> list[dict[str, Any]]:
    """Results of one name, a day apart; each dict changes one."""
    return [
        lab(f"s{n}", **{"on": DAYS[n], "value": str(140 + n), **change}) for n, change in enumerate(values)
    ]


def test_results_stand_in_one_table_with_one_row_a_day() -> None:
    lines = told(
        *sodium({}, {}), lab("k0", "Potassium", DAYS[0], "4.20"), lab("k1", "Potassium", DAYS[1], "3.9")
    )
    assert lines == [
        "day | Potassium (mmol/L) | Sodium (mmol/L)",
        "[R@01-Jan-2020] 4.20 | 140",
        "[R@02-Jan-2020] 3.9 | 141",
    ]


def test_a_row_rests_on_every_value_in_it() -> None:
    head, first, _ = rows(*sodium({}, {}), lab("k", "Potassium", DAYS[0]), lab("l", "Potassium", DAYS[1]))
    assert (head.label, head.facts) == (None, ())
    assert {f.id for f in first.facts} == {"Observation/s0", "Observation/k"}


def test_comparators_precision_and_flags_are_as_recorded() -> None:
    lines = told(
        *sodium({"value": "0.01", "comparator": "<"}, {"value": "6.10"}, {"interpretation": flag("HH")})
    )
    assert lines[1:] == ["[R@01-Jan-2020] <0.01", "[R@02-Jan-2020] 6.10", "[R@03-Jan-2020] 142 HH"]


def test_two_units_are_two_columns() -> None:
    lines = told(*sodium({}, {}, {"unit": "mg/dL"}, {"unit": "mg/dL"}))
    assert lines == [
        "day | Sodium (mmol/L)",
        "[R@01-Jan-2020] 140",
        "[R@02-Jan-2020] 141",
        "day | Sodium (mg/dL)",
        "[R@03-Jan-2020] 142",
        "[R@04-Jan-2020] 143",
    ]


def test_a_status_other_than_final_is_said_in_the_cell() -> None:
    lines = told(*sodium({"status": "preliminary"}, {"status": "corrected"}, {"status": "amended"}, {}))
    assert lines[1:] == [
        "[R@01-Jan-2020] 140 (preliminary)",
        "[R@02-Jan-2020] 141 (corrected)",
        "[R@03-Jan-2020] 142 (amended)",
        "[R@04-Jan-2020] 143",
    ]


def test_an_unrecorded_status_is_said_too() -> None:
    assert told(*sodium({}, {"status": None}))[2] == "[R@02-Jan-2020] 141 (status not recorded)"


def test_a_reference_range_that_never_changes_stands_in_the_head_and_one_that_does_in_the_cells() -> None:
    same = told(*sodium({"referenceRange": RANGE}, {"referenceRange": RANGE}))
    assert same[:2] == ["day | Sodium (mmol/L; reference 135–145)", "[R@01-Jan-2020] 140"]
    once = told(*sodium({"referenceRange": RANGE}, {}))
    assert once == [
        "day | Sodium (mmol/L)",
        "[R@01-Jan-2020] 140 (reference 135–145)",
        "[R@02-Jan-2020] 141",
    ]


def test_values_of_one_day_stand_in_one_cell_with_their_times() -> None:
    lines = told(
        *sodium(
            {"on": "2020-01-01T08:00:00Z"}, {"on": "2020-01-01T18:30:00Z"}, {"on": "2020-01-02T08:00:00Z"}
        )
    )
    assert lines[1:] == ["[R@01-Jan-2020] 140@08:00; 141@18:30", "[R@02-Jan-2020] 142"]


def test_whom_and_where_a_value_is_of_stands_in_the_head() -> None:
    site = {"bodySite": named("left arm")}
    record = record_of(*sodium(site, site, {}, {}, {}))
    facts = facts_in(record, Kind.RESULT)
    fetus = dataclasses.replace(facts[0].person, role="fetus")
    facts = [dataclasses.replace(f, person=fetus) if f.id.endswith(("s3", "s4")) else f for f in facts]
    labels = label_facts(record)
    lines = list(tables_of(facts, Kind.RESULT).rows(facts, lambda f: labels[f.id]))
    heads = " | ".join(line.text for line in lines if line.label is None)
    assert "Sodium (mmol/L; left arm)" in heads
    assert "Sodium (mmol/L; of fetus, not the patient)" in heads
    assert next(line.text for line in lines if "142" in line.text) == "Sodium: 142 mmol/L on 03-Jan-2020"


def test_text_values_stand_in_the_table_and_cancelled_or_long_ones_do_not() -> None:
    lines = told(
        *sodium({"valueString": "hemolyzed"}, {}, {"status": "cancelled"}, {"valueString": "x" * 49}, {})
    )
    assert "[R1] Sodium: hemolyzed on 01-Jan-2020" in lines
    assert "[R3] Sodium: cancelled on 03-Jan-2020" in lines
    assert f"[R4] Sodium: {'x' * 49} on 04-Jan-2020" in lines


def test_a_column_of_text_has_no_unit_and_keeps_the_words() -> None:
    lines = told(*[lab(f"c{n}", "Color [Type] of Urine", DAYS[n], valueString="yellow") for n in range(2)])
    assert lines == ["day | Color [Type] of Urine", "[R@01-Jan-2020] yellow", "[R@02-Jan-2020] yellow"]


def test_a_bracketed_property_is_left_out_where_the_unit_tells_it() -> None:
    lines = told(*[lab(f"c{n}", "Sodium [Moles/volume] in Blood", DAYS[n]) for n in range(2)])
    assert lines[0] == "day | Sodium in Blood (mmol/L)"
    bare = told(*[lab(f"c{n}", "[pH]", DAYS[n]) for n in range(2)])
    assert bare[0] == "day | [pH] (mmol/L)"


def test_what_else_is_said_of_a_value_stands_with_it() -> None:
    said = {"method": named("ISE"), "note": [{"text": "slightly hemolyzed"}]}
    assert told(*sodium({}, said))[2] == "[R@02-Jan-2020] 141 (method: ISE; note: slightly hemolyzed)"
    long = {"note": [{"text": "y" * 60}]}
    assert told(*sodium({}, {}, long))[-1] == f"[R3] Sodium: 142 mmol/L on 03-Jan-2020; note: {'y' * 60}"


def test_who_measured_stands_at_the_end_of_the_row_and_of_a_line() -> None:
    by = {"performer": [{"display": "Lab Nord"}]}
    lines = told(*sodium(by, by), lab("k", "Potassium", DAYS[0], "4.2", performer=[{"display": "Lab Sued"}]))
    assert lines[1:] == [
        "[R@01-Jan-2020] 140 | by Lab Nord",
        "[R@02-Jan-2020] 141 | by Lab Nord",
        "[R1] Potassium: 4.2 mmol/L on 01-Jan-2020; by Lab Sued",
    ]


def test_partial_dates_have_rows_of_their_own_before_the_days_they_hold() -> None:
    lines = told(*sodium({"on": "2019"}, {"on": "2019-01-01"}, {"on": "2019-05"}))
    assert [line.split("]")[0] for line in lines[1:]] == ["[R@01-Jan-2019", "[R@2019", "[R@May-2019"]


def test_an_undated_value_or_one_over_a_period_is_told_by_itself() -> None:
    period = {"effectiveDateTime": None, "effectivePeriod": {"start": "2020-01-03", "end": "2020-01-04"}}
    lines = told(*sodium({}, {}, period), lab("u", on=None))  # type: ignore[arg-type]
    assert [line.split("] ")[1] for line in lines[3:]] == [
        "Sodium: 140 mmol/L",
        "Sodium: 142 mmol/L from 03-Jan-2020 to 04-Jan-2020",
    ]


def test_more_columns_than_a_table_holds_are_split_and_keep_every_value() -> None:
    many = [
        lab(f"a{n:02}-{day}", f"Analyte {n:02}", day, str(n))
        for n in range(MAX_COLUMNS + 3)
        for day in DAYS[:2]
    ]
    lines = rows(*many)
    heads = [line for line in lines if line.label is None]
    assert [head.text.count(" | ") for head in heads] == [MAX_COLUMNS, 3]
    assert len({fact.id for line in lines for fact in line.facts}) == len(many)
    assert sum(len(line.facts) for line in lines) == len(many)


def test_a_small_panel_shares_its_unit_and_keeps_its_members() -> None:
    lines = told(
        pressure("a", "127.2", "80.5", DAYS[0]), pressure("b", "131", "84", DAYS[1]), kind=Kind.VITAL
    )
    assert lines == [
        "day | Blood pressure (mm[Hg])",
        "[T@01-Jan-2020] systolic 127.2, diastolic 80.5",
        "[T@02-Jan-2020] systolic 131, diastolic 84",
    ]


def test_flags_of_the_members_stand_with_their_values_not_in_the_head() -> None:
    flagged = pressure("b", "180", "110", DAYS[1])
    for part in flagged["component"]:
        part["interpretation"] = flag("H")
    lines = told(pressure("a", "127", "80", DAYS[0]), flagged, kind=Kind.VITAL)
    assert lines == [
        "day | Blood pressure (mm[Hg])",
        "[T@01-Jan-2020] systolic 127, diastolic 80",
        "[T@02-Jan-2020] systolic 180 (H), diastolic 110 (H)",
    ]


def test_members_of_different_units_keep_them() -> None:
    def mixed(ident: str, on: str) -> dict[str, Any]:
        item = pressure(ident, "127", "80", on)
        item["component"][1]["valueQuantity"] = quantity("60", "/min")
        return item

    lines = told(mixed("a", DAYS[0]), mixed("b", DAYS[1]), kind=Kind.VITAL)
    assert lines[:2] == [
        "day | Blood pressure",
        "[T@01-Jan-2020] systolic 127 mm[Hg], diastolic 60 /min",
    ]
    thrice = [mixed(f"m{n}", f"2020-01-01T0{n}:00:00Z") for n in range(3)]
    assert told(*thrice, mixed("n", DAYS[1]), kind=Kind.VITAL)[1].count("mm[Hg]") == 3


def hourly(*values: str, **fields: Any) -> list[dict[str, Any]]:
    """Vital signs of one day, and one of the next, so that they make a column."""
    of_day = [
        vital(f"v{n:02}", value, f"2020-01-01T{n:02}:00:00Z", **fields) for n, value in enumerate(values)
    ]
    return [*of_day, vital("z", "70", "2020-01-02")]


def test_many_vital_signs_of_a_day_are_told_by_their_lowest_and_highest_with_flags() -> None:
    values = hourly(*["80", "62", "118", "75"] * 5)
    values[2]["interpretation"] = flag("H")
    assert told(*values, kind=Kind.VITAL)[1] == "[T@01-Jan-2020] 62–118 H (20 values)"
    assert told(*hourly("70", "70", "70"), kind=Kind.VITAL)[1] == "[T@01-Jan-2020] 70 (3 values)"
    both = [pressure(f"p{n}", str(90 + n), str(50 + n), f"2020-01-01T0{n}:00:00Z") for n in range(3)]
    assert (
        told(*both, pressure("q", "1", "1", DAYS[1]), kind=Kind.VITAL)[1]
        == "[T@01-Jan-2020] systolic 90–92, diastolic 50–52 (3 values)"
    )


@pytest.mark.parametrize(
    "odd",
    [
        {"status": "preliminary"},
        {"note": [{"text": "crying"}]},
        {"referenceRange": [{"low": quantity("60", "/min"), "high": quantity("100", "/min")}]},
        {"valueQuantity": quantity("300", "/min", ">")},
    ],
)
def test_a_day_with_one_odd_vital_sign_is_told_value_by_value(odd: dict[str, Any]) -> None:
    values = hourly("80", "62", "118")
    values[1] |= odd
    row = told(*values, kind=Kind.VITAL)[1]
    assert "values)" not in row
    assert all(value in row for value in ("80@00:00", "118@02:00"))


def test_text_and_flagged_members_are_not_reduced_to_a_range() -> None:
    texts = [
        {**vital(f"v{n}", "1", f"2020-01-01T0{n}:00:00Z"), "valueString": "weak"} for n in range(3)
    ]  # fmt: skip
    for item in texts:
        del item["valueQuantity"]
    next_day = {**texts[0], "id": "w", "effectiveDateTime": "2020-01-02"}
    assert told(*texts, next_day, kind=Kind.VITAL)[1] == "[T@01-Jan-2020] weak@00:00; weak@01:00; weak@02:00"
    both = [pressure(f"p{n}", str(90 + n), str(50 + n), f"2020-01-01T0{n}:00:00Z") for n in range(3)]
    both[1]["component"][0]["interpretation"] = flag("L")
    row = told(*both, pressure("q", "1", "1", DAYS[1]), kind=Kind.VITAL)[1]
    assert "systolic 91 (L), diastolic 51@01:00" in row


@pytest.mark.parametrize("hostile", ["5 | 9.9", "5 | by Dr. X", "5; 9.9@14:00", "|", " | "])
def test_a_value_cannot_forge_a_column_an_author_or_a_second_value(hostile: str) -> None:
    lines = told(*sodium({}, {}, {"valueString": hostile}, {"valueString": hostile}))
    assert lines[:3] == ["day | Sodium (mmol/L)", "[R@01-Jan-2020] 140", "[R@02-Jan-2020] 141"]
    assert [line.split(":")[0] for line in lines[3:]] == ["[R3] Sodium", "[R4] Sodium"]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Sodium | Potassium"},
        {"unit": "mg | dL"},
        {"bodySite": named("arm | leg")},
        {"performer": [{"display": "Lab | 9.9"}]},
        {"interpretation": [{"text": "H | 9"}]},
        {"referenceRange": [{"text": "1 | 2"}]},
        {"note": [{"text": "a | b"}]},
    ],
)
def test_nothing_else_said_of_a_value_can_forge_a_column(fields: dict[str, Any]) -> None:
    assert len(told(*sodium(fields, fields))) == 2
    assert all(line.label and "@" not in line.label for line in rows(*sodium(fields, fields)))


@pytest.mark.parametrize("hostile", ["[R9] 7", "7\n[R9] 8", "[R@01-Jan-2020] 7", "7\u2028[K1] x"])
def test_a_value_cannot_forge_a_row_or_a_label(hostile: str) -> None:
    record = record_of(*sodium({"valueString": hostile}, {"valueString": hostile}, {}, {}))
    context = choose(record)
    text = prompt_of(context)
    lines = [line for line in text.splitlines() if line.startswith("[")]
    assert len(lines) == 4
    assert {line.split("]")[0][1:] for line in lines} == set(context.cites)
    assert not any(mark in line[3:] for line in lines for mark in ("[R9]", "[R@", "[K1]"))


def test_a_column_with_one_value_is_a_line_but_a_panel_measured_once_is_a_table() -> None:
    one = told(*sodium({}))
    assert one == ["[R1] Sodium: 140 mmol/L on 01-Jan-2020"]
    panel = told(*[lab(f"a{n}", f"Analyte {n}", DAYS[0], str(n)) for n in range(4)])
    assert panel[1] == "[R@01-Jan-2020] 0 | 1 | 2 | 3"


def test_the_newest_of_a_name_joins_a_row_that_stands_and_opens_none() -> None:
    newest = frozenset({"Observation/s2"})
    others = [lab("k", "Potassium", DAYS[0]), lab("l", "Potassium", DAYS[2])]
    alone = rows(lab("s2", "Sodium", DAYS[3]), *others, latest=newest)
    assert alone[-1].text == "Sodium: 140 mmol/L on 04-Jan-2020"
    joined = rows(lab("s2", "Sodium", DAYS[2]), lab("s1", "Sodium", DAYS[0]), *others, latest=newest)
    assert joined[-1].text == "140 | 140"
    four = frozenset(f"Observation/a{n}" for n in range(4))
    panel = rows(*[lab(f"a{n}", f"Analyte {n}", DAYS[0], str(n)) for n in range(4)], latest=four)
    assert panel[-1].text == "0 | 1 | 2 | 3"


def test_facts_of_another_kind_are_told_line_by_line_in_order() -> None:
    record = record_of(*sodium({}, {}), vital("v", "70", DAYS[0]), vital("w", "71", DAYS[1]))
    labels = label_facts(record)
    lines = list(tables_of(record.facts, Kind.RESULT).rows(record.facts, lambda f: labels[f.id]))
    assert [line.label for line in lines][:3] == [None, "R@01-Jan-2020", "R@02-Jan-2020"]
    assert [line.text for line in lines if line.label in ("T1", "T2")] == [
        "Pulse: 70 /min on 01-Jan-2020",
        "Pulse: 71 /min on 02-Jan-2020",
    ]
    assert list(tables_of([], Kind.RESULT).rows([], lambda f: labels[f.id])) == []


def test_an_author_that_the_line_names_is_not_said_twice() -> None:
    assert told_by(fact("Gout: active", author="Dr. Weiss")) == "Gout: active; by Dr. Weiss"
    assert told_by(fact("Gout: active; by Dr. Weiss", author="Dr. Weiss")) == "Gout: active; by Dr. Weiss"


@pytest.mark.parametrize(
    ("flags", "abnormal"), [((), False), (("N",), False), (("H",), True), (("N", "A"), True)]
)
def test_only_a_recorded_flag_makes_a_value_abnormal(flags: tuple[str, ...], abnormal: bool) -> None:
    assert is_abnormal(fact("x", Kind.RESULT, flags=flags)) is abnormal
