"""Trends: at most a few courses, each with the values that the record holds and no others."""

from __future__ import annotations

import dataclasses
from typing import Any

from service.context.pivot import tables_of
from service.context.trends import trend_lines
from service.record.facts import Kind
from tests.unit.context.charts import facts_in, flag, lab
from tests.unit.record.charts import named, record_of


def course(name: str, *values: str, **fields: Any) -> list[dict[str, Any]]:
    """Results of one name, a month apart."""
    return [lab(f"{name}{n}", name, f"2020-{n + 1:02}-01", value, **fields) for n, value in enumerate(values)]


def trends(*resources: dict[str, Any], most: int = 8) -> list[str]:
    facts = facts_in(record_of(*resources), Kind.RESULT)
    return [f"[{line.label}] {line.text}" for line in trend_lines(facts, tables_of(facts, Kind.RESULT), most)]


def test_a_course_is_told_by_its_first_last_lowest_and_highest_value() -> None:
    assert trends(*course("Urate", "7.0", "5.10", "9.2", "8.0")) == [
        "[K1] Urate (mmol/L): 4 values; first 7.0 in Jan-2020; last 8.0 in Apr-2020; "
        "lowest 5.10 in Feb-2020; highest 9.2 in Mar-2020"
    ]


def test_a_line_rests_on_the_values_that_it_names() -> None:
    facts = facts_in(record_of(*course("Urate", "1", "5", "3", "9")), Kind.RESULT)
    (line,) = trend_lines(facts, tables_of(facts, Kind.RESULT), 8)
    assert [fact.value[:1] for fact in line.facts] == ["1", "9"]


def test_flags_and_a_status_other_than_final_are_said() -> None:
    values = course("Urate", "7", "5", "9")
    values[2] |= {"interpretation": flag("H"), "status": "preliminary"}
    assert "last and highest 9 (preliminary, H) in Mar-2020" in trends(*values)[0]


def test_two_values_text_and_other_persons_are_no_trend() -> None:
    assert trends(*course("Urate", "7", "5")) == []
    assert trends(*[lab(f"c{n}", "Color", f"2020-01-0{n}", valueString="red") for n in range(1, 5)]) == []
    facts = facts_in(record_of(*course("Urate", "7", "5", "6")), Kind.RESULT)
    fetal = [dataclasses.replace(f, person=dataclasses.replace(f.person, role="fetus")) for f in facts]
    assert trend_lines(fetal, tables_of(fetal, Kind.RESULT), 8) == ()


def test_a_value_below_what_can_be_measured_leaves_no_lowest_value_to_tell() -> None:
    assert (
        trends(*course("Troponin", "0.05", "0.5", "0.4"), lab("t", "Troponin", value="0.01", comparator="<"))
        == []
    )


def test_flagged_courses_come_before_large_ones_and_large_ones_before_flat_ones() -> None:
    flagged = course("Flagged", "1", "1", "1")
    flagged[2]["interpretation"] = flag("A")
    large, flat = course("Large", "1", "2", "9"), course("Flat", "5", "5", "5")
    zero = course("Zero", "0", "0", "0")

    def told(most: int) -> set[str]:
        return {line.split(" ")[1] for line in trends(*flat, *large, *flagged, *zero, most=most)}

    assert told(1) == {"Flagged"}
    assert told(2) == {"Flagged", "Large"}
    assert told(-1) == told(0) == set()
    assert [line[:4] for line in trends(*flat, *large, *flagged)] == ["[K1]", "[K2]", "[K3]"]


def test_two_sites_are_two_courses_and_named() -> None:
    lines = trends(
        *course("PSA", "1", "2", "3"), *course("Glucose", "1", "2", "3", bodySite=named("left arm"))
    )
    assert [line.split(":")[0] for line in lines] == ["[K1] Glucose (mmol/L; left arm)", "[K2] PSA (mmol/L)"]
