"""Charts for the tests of the context: real JSON, assembled as in a run."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from service.context.choose import choose_facts
from service.context.chosen import Context, Line
from service.context.layout import label_facts
from service.context.pivot import tables_of
from service.context.render import whole_chat
from service.context.stay import Stay
from service.context.templates import available, load
from service.engine.prompt import Message, Profile
from service.record.facts import Fact, Kind, PatientRecord
from service.record.required import required_facts
from tests.unit.record.charts import named, record_of, resource

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
SETS = {name: load(name) for name in available()}
HISTORY = SETS["history"]
FREE = Profile("test", "free", 8192, 1024, 0.0)
GUIDED = Profile("test", "guided", 8192, 512, 0.0, facts_per_request=2)
END = "END OF RECORD."


def count(chat: tuple[Message, ...]) -> int:
    """Words, and three for each message: what the tests count as tokens."""
    return sum(len(message.content.split()) + 3 for message in chat)


def observation(ident: str, name: str, on: str, category: str, **fields: Any) -> dict[str, Any]:
    """An Observation of a category, final where nothing else is said."""
    given = {
        "status": "final", "code": named(name), "effectiveDateTime": on,
        "category": [{"coding": [{"system": CATEGORY, "code": category}]}],
    } | fields  # fmt: skip
    recorded = {key: value for key, value in given.items() if value is not None}
    return {**resource("Observation", **recorded), "id": ident}


def quantity(value: str, unit: str, comparator: str = "") -> dict[str, Any]:
    """A Quantity with its digits as recorded."""
    compared = {"comparator": comparator} if comparator else {}
    return {"value": Decimal(value), "unit": unit, **compared}


def lab(
    ident: str, name: str = "Sodium", on: str = "2020-11-25", value: str = "140", unit: str = "mmol/L",
    comparator: str = "", **fields: Any,
) -> dict[str, Any]:  # fmt: skip
    """A laboratory result."""
    measured = {} if "valueString" in fields else {"valueQuantity": quantity(value, unit, comparator)}
    return observation(ident, name, on, "laboratory", **measured, **fields)


def vital(ident: str, value: str, on: str, name: str = "Pulse", **fields: Any) -> dict[str, Any]:
    """A vital sign."""
    return observation(ident, name, on, "vital-signs", valueQuantity=quantity(value, "/min"), **fields)


def pressure(ident: str, systolic: str, diastolic: str, on: str, **fields: Any) -> dict[str, Any]:
    """A blood pressure of two components."""
    parts = [
        {"code": named(name), "valueQuantity": quantity(value, "mm[Hg]")}
        for name, value in (("systolic", systolic), ("diastolic", diastolic))
    ]
    return observation(ident, "Blood pressure", on, "vital-signs", component=parts, **fields)


def flag(code: str) -> list[dict[str, Any]]:
    """An interpretation."""
    return [{"coding": [{"system": INTERPRETATION, "code": code}]}]


def updated(item: dict[str, Any], at: str) -> dict[str, Any]:
    """The resource as a server gives it that last touched it then."""
    return {**item, "meta": {"versionId": "1", "lastUpdated": at}}


def problem(ident: str, name: str, since: str = "2011-03-04", state: str = "active") -> dict[str, Any]:
    """A Condition."""
    return {
        **resource("Condition", code=named(name), onsetDateTime=since, clinicalStatus=named(state)),
        "id": ident,
    }


def facts_in(record: PatientRecord, kind: Kind) -> list[Fact]:
    """The facts of one kind."""
    return [fact for fact in record.facts if fact.kind is kind]


def rows(
    *resources: dict[str, Any], kind: Kind = Kind.RESULT, latest: frozenset[str] = frozenset()
) -> list[Line]:
    """The lines of all results, or vital signs, of a chart of these resources."""
    record = record_of(*resources)
    labels = label_facts(record)
    newest = [fact.id for fact in record.facts if fact.id in latest]
    tables = tables_of(record.facts, kind)
    return list(tables.rows(facts_in(record, kind), lambda fact: labels[fact.id], frozenset(newest)))


def told(*resources: dict[str, Any], kind: Kind = Kind.RESULT) -> list[str]:
    """The same as text: `[label] line`."""
    return [
        f"[{line.label}] {line.text}" if line.label else line.text for line in rows(*resources, kind=kind)
    ]


def choose(
    record: PatientRecord, budget: int = 100_000, templates: str = "history", stay: Stay | None = None
) -> Context:
    """Choose with the rules of the product."""
    required = required_facts(record, encounter=stay.reference if stay else None)
    return choose_facts(record, required, SETS[templates], FREE, budget, count, stay=stay)


def prompt_of(context: Context, templates: str = "history") -> str:
    """The whole prompt as one text."""
    return "\n".join(message.content for message in whole_chat(context, SETS[templates], FREE))
