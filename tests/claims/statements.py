"""What one cited resource says, read from its raw JSON: the material of claims about single resources.

A statement keeps its meaning in `said` (recorded names, numbers with their digits, ISO days);
how it is worded is decided later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.claims.charts import Chart, Resource, code_in, day_of, number_of, product_of, text_of
from tests.claims.speak import FREQUENCIES, simple_product

VITALS = {
    "Body Weight",
    "Body Height",
    "Heart rate",
    "Respiratory rate",
    "Body Mass Index",
    "Body temperature",
    "Oxygen saturation in Arterial blood",
}
SEEN_DEAD = "Death Certification"


@dataclass(frozen=True)
class Statement:
    """One thing that is true of a chart, with the references that bear it out."""

    kind: str
    chart: Chart = field(repr=False)
    cites: tuple[str, ...]
    said: Mapping[str, str]


def read_statements(chart: Chart) -> Iterator[Statement]:
    """Yield every statement about a single resource of the chart."""
    for reader in (_results, _problems, _drugs, _procedures, _visits, _history, _care, _reports):
        yield from reader(chart)


def _results(chart: Chart) -> Iterator[Statement]:
    for reference, resource in chart.of_type("Observation"):
        day = day_of(resource.get("effectiveDateTime"))
        name = text_of(resource.get("code"))
        if day is None:
            continue
        said = {"name": name, "date": day.isoformat()}
        quantity = resource.get("valueQuantity")
        if quantity and quantity.get("unit"):
            kind = "vital" if name in VITALS else "result"
            more = {"value": number_of(quantity), "unit": str(quantity["unit"])}
            yield Statement(kind, chart, (reference,), said | more)
        elif name == "Blood Pressure":
            yield Statement("bp", chart, (reference,), said | {"value": pressure(resource), "unit": "mm[Hg]"})


def pressure(resource: Resource) -> str:
    """Return `127/80` of a blood pressure's components."""
    parts = {code_in(part["code"]): number_of(part["valueQuantity"]) for part in resource["component"]}
    return f"{parts['8480-6']}/{parts['8462-4']}"


def _problems(chart: Chart) -> Iterator[Statement]:
    found = list(chart.of_type("Condition"))
    states = Counter(text_of(r.get("code")) for _, r in found)
    for reference, resource in found:
        name = text_of(resource.get("code"))
        begun, ended = day_of(resource.get("onsetDateTime")), day_of(resource.get("abatementDateTime"))
        if states[name] > 1 or begun is None:
            continue
        said = {"name": name, "date": begun.isoformat()}
        sites = resource.get("bodySite")
        if sites:
            side, site = text_of(sites[0]).split(" ", 1)
            yield Statement("sided", chart, (reference,), said | {"side": side.lower(), "site": site})
        if code_in(resource.get("clinicalStatus")) == "active":
            yield Statement("active", chart, (reference,), said)
        elif ended:
            yield Statement("resolved", chart, (reference,), said | {"end_date": ended.isoformat()})


def ingredient(product: str) -> str:
    """Return what makes two products the same drug: the ingredient where it is known."""
    simple = simple_product(product)
    return simple[0].lower() if simple else product.lower()


def _drugs(chart: Chart) -> Iterator[Statement]:
    orders = [(ref, order, product_of(chart, order)) for ref, order in chart.of_type("MedicationRequest")]
    active = {ingredient(product) for _, order, product in orders if order.get("status") == "active"}
    stopped = {ingredient(product) for _, order, product in orders if order.get("status") == "stopped"}
    for reference, order, product in orders:
        day = day_of(order.get("authoredOn"))
        mixed = ingredient(product) in active & stopped
        if day is None or not product or mixed or order["status"] not in ("active", "stopped"):
            continue
        said = {"product": product, "date": day.isoformat()}
        simple = simple_product(product)
        if simple:
            said |= {"drug": simple[0], "dose": simple[1]}
            frequency = how_often(order)
            if frequency:
                said["freq"] = frequency
        kind = "med_active" if order["status"] == "active" else "med_stopped"
        yield Statement(kind, chart, (reference,), said)


