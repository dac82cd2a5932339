"""Required facts: windows, caps, limits by age and unit, and the data file itself."""

from __future__ import annotations

import tomllib
from base64 import b64encode
from decimal import Decimal
from typing import Any

import pytest

from connectors.fhir.pull import Gap, GapReason
from service.record.assemble import assemble_record
from service.record.facts import Absence, PatientRecord, RequiredKind
from service.record.identity import age_on
from service.record.required import required_facts
from service.record.rules import default_rules, load_rules
from tests.unit.record.charts import named, patient, record_of, resource

LOINC = "http://loinc.org"


def kind_of(record: PatientRecord, key: str, **options: Any) -> RequiredKind:
    return next(k for k in required_facts(record, **options) if k.key == key)


def potassium(value: Any, unit: str = "mmol/L", day: str = "2020-01-01", **fields: Any) -> dict[str, Any]:
    quantity = {"value": value, "unit": unit, **fields}
    return resource(
        "Observation",
        status="final",
        code=named("Potassium", LOINC, "2823-3"),
        effectiveDateTime=day,
        valueQuantity=quantity,
    )


@pytest.mark.parametrize(
    ("observation", "is_critical"),
    [
        (potassium(Decimal("2.4")), True),
        (potassium(Decimal("2.5")), False),
        (potassium(Decimal("2.5"), comparator="<"), True),
        (potassium(Decimal("6.5"), comparator=">"), True),
        (potassium(Decimal("6.6")), True),
        (potassium(Decimal("6.6"), unit="mg/dL"), False),
        ({**potassium(Decimal("6.6")), "status": "cancelled"}, False),
        ({**potassium(4), "code": named("Potassium")}, False),
        ({**potassium(4), "interpretation": [named("Critical high")]}, True),
        ({**potassium(4), "interpretation": [named("High")]}, False),
        ({**potassium(4), "status": "corrected"}, True),
        (resource("DiagnosticReport", status="preliminary", code=named("x")), True),
    ],
)
def test_critical_results(observation: dict[str, Any], is_critical: bool) -> None:
    assert bool(kind_of(record_of(observation), "results").facts) is is_critical


def test_adult_limits_do_not_hold_for_a_child() -> None:
    child = patient(birthDate="2019-06-01")
    assert not kind_of(assemble_record([child, potassium(Decimal("6.6"))]), "results").facts
    undated = {**potassium(Decimal("6.6"))}
    del undated["effectiveDateTime"]
    assert kind_of(assemble_record([patient(), undated]), "results").facts


def test_a_window_counts_back_from_the_newest_time_and_keeps_undated_facts() -> None:
    def order(ident: str, **fields: Any) -> dict[str, Any]:
        return {
            **resource("ServiceRequest", status="active", intent="order", code=named("x"), **fields),
            "id": ident,
        }

    record = record_of(
        resource("Observation", code=named("x"), effectiveDateTime="2020-06-01"),
        order("in", authoredOn="2020-03-10"),
        order("out", authoredOn="2020-02-01"),
        order("month", authoredOn="2020-03"),
        order("undated"),
        order("here", authoredOn="2019-01-01", encounter={"reference": "Encounter/9"}),
    )
    ids = [i.removeprefix("ServiceRequest/") for i in kind_of(record, "orders").facts]
    assert ids == ["undated", "in", "month"]
    here = kind_of(record, "orders", encounter="Encounter/9")
    assert "ServiceRequest/here" in here.facts


def test_a_cap_counts_what_it_hides() -> None:
    conditions = [{**resource("Condition", code=named(f"c{n}")), "id": str(n)} for n in range(70)]
    kind = kind_of(record_of(*conditions), "problems")
    assert (len(kind.facts), kind.hidden) == (60, 10)


