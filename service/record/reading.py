"""What a reader may ask of the rest of the chart while it turns one resource into facts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Any

from service.record.dates import parse_when
from service.record.facts import (
    THE_PATIENT,
    Code,
    Extracted,
    Fact,
    FactId,
    Kind,
    Person,
    Resource,
    ResourceVersion,
    When,
)
from service.record.fhirjson import Element, concept_of, narrative, one_line
from service.record.references import References

A_DAY = timedelta(days=1)
"""By so much a clock or a zone may be out."""
_PEOPLE = ("Patient", "RelatedPerson", "Person", "Practitioner", "PractitionerRole", "Group")
_ROLE_WORDS = (
    ("fetus", re.compile(r"\bf(o)?et(us|al)\b", re.IGNORECASE)),
    ("newborn", re.compile(r"\b(new\s?born|neonat\w*|baby|infant)\b", re.IGNORECASE)),
    ("mother", re.compile(r"\b(mother|maternal|mom|mum)\b", re.IGNORECASE)),
)
_FETAL_NAME = re.compile(
    r"\bfetus\b|\bfetal (heart|movement|presentation|position|lie|weight|head|femur|abdom|biparietal|crown)",
    re.IGNORECASE,
)
"""Names that speak of the fetus. Not every "fetal" does: fetal hemoglobin is the patient's own."""


@dataclass(slots=True)
class Chart:
    """Everything that resources of one patient share while they are read."""

    patient: str
    """Own reference of the Patient: `Patient/1`."""
    accepted: frozenset[str]
    """References that mean this patient: itself and those it replaces."""
    references: References
    zone: tzinfo | None = None
    binaries: Mapping[str, bytes] = field(default_factory=dict)
    texts: Mapping[str, Extracted] = field(default_factory=dict)
    """Key of an attachment's content → what was read out of it outside the core."""
    readable: dict[str, Resource] = field(default_factory=dict)
    """Own reference → resource that may lend its name."""
    security: dict[str, tuple[Code, ...]] = field(default_factory=dict)
    """Reference of a readable resource → the labels that whatever names it must carry, where it has any."""
    hidden: set[str] = field(default_factory=set)
    """References whose content, display included, may not show: restricted, in error, AI output."""
    notes: set[str] = field(default_factory=set)
    binary_reads: dict[str, str] = field(default_factory=dict)
    """Attachment url → SHA-256 (hex) of the content that was read."""
    newest: When | None = None
    read_at: datetime | None = None
    """Aware: when the chart was read; nothing that happened can be later. None where it is not known."""
    _dates: dict[str, When | None] = field(default_factory=dict)

    def date(self, text: str) -> When | None:
        """Read a date in the site's zone; None for what is no date."""
        if text not in self._dates:
            self._dates[text] = parse_when(text, self.zone)
        return self._dates[text]

    def saw(self, when: When) -> None:
        """Take note of the time of something that happened."""
        if when is self.newest or (self.newest is not None and when.earliest < self.newest.earliest):
            return
        if self.newest is None or _newness(when) > _newness(self.newest):
            self.newest = when


def _newness(when: When) -> tuple[Any, ...]:
    return when.earliest, when.earliest - when.latest, when.recorded


