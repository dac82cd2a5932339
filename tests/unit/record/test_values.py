"""Accessors never raise; values are shown exactly as recorded."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.record.fhirjson import (
    Concept,
    Element,
    as_number,
    concept_of,
    digits,
    dose_digits,
    html_line,
    one_line,
    without_tag,
)
from service.record.values import NO_VALUE, count, read_quantity, read_value, show_ratio
from tests.unit.record.charts import fact_of, named, record_of, resource, text_of


def element(raw: dict[str, Any]) -> Element:
    return Element(raw, "Test", set())


def test_wrong_types_are_skipped_and_noted_without_their_content() -> None:
    odd = element(
        {"a": ["x", "y"], "b": {"z": 1}, "c": [1, {"d": 2}], "e": "maybe", "f": "high", "g": 5, "h": [{}]}
    )
    assert (odd.text("a"), odd.text("b"), odd.text("g")) == ("x", "", "5")
    assert [c.raw for c in odd.children("c")] == [{"d": 2}]
    assert (odd.flag("e"), odd.number("f"), odd.concepts("h")) == (None, None, [])
    assert odd.child("c").raw == {"d": 2}
    assert not odd.child("a")
    assert element({"x": "true"}).flag("x") is True
    assert element({"x": 1}).flag("x") is None
    assert odd.notes == {
        "Test.a: a list where one value was expected",
        "Test.a: something of an unexpected kind was skipped",
        "Test.b: something of an unexpected kind was skipped",
        "Test.c: something of an unexpected kind was skipped",
        "Test.e: not a boolean",
        "Test.f: not a number that can be shown",
        "Test.h: a coded value without text, display or code",
    }


def test_a_concept_is_named_by_text_then_display_then_code() -> None:
    coding = {"system": "s", "code": "c", "display": "d"}
    assert concept_of({"text": "t", "coding": [coding]}).name == "t"
    assert concept_of({"coding": [{"system": "s"}, coding]}).name == "d"
    assert concept_of({"coding": coding}).name == "d"
    assert concept_of({"coding": [{"code": 7}]}).name == "7"
    assert concept_of(coding).name == "d"
    assert concept_of("  plain\n text ").name == "plain text"
    assert concept_of(5) == concept_of("") == concept_of({}) == Concept("", ())
    assert concept_of({"coding": [coding]}).has(frozenset({("s", "c")}))
    assert concept_of({"text": "t"}).code("none") == "none"


def test_semantic_tags_are_removed_from_names_and_nothing_else_is() -> None:
    assert without_tag("Appendectomy (procedure)") == "Appendectomy"
    assert without_tag("Disorder of lung (disorder) ") == "Disorder of lung (disorder) "
    assert without_tag("Blood culture (aerobic)") == "Blood culture (aerobic)"
    assert without_tag("(finding)") == "(finding)"
    fact = fact_of("Condition", code={"coding": [{"code": "1", "display": "Gout (disorder)"}]})
    assert (fact.name, fact.codes[0].display) == ("Gout", "Gout (disorder)")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Decimal("6.10"), "6.10"),
        (Decimal("5E-7"), "0.0000005"),
        (Decimal("1E+3"), "1000"),
        (7, "7"),
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        ("5.4", "5.4"),
        (-2, "-2"),
    ],
)
def test_numbers_are_printed_as_recorded_and_never_with_an_exponent(value: Any, shown: str) -> None:
    number = as_number(value)
    assert number is not None
    assert digits(number) == shown


@pytest.mark.parametrize(
    "value", [True, None, "x", [], Decimal("1e400000"), Decimal("NaN"), 10**80, "1e999", float("inf")]
)
def test_what_is_no_measurement_is_no_number(value: Any) -> None:
    assert as_number(value) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6))
def test_a_dose_has_no_trailing_zero_and_no_naked_point(number: Decimal) -> None:
    shown = dose_digits(number)
    assert Decimal(shown) == number
    assert not shown.startswith((".", "-."))
    assert not shown.endswith(".")
    assert "." not in shown or not shown.endswith("0")


def test_one_line_keeps_every_word() -> None:
    assert one_line(" a\r\n\tb\u2028c  d ") == "a b c d"
    assert html_line("<p>a &lt; b</p><br/>c&amp;lt;") == "a < b c&lt;"


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("valueQuantity", {"value": 5, "unit": "mg", "comparator": ">="}, ">=5 mg"),
        ("valueQuantity", {"value": 5, "code": "mg", "comparator": "ad"}, "ad 5 mg"),
        ("valueQuantity", "5.8 %", "5.8 %"),
        ("valueQuantity", [{"value": 5}], "5"),
        ("valueMoney", {"value": 5, "currency": "EUR"}, "5 EUR"),
        ("valueInteger", 3, "3"),
        ("valueBoolean", True, "yes"),
        ("valueBoolean", False, "no"),
        ("valueString", "two\nlines", "two lines"),
        ("valueDateTime", "2019-05-04", "04-May-2019"),
        ("valueDateTime", "soon", "soon"),
        ("valueTime", "14:05:00", "14:05:00"),
        ("valueCodeableConcept", {"text": "Positive"}, "Positive"),
        ("valueRange", {"low": {"value": 1, "unit": "h"}, "high": {"value": 2, "unit": "h"}}, "1–2 h"),
        ("valueRange", {"low": {"value": 1, "unit": "h"}, "high": {"value": 2, "unit": "d"}}, "1 h–2 d"),
        ("valueRange", {"low": {"value": 1, "unit": "h"}}, "≥1 h"),
        ("valueRange", {"high": {"value": 2, "unit": "d"}}, "≤2 d"),
        ("valueRatio", {"numerator": {"value": 1}, "denominator": {"value": 128}}, "1:128"),
        (
            "valueRatio",
            {"numerator": {"value": 1, "unit": "g"}, "denominator": {"value": 1, "unit": "L"}},
            "1 g per 1 L",
        ),
        ("valuePeriod", {"start": "2019", "end": "2020"}, "from 2019 to 2020"),
        ("valueSampledData", {"data": "1 2"}, "a waveform, not shown"),
        ("valueAttachment", {}, "an attachment, not read: no title"),
        ("valueIdentifier", {"value": "77"}, "77"),
        ("valueTiming", {"code": {"text": "BID"}}, "BID"),
    ],
)
def test_every_kind_of_value_is_shown(field: str, value: Any, shown: str) -> None:
    assert text_of("Observation", status="final", code=named("x"), **{field: value}) == f"x: {shown}"


@pytest.mark.parametrize("value", [{"unit": "mg"}, {"value": Decimal("1e99999")}, [], None, [5]])
def test_a_value_that_cannot_be_read_says_so(value: Any) -> None:
    record = record_of(resource("Observation", status="final", code=named("x"), valueQuantity=value))
    text = record.facts[-1].text
    assert text in ("x: a value that could not be read", "x: 5")


def test_a_reference_as_a_value_shows_nothing_by_itself() -> None:
    assert read_value(element({"valueReference": {"display": "z"}}), "value", lambda _: None) == NO_VALUE
    assert read_value(element({}), "value", lambda _: None) == NO_VALUE
    assert show_ratio(element({"numerator": {"value": 1}})) == ""


def test_two_values_are_noted_and_one_is_shown() -> None:
    record = record_of(
        resource("Observation", status="final", code=named("x"), valueString="a", valueInteger=1)
    )
    assert record.facts[-1].value == "1"
    assert "Observation.value[x]: value of two types" in record.problems


def test_lengths_of_time() -> None:
    assert (count(Decimal(1), "d"), count(Decimal("8.0"), "h"), count(Decimal(2), "x")) == (
        "1 day",
        "8 hours",
        "2 x",
    )
    assert read_quantity(element({"value": 10, "unit": "IU"}), dose=True).text == "10 international units"  # type: ignore[union-attr]