def how_often(order: Resource) -> str:
    """Return `2/d` for an order with plain timing, else nothing."""
    dosage = (order.get("dosageInstruction") or [{}])[0]
    repeat = (dosage.get("timing") or {}).get("repeat") or {}
    if dosage.get("text") or dosage.get("asNeededBoolean") or repeat.get("period") != 1:
        return ""
    key = (int(repeat.get("frequency", 0)), str(repeat.get("periodUnit")))
    return f"{key[0]}/{key[1]}" if key in FREQUENCIES else ""


def _procedures(chart: Chart) -> Iterator[Statement]:
    for reference, resource in chart.of_type("Procedure"):
        name, status = text_of(resource.get("code")), resource.get("status")
        period = resource.get("performedPeriod") or {}
        day = day_of(resource.get("performedDateTime") or period.get("start"))
        if status == "completed" and day:
            said = {"name": name, "date": day.isoformat()}
            yield Statement("procedure", chart, (reference,), said)
            sites = resource.get("bodySite")
            if sites:
                side, site = text_of(sites[0]).split(" ", 1)
                yield Statement("sided", chart, (reference,), said | {"side": side.lower(), "site": site})
        elif status == "not-done":
            said = {"name": name, "reason": text_of(resource.get("statusReason"))}
            yield Statement("not_done", chart, (reference,), said)
    for reference, resource in chart.of_type("ServiceRequest"):
        said = {"name": text_of(resource.get("code")), "date": resource["occurrenceDateTime"]}
        yield Statement("planned", chart, (reference,), said)


def _visits(chart: Chart) -> Iterator[Statement]:
    for reference, resource in chart.of_type("Encounter"):
        name = text_of((resource.get("type") or [{}])[0])
        begun = day_of(resource["period"]["start"])
        if begun and name != SEEN_DEAD:
            yield Statement("encounter", chart, (reference,), {"name": name, "date": begun.isoformat()})
    for reference, resource in chart.of_type("Immunization"):
        given = day_of(resource.get("occurrenceDateTime"))
        if given and resource.get("status") == "completed":
            said = {"name": text_of(resource.get("vaccineCode")), "date": given.isoformat()}
            yield Statement("immunization", chart, (reference,), said)


def allergen(recorded: str) -> str:
    """Return `bee venom` of `Allergy to bee venom`, `Latex` of `Latex allergy`."""
    name = recorded.removeprefix("Allergy to ").removesuffix(" allergy")
    return "animal dander" if name == "Dander (animal)" else name


def _history(chart: Chart) -> Iterator[Statement]:
    for reference, resource in chart.of_type("AllergyIntolerance"):
        if code_in(resource.get("clinicalStatus")) != "active":
            continue
        said = {"name": allergen(text_of(resource["code"])), "criticality": str(resource["criticality"])}
        if "reaction" in resource:
            said["reaction"] = text_of(resource["reaction"][0]["manifestation"][0])
        yield Statement("allergy", chart, (reference,), said)
    for reference, resource in chart.of_type("FamilyMemberHistory"):
        said = {
            "relation": text_of(resource["relationship"]),
            "name": text_of(resource["condition"][0]["code"]),
        }
        yield Statement("family", chart, (reference,), said)


def _care(chart: Chart) -> Iterator[Statement]:
    plans = list(chart.of_type("CarePlan"))
    names = Counter(text_of(plan["category"][-1]) for _, plan in plans)
    for reference, plan in plans:
        name, begun = text_of(plan["category"][-1]), day_of(plan["period"]["start"])
        if plan["status"] == "active" and names[name] == 1 and begun:
            activity = text_of(plan["activity"][0]["detail"]["code"])
            said = {"name": name, "date": begun.isoformat(), "activity": activity}
            yield Statement("care_plan", chart, (reference,), said)
    for reference, device in chart.of_type("Device"):
        said = {"name": text_of(device["type"]), "serial": str(device["serialNumber"])}
        yield Statement("device", chart, (reference,), said)


def _reports(chart: Chart) -> Iterator[Statement]:
    for reference, report in chart.of_type("DiagnosticReport"):
        day = day_of(report.get("effectiveDateTime"))
        if report.get("conclusion") and day:
            said = {
                "name": text_of(report["code"]),
                "date": day.isoformat(),
                "finding": report["conclusion"],
            }
            yield Statement("conclusion", chart, (reference,), said)