class Reading:
    """One resource being read: makes its facts, and resolves what it refers to."""

    __slots__ = (
        "_contained",
        "_count",
        "_depth",
        "_person",
        "_updated",
        "chart",
        "encounter",
        "lent_security",
        "resource",
        "version",
    )

    def __init__(self, chart: Chart, resource: Element, version: ResourceVersion) -> None:
        self.chart = chart
        self.resource = resource
        self.version = version
        self.encounter = self._encounter()
        self.lent_security: list[Code] = []
        """Labels of the resources that were asked for a name."""
        self._count = 0
        self._depth = 0
        self._person: Person | None = None
        self._contained: dict[str, Element] | None = None
        updated = resource.child("meta").text("lastUpdated") if "meta" in resource.raw else ""
        self._updated = chart.date(updated) if updated else None

    def fact(self, kind: Kind, name: str, text: str, **fields: Any) -> Fact:
        """Make the next fact of this resource. `fields` are those of `Fact`."""
        self._count += 1
        reference = self.version.reference
        fact_id = FactId(reference if self._count == 1 else f"{reference}#{self._count}")
        person = fields.pop("person", None) or self.person(name)
        if person.role != "patient" and kind is not Kind.FAMILY_HISTORY:
            text = f"About {person.text or person.role}, not the patient: {text}"
        details = tuple((label, value) for label, value in fields.pop("details", ()) if value)
        fields.setdefault("encounter", self.encounter)
        return Fact(fact_id, kind, self.version, text, name, person=person, details=details, **fields)

    def when(self, element: Element, key: str) -> When | None:
        """Read a date that may lie in the future: planned, due, asserted for later."""
        text = element.text(key)
        if not text:
            return None
        when = self.chart.date(text)
        if when is None:
            element.note("not a date", key)
        return when

    def past(self, element: Element, key: str) -> When | None:
        """Read the date of something that happened; it counts for the record's newest time.

        A time after the resource's own last update, or after the record was read, cannot be right and does
        not count: one year mistyped would put everything else out of the windows of required facts.
        """
        when = self.when(element, key)
        if when is None:
            return None
        if self._updated is not None and when.earliest - self._updated.latest > A_DAY:
            element.note("a date after the resource's last update", key)
        elif self.chart.read_at is not None and when.earliest - self.chart.read_at > A_DAY:
            element.note("a date after the record was read", key)
        else:
            self.chart.saw(when)
        return when

    def occurred(
        self, element: Element, prefix: str, *, past: bool = True
    ) -> tuple[When | None, When | None]:
        """Read `<prefix>DateTime`, `<prefix>Instant` or `<prefix>Period` as (start, end)."""
        read = self.past if past else self.when
        for key in (f"{prefix}DateTime", f"{prefix}Instant", f"{prefix}Date"):
            if key in element.raw:
                return read(element, key), None
        period = element.child(f"{prefix}Period")
        return read(period, "start"), read(period, "end")

    def resolve(self, reference: str) -> Element | None:
        """Return the resource a reference means, contained ones included, where it may be read."""
        if reference.startswith("#"):
            return self._contained_ones().get(reference[1:])
        resolved = self.chart.references.resolve(reference)
        raw = self.chart.readable.get(resolved)
        self.lent_security.extend(self.chart.security.get(resolved, ()))
        return Element(raw, self.resource.path, self.resource.notes) if raw is not None else None

    def is_hidden(self, reference: str) -> bool:
        """Tell whether a reference leads to something whose content may not show."""
        return bool(reference) and self.chart.references.resolve(reference) in self.chart.hidden

    def name_of(self, holder: Element) -> str:
        """Return what a Reference is called: its display, else the name of the resource it means."""
        reference = holder.text("reference")
        if self.is_hidden(reference):
            return ""
        if reference and self.chart.references.resolve(reference) in self.chart.accepted:
            return "the patient"
        target = self.resolve(reference) if reference else None
        name = holder.text("display") or (self._name(target) if target else "")
        return f"{name} (refuted)" if name and target and is_refuted(target) else name

    def _name(self, resource: Element) -> str:
        if self._depth > 3:  # two roles or two mixtures may name each other
            return ""
        self._depth += 1
        try:
            return resource_name(resource, self)
        finally:
            self._depth -= 1

    def names_of(self, element: Element, key: str) -> str:
        """Return the names of every Reference under a key, separated by commas."""
        return ", ".join(name for holder in element.children(key) if (name := self.name_of(holder)))

    def reasons(self, element: Element, *keys: str) -> str:
        """Return coded reasons and the names of referenced ones, each once."""
        found: list[str] = []
        for key in keys or ("reasonCode", "reasonReference"):
            if key.endswith("Reference"):
                found += [name for holder in element.children(key) if (name := self.name_of(holder))]
            else:
                found += [concept.name for concept in element.concepts(key)]
        return ", ".join(dict.fromkeys(found))

    def name_or_narrative(self, name: str) -> str:
        """Return the name, or the resource's own narrative where it has none."""
        return name or narrative(self.resource)

    def person(self, name: str = "") -> Person:
        """Return whom this resource is about (SAFETY 2)."""
        if self._person is None:
            self._person = self._focus_person()
        if self._person is THE_PATIENT and _FETAL_NAME.search(name):
            return Person("fetus", "the fetus")
        return self._person

    def _focus_person(self) -> Person:
        raw = self.resource.raw
        holders = self.resource.children("focus") if raw.get("resourceType") == "Observation" else []
        for extension in self.resource.children("extension") if "extension" in raw else []:
            tail = one_line(extension.text("url")).rsplit("/", 1)[-1].lower()
            if "focus" in tail:
                kind, value = extension.choice("value")
                if kind == "Reference" and isinstance(value, dict):
                    holders.append(Element(value, self.resource.path, self.resource.notes))
                elif kind and (name := concept_of(value).name):
                    return Person(_role(name) or "other", name)
        return next((p for h in holders if (p := self._person_behind(h)) is not THE_PATIENT), THE_PATIENT)

    def _person_behind(self, holder: Element) -> Person:
        reference = holder.text("reference")
        target_reference = self.chart.references.resolve(reference) if reference else ""
        if target_reference in self.chart.accepted:
            return THE_PATIENT
        target = self.resolve(reference) if reference else None
        kind = target.text("resourceType") if target else ""
        kind = kind or holder.text("type") or target_reference.rsplit("/", 2)[-2:][0]
        name = holder.text("display")
        if kind not in _PEOPLE:
            role = _role(name)
            return Person(role, name) if role else THE_PATIENT
        relation = target.concept("relationship").name if target else ""
        words = relation or name
        role = _role(words) or ("relative" if kind == "RelatedPerson" else "other")
        return Person(role, words or "another person")

    def _contained_ones(self) -> dict[str, Element]:
        if self._contained is None:
            self._contained = {e.text("id"): e for e in self.resource.children("contained")}
        return self._contained

    def _encounter(self) -> str | None:
        raw = self.resource.raw
        holder = self.resource.child("encounter") if "encounter" in raw else self.resource.child("context")
        if "encounter" in holder.raw:
            holder = holder.child("encounter")
        reference = holder.text("reference")
        if not reference or "EpisodeOfCare/" in reference:
            return None
        return self.chart.references.resolve(reference)