def test_weight_is_required_under_18_and_where_the_age_is_unknown() -> None:
    weight = resource(
        "Observation",
        status="final",
        code=named("Weight", LOINC, "29463-7"),
        effectiveDateTime="2020-01-01",
        valueQuantity={"value": 10, "unit": "kg"},
    )
    for born, required in (
        ("2002-01-02", True),
        ("2002-01-01", False),
        ("2002", True),
        ("2001", False),
        ("", True),
    ):
        record = assemble_record([patient(birthDate=born), weight])
        assert ("weight" in {k.key for k in required_facts(record)}) is required
    assert "weight" in {k.key for k in required_facts(record_of())}
    assert age_on("2002", record_of(weight).as_of.day) == 17  # type: ignore[union-attr]


def test_an_alert_of_any_name_and_isolation_orders_are_listed_but_no_social_isolation() -> None:
    record = record_of(
        {**resource("Flag", status="active", code=named("Fall risk")), "id": "fall"},
        {**resource("Flag", status="inactive", code=named("MRSA")), "id": "old"},
        {**resource("ServiceRequest", status="active", code=named("Droplet precautions")), "id": "droplet"},
        {
            **resource("ServiceRequest", status="active", code=named("Social isolation support")),
            "id": "social",
        },
    )
    assert set(kind_of(record, "isolation").facts) == {"Flag/fall", "ServiceRequest/droplet"}


def test_a_directive_document_is_listed_and_is_no_conflict() -> None:
    order = {
        **resource("ServiceRequest", status="active", intent="order", code=named("Do not resuscitate")),
        "id": "o",
    }
    form = resource("DocumentReference", status="current", type=named("POLST form"))
    kind = kind_of(record_of(order, form), "directives")
    assert set(kind.facts) == {"ServiceRequest/o", "DocumentReference/x"}
    assert kind.conflict == ""
    contrary = {**order, "id": "p", "doNotPerform": True}
    assert "NOT Do not resuscitate (undated)" in kind_of(record_of(order, contrary), "directives").conflict


def test_a_directive_note_counts_itself_and_not_each_of_its_sentences() -> None:
    text = b64encode(b"Full code was discussed. She wants everything done for now.").decode()
    form = resource(
        "DocumentReference", status="current", type=named("Advance directive"),
        content=[{"attachment": {"contentType": "text/plain", "data": text}}],
    )  # fmt: skip
    record = record_of(form)
    assert len(record.facts) > 2
    assert kind_of(record, "directives").facts == ("DocumentReference/x",)


def test_no_gap_means_a_complete_search_and_an_optional_type_is_no_gap() -> None:
    gaps = (Gap("DeviceUseStatement", GapReason.NOT_SUPPORTED), Gap("Flag", GapReason.NOT_SUPPORTED))
    record = record_of(gaps=gaps)
    assert kind_of(record, "devices").state is Absence.NONE_RECORDED
    assert kind_of(record, "isolation").state is Absence.NOT_RETRIEVED


def test_every_rule_of_the_data_file_is_well_formed() -> None:
    rules = default_rules()
    assert [r.key for r in rules.rules if r.essential] == ["allergies", "problems", "medications"]
    assert [r.key for r in rules.rules] == [
        "identity",
        "allergies",
        "problems",
        "medications",
        "results",
        "orders",
        "directives",
        "isolation",
        "devices",
        "weight",
    ]
    for rule in rules.rules:
        assert rule.title
        assert rule.kinds
        assert rule.types
        assert rule.cap > 0
        assert rule.sort in ("newest", "criticality")
        assert rule.conflict in ("none", "none_known", "differing", "medications", "weights")
        assert all(system and code for system, code in rule.match.codes | rule.none_known.codes)
    with pytest.raises(KeyError):
        rules.rule("none")


def test_a_site_may_bring_rules_of_its_own() -> None:
    text = """
        rules_version = "site"
        [[required]]
        key = "problems"
        title = "Problems"
        kinds = ["problem"]
        types = ["Condition"]
        statuses = ["active"]
        sort = "newest"
        cap = 1
        conflict = "none"
    """
    rules = load_rules(tomllib.loads(text))
    assert [k.key for k in required_facts(record_of(), rules=rules)] == ["problems"]
    with pytest.raises(ValueError, match="nonsense"):
        load_rules(tomllib.loads(text.replace('"problem"', '"nonsense"')))
