"""The charts that claims are made of: raw FHIR JSON by reference, and what a record keeps of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from service.record.assemble import assemble_record, resources_of
from service.record.facts import PatientRecord
from tests.conftest import synthea_bundles

Resource = Mapping[str, Any]


@dataclass(frozen=True)
class Chart:
    """One patient's raw resources by reference (`Observation/12`)."""

    name: str
    resources: Mapping[str, Resource]

    def of_type(self, *types: str) -> Iterator[tuple[str, Resource]]:
        for reference, resource in self.resources.items():
            if reference.partition("/")[0] in types:
                yield reference, resource

    @property
    def patient(self) -> Resource:
        return next(resource for _, resource in self.of_type("Patient"))

    @property
    def birth(self) -> date:
        return date.fromisoformat(self.patient["birthDate"])

    def record(self) -> PatientRecord:
        """Assemble the record that a judge is given."""
        return assemble_record(list(self.resources.values()))


def chart_of(name: str, resources: list[Any]) -> Chart:
    """Return a chart of raw resources."""
    return Chart(name, {f"{r['resourceType']}/{r['id']}": r for r in resources if "id" in r})


def synthea_charts(folder: Path) -> Iterator[Chart]:
    """Yield the charts of the original Synthea under `folder`, smallest first."""
    for name, bundle in synthea_bundles(folder):
        yield chart_of(name.split(".")[0], list(resources_of(bundle)))


def day_of(recorded: str | None) -> date | None:
    """Return the day of a FHIR date or instant as written, in its own offset."""
    return date.fromisoformat(recorded[:10]) if recorded and len(recorded) >= 10 else None


def text_of(concept: Any) -> str:
    """Return a CodeableConcept's text, else the first display."""
    if not isinstance(concept, Mapping):
        return ""
    codings = concept.get("coding") or [{}]
    return str(concept.get("text") or codings[0].get("display") or "")


def number_of(quantity: Mapping[str, Any]) -> str:
    """Return a Quantity's number with the digits it was recorded with."""
    value = quantity["value"]
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def product_of(chart: Chart, resource: Resource) -> str:
    """Return the product of a medication resource, through its Medication where it points to one."""
    if "medicationCodeableConcept" in resource:
        return text_of(resource["medicationCodeableConcept"])
    pointed = str((resource.get("medicationReference") or {}).get("reference", ""))
    medication = chart.resources.get(f"Medication/{pointed.rpartition(':')[2].rpartition('/')[2]}")
    return text_of(medication.get("code")) if medication else ""


def code_in(concept: Any) -> str:
    """Return the first code of a CodeableConcept."""
    return str(((concept or {}).get("coding") or [{}])[0].get("code", ""))
