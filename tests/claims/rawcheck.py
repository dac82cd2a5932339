"""Is what a claim says true of the raw JSON it cites? A second reading, apart from the one that wrote it.

It judges the meaning of a claim (`said`), not its words, and knows nothing of the service.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from tests.claims.charts import Chart, code_in, product_of, text_of

Said = Mapping[str, str]
DATE_PATHS = (
    "effectiveDateTime",
    "onsetDateTime",
    "authoredOn",
    "performedDateTime",
    "occurrenceDateTime",
    "date",
)


def bears_out(kind: str, chart: Chart, cites: tuple[str, ...], said: Said, shown: frozenset[str]) -> bool:
    """Return whether the cited resources say what the wording shows (`shown`: keys of `said`)."""
    cited = [chart.resources[reference] for reference in cites if reference in chart.resources]
    if kind in WHOLE:
        return WHOLE[kind](chart, cited, said, shown)
    return any(_one(kind, chart, resource, said, shown) for resource in cited)


def _starts(resource: Any) -> set[str]:
    found = {resource[path][:10] for path in DATE_PATHS if path in resource}
    for path in ("performedPeriod", "period"):
        if "start" in resource.get(path, {}):
            found.add(resource[path]["start"][:10])
    return found


def _ends(resource: Any) -> set[str]:
    found = {resource["abatementDateTime"][:10]} if "abatementDateTime" in resource else set()
    return found | ({resource["period"]["end"][:10]} if "end" in resource.get("period", {}) else set())


def _names(chart: Chart, resource: Any) -> set[str]:
    concepts = [resource.get(key) for key in ("code", "vaccineCode")]
    kind = resource["resourceType"]
    if isinstance(resource.get("type"), list):
        concepts += resource["type"]
    elif kind == "Device":
        concepts.append(resource["type"])
    concepts += resource.get("category", [])[-1:] if kind == "CarePlan" else []
    concepts += (
        [each["code"] for each in resource.get("condition", [])] if kind == "FamilyMemberHistory" else []
    )
    names = {text_of(concept) for concept in concepts if concept}
    if kind == "AllergyIntolerance":
        names |= {re.sub(r"^Allergy to | allergy$", "", name) for name in names}
        names |= {"animal dander"} if "Dander (animal) allergy" in names else set()
    return names | ({product_of(chart, resource)} if kind == "MedicationRequest" else set())


TYPES = {
    "result": "Observation",
    "vital": "Observation",
    "bp": "Observation",
    "active": "Condition",
    "resolved": "Condition",
    "med_active": "MedicationRequest",
    "med_stopped": "MedicationRequest",
    "procedure": "Procedure",
    "not_done": "Procedure",
    "planned": "ServiceRequest",
    "encounter": "Encounter",
    "immunization": "Immunization",
    "allergy": "AllergyIntolerance",
    "family": "FamilyMemberHistory",
    "device": "Device",
    "care_plan": "CarePlan",
    "conclusion": "DiagnosticReport",
    "sided": "Condition Procedure",
    "age": "Condition",
    "duration": "Condition",
    "stay": "Encounter",
}
STATES = {
    "active": "active",
    "resolved": "resolved",
    "med_active": "active",
    "med_stopped": "stopped",
    "procedure": "completed",
    "not_done": "not-done",
    "planned": "active",
    "care_plan": "active",
    "device": "active",
    "immunization": "completed",
    "allergy": "active",
}


def _one(kind: str, chart: Chart, resource: Any, said: Said, shown: frozenset[str]) -> bool:
    if resource["resourceType"] not in TYPES.get(kind, "").split():
        return False
    state = resource.get("status") or code_in(resource.get("clinicalStatus"))
    if kind in STATES and state != STATES[kind]:
        return False
    return all(key not in shown or _says(key, chart, resource, said) for key in said)


def _says(key: str, chart: Chart, resource: Any, said: Said) -> bool:
    check = KEYS.get(key)
    return check is None or check(chart, resource, said)


def _quantities(resource: Any) -> set[tuple[str, str]]:
    if "component" in resource:
        parts = {
            code_in(p["code"]): p["valueQuantity"] for p in resource["component"] if "valueQuantity" in p
        }
        if "8480-6" not in parts:
            return set()
        return {(f"{parts['8480-6']['value']}/{parts['8462-4']['value']}", "mm[Hg]")}
    quantity = resource.get("valueQuantity")
    return {(format(Decimal(str(quantity["value"])), "f"), quantity.get("unit", ""))} if quantity else set()


def _frequency(resource: Any) -> str:
    repeat = ((resource.get("dosageInstruction") or [{}])[0].get("timing") or {}).get("repeat") or {}
    return f"{repeat.get('frequency')}/{repeat.get('periodUnit')}" if repeat.get("period") == 1 else ""


def _product_has(chart: Chart, resource: Any, part: str) -> bool:
    product = f" {product_of(chart, resource).lower()} "
    return (
        resource["resourceType"] == "MedicationRequest"
        and re.search(rf"(?<![\w.]){re.escape(part)}(?![\w.])", product) is not None
    )


def _side(chart: Chart, resource: Any, said: Said) -> bool:
    return any(text_of(site).lower().split(" ")[0] == said["side"] for site in resource.get("bodySite", []))


def _reacts(chart: Chart, resource: Any, said: Said) -> bool:
    return said["reaction"] in {text_of(m) for r in resource.get("reaction", []) for m in r["manifestation"]}


def _days(chart: Chart, resource: Any, said: Said) -> bool:
    spans = {
        (date.fromisoformat(end) - date.fromisoformat(start)).days
        for start in _starts(resource)
        for end in _ends(resource)
    }
    return int(said["days"]) in spans


def _age(chart: Chart, resource: Any, said: Said) -> bool:
    born = chart.patient["birthDate"]
    return any(_years(born, day) == int(said["age"]) for day in _starts(resource))


def _years(born: str, day: str) -> int:
    return int(day[:4]) - int(born[:4]) - (day[5:] < born[5:])


KEYS: dict[str, Callable[[Chart, Any, Said], bool]] = {
    "name": lambda chart, r, said: said["name"] in _names(chart, r),
    "value": lambda chart, r, said: (said["value"], said["unit"]) in _quantities(r),
    "date": lambda chart, r, said: said["date"] in _starts(r),
    "end_date": lambda chart, r, said: said["end_date"] in _ends(r),
    "product": lambda chart, r, said: said["product"] == product_of(chart, r),
    "drug": lambda chart, r, said: _product_has(chart, r, said["drug"].lower()),
    "dose": lambda chart, r, said: _product_has(chart, r, said["dose"].lower()),
    "freq": lambda chart, r, said: said["freq"] == _frequency(r),
    "side": _side,
    "site": lambda chart, r, said: any(
        text_of(s).lower().endswith(said["site"]) for s in r.get("bodySite", [])
    ),
    "reason": lambda chart, r, said: text_of(r.get("statusReason")) == said["reason"],
    "criticality": lambda chart, r, said: r.get("criticality") == said["criticality"],
    "reaction": _reacts,
    "relation": lambda chart, r, said: text_of(r.get("relationship")) == said["relation"],
    "serial": lambda chart, r, said: r.get("serialNumber") == said["serial"],
    "activity": lambda chart, r, said: any(
        text_of(a["detail"]["code"]) == said["activity"] for a in r["activity"]
    ),
    "finding": lambda chart, r, said: r.get("conclusion") == said["finding"],
    "days": _days,
    "age": _age,
}


def _all_of(chart: Chart, name: str) -> list[tuple[str, Decimal]]:
    """Return (day, number) of every value recorded under a name, in the whole record."""
    found = []
    for _, resource in chart.of_type("Observation"):
        if name in _names(chart, resource) and "valueQuantity" in resource:
            found.append(
                (resource["effectiveDateTime"][:10], Decimal(str(resource["valueQuantity"]["value"])))
            )
    return sorted(found)


def _cites_value(chart: Chart, cited: list[Any], said: Said) -> bool:
    keys = ("name", "value", "date")
    return any(all(_says(key, chart, resource, said) for key in keys) for resource in cited)


def _place(kind: str) -> Callable[[Chart, list[Any], Said, frozenset[str]], bool]:
    def check(chart: Chart, cited: list[Any], said: Said, shown: frozenset[str]) -> bool:
        if not _cites_value(chart, cited, said):
            return False
        every = _all_of(chart, said["name"])
        numbers = [number for _, number in every]
        if kind == "latest":
            return said["date"] == every[-1][0]
        if kind == "first":
            return said["date"] == every[0][0]
        if kind == "no_other":
            return len(every) == 1
        return Decimal(said["value"]) == (max(numbers) if said["end"] == "highest" else min(numbers))

    return check


def _paired(chart: Chart, cited: list[Any], said: Said, shown: frozenset[str]) -> bool:
    ends = []
    for part in ("first", "second"):
        wanted = {
            "name": said["name"],
            "unit": said["unit"],
            "value": said[part],
            "date": said[f"{part}_date"],
        }
        ends.append(_cites_value(chart, cited, wanted))
    one, two = Decimal(said["first"]), Decimal(said["second"])
    moved = (two > one) if said["direction"] == "up" else (two < one)
    twice = two > 2 * one if said.get("twofold") else True
    return all(ends) and moved and abs(two - one) == Decimal(said["diff"]) and twice


def _doubled(chart: Chart, cited: list[Any], said: Said, shown: frozenset[str]) -> bool:
    return _paired(chart, cited, {**said, "twofold": "yes"}, shown)


def _counted(chart: Chart, cited: list[Any], said: Said, shown: frozenset[str]) -> bool:
    named = [resource for resource in cited if said["name"] in _names(chart, resource)]
    return len(named) == len(_all_of(chart, said["name"])) == int(said["n"])


def _negated(chart: Chart, cited: list[Any], said: Said, shown: frozenset[str]) -> bool:
    """A denial is true unless a cited resource says that what is denied is there."""
    return not any(said.get("of", said["name"]) in _names(chart, resource) for resource in cited)


def _never(chart: Chart, cited: list[Any], said: Said, shown: frozenset[str]) -> bool:
    return not any(said["name"] in _names(chart, resource) for resource in chart.resources.values())


WHOLE: dict[str, Callable[[Chart, list[Any], Said, frozenset[str]], bool]] = {
    **{kind: _place(kind) for kind in ("latest", "first", "no_other", "extreme")},
    "change": _paired,
    "difference": _paired,
    "doubled": _doubled,
    "count": _counted,
    "negated": _negated,
    "never": _never,
}