def _role(words: str) -> str:
    return next((role for role, pattern in _ROLE_WORDS if pattern.search(words)), "")


_LENT = (
    "resourceType", "code", "name", "title", "vaccineCode", "type", "description", "verificationStatus",
    "practitioner", "deviceName", "modelNumber", "ingredient", "relationship", "data", "content",
    "contentType",
)  # fmt: skip
"""What readers ask of a resource that another one refers to: its name, and the text of a Binary."""


def what_it_lends(resource: Resource) -> Resource:
    """Return the part of a resource that others may show: all that is held of it while a chart is read."""
    return {key: resource[key] for key in _LENT if key in resource}


def is_refuted(resource: Element) -> bool:
    """Tell whether a condition or allergy is recorded as not present."""
    return "verificationStatus" in resource.raw and resource.concept("verificationStatus").code() == "refuted"


def resource_name(resource: Element, reading: Reading) -> str:
    """Return what a resource is called: a person's name, an organization's, a code's text."""
    kind = resource.text("resourceType")
    if kind in ("Practitioner", "RelatedPerson", "Person"):
        return person_name(resource)
    if kind == "PractitionerRole":
        return reading.name_of(resource.child("practitioner")) or resource.concept("code").name
    if kind == "Device":
        return device_name(resource)
    if kind == "Medication":
        return medication_name(resource, reading)
    return (
        resource.concept("code").name
        or resource.text("name")
        or resource.text("title")
        or resource.concept("vaccineCode").name
        or resource.concept("type").name
        or resource.concept("description").name
    )


def person_name(person: Element) -> str:
    """Return the first name of a person: its text, else prefix, given and family."""
    names = person.children("name")
    ranked = sorted(names, key=lambda n: {"official": 0, "usual": 1, "": 2}.get(n.text("use"), 3))
    return next((shown for name in ranked if (shown := human_name(name))), "")


def human_name(name: Element) -> str:
    """Show a HumanName on one line."""
    if name.text("text"):
        return name.text("text")
    return " ".join(
        [*name.texts("prefix"), *name.texts("given"), *name.texts("family"), *name.texts("suffix")]
    )


def device_name(device: Element) -> str:
    """Return what a Device is called: user-friendly name, type, model, in this order."""
    given = sorted(device.children("deviceName"), key=lambda n: n.text("type") != "user-friendly-name")
    name = next((shown for n in given if (shown := concept_of(n.raw.get("name")).name)), "")
    return name or device.concept("type").name or device.text("modelNumber")


def medication_name(medication: Element, reading: Reading) -> str:
    """Return what a Medication is called: its code, else its ingredients."""
    name = medication.concept("code").name
    if name:
        return name
    found = []
    for ingredient in medication.children("ingredient"):
        item = ingredient.concept("itemCodeableConcept").name
        found.append(item or reading.name_of(ingredient.child("itemReference")))
    return ", ".join(item for item in found if item)


def line(head: str, *parts: str) -> str:
    """Join a head and its parts to one line: `head: part; part`. Empty parts are left out."""
    kept = "; ".join(part for part in parts if part)
    return f"{head}: {kept}" if kept else head


def words(*parts: str) -> str:
    """Join the non-empty parts with spaces."""
    return " ".join(part for part in parts if part)


def clause(label: str, value: str) -> str:
    """`label: value`, or empty without a value."""
    return f"{label}: {value}" if value else ""


Details = tuple[tuple[str, str], ...]


def kept(*pairs: tuple[str, str]) -> Details:
    """Return the (label, text) pairs that have a text."""
    return tuple((label, value) for label, value in pairs if value)


def tell(details: Details) -> list[str]:
    """Return each pair as `label: text`."""
    return [f"{label}: {value}" for label, value in details]
