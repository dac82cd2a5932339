"""Observation → result, vital sign, social fact or directive: values exactly as recorded (SAFETY 11)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from service.record.dates import on_day, span
from service.record.facts import Fact, Kind, Quantity, Status, When
from service.record.fhirjson import Concept, Element, one_line
from service.record.reading import Details, Reading, clause, kept, line, tell, words
from service.record.rules import is_directive, is_preference
from service.record.statuses import RESULT, Standing, read_status
from service.record.values import read_quantity, read_value, show_range

LOINC = "http://loinc.org"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
MAX_COMPONENTS_IN_A_LINE = 4
"""A panel with more components becomes one fact each, so that a citation stays narrow."""

_VITALS = frozenset(
    (LOINC, code)
    for code in (
        "85353-1", "9279-1", "8867-4", "2708-6", "59408-5", "8310-5", "8302-2", "9843-4", "29463-7",
        "39156-5",
        "85354-9", "8480-6", "8462-4", "8478-0",
    )
)  # fmt: skip
"""FHIR's vital signs profile, for records that leave the category out."""
_PRESSURES = {"8480-6": "systolic", "8462-4": "diastolic"}
_REMARKS = frozenset(("method", "bodySite", "hasMember", "focus", "note", "comment", "comments"))
_SOCIAL = ("social-history", "sdoh", "survey")


class _Show(NamedTuple):
    text: str
    quantity: Quantity | None
    flags: tuple[str, ...]
    reference_range: str
    recorded: bool


class _Setting(NamedTuple):
    """What all statements of one Observation share."""

    kind: Kind
    category: str
    standing: Standing
    start: When | None
    end: When | None
    details: Details
    author: str


def read_observation(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield one fact; for a panel of many components one for each, so that a citation stays narrow."""
    concept = resource.concept("code")
    name = reading.name_or_narrative(concept.name)
    show = _show(resource, reading)
    parts = _components(resource.children("component"), reading)
    if not name and not show.recorded and not parts:
        return
    whole = _Part(name or "Observation", concept, show)
    setting = _setting(resource, reading, whole)
    is_small = len(parts) <= MAX_COMPONENTS_IN_A_LINE
    if is_small or show.recorded:
        yield _fact(whole, setting, reading, parts if is_small else [])
    if not is_small:
        yield from (_fact(part, setting, reading, [], panel=name) for part in parts)


def _setting(resource: Element, reading: Reading, whole: _Part) -> _Setting:
    start, end = _time(resource, reading)
    categories = resource.concepts("category")
    kind = _kind(resource, whole, categories)
    return _Setting(
        kind,
        _category(whole, kind, categories),
        read_status(resource, "status", RESULT),
        start,
        end,
        _details(resource, reading),
        reading.names_of(resource, "performer") if "performer" in resource.raw else "",
    )


class _Part(NamedTuple):
    name: str
    concept: Concept
    show: _Show


def _components(components: list[Element], reading: Reading) -> list[_Part]:
    parts = []
    for component in components:
        concept = component.concept("code")
        pressures = (_PRESSURES.get(c.code, "") for c in concept.codes if c.system == LOINC)
        name = next((p for p in pressures if p), "") or concept.name or "component"
        parts.append(_Part(name, concept, _show(component, reading)))
    if any(part.name == "systolic" for part in parts):
        parts.sort(key=lambda part: part.name != "systolic")
    return parts


def _fact(part: _Part, setting: _Setting, reading: Reading, members: list[_Part], *, panel: str = "") -> Fact:
    show = part.show
    value = show.text
    if members and not show.recorded:
        value = ", ".join(words(m.name, _part_text(m.show)) for m in members)
    told = members if show.recorded else []
    is_cancelled = setting.standing.status is Status.CANCELLED
    return reading.fact(
        setting.kind,
        part.name,
        _line(part._replace(show=show._replace(text="" if is_cancelled else value)), setting, told, panel),
        codes=part.concept.codes,
        status=setting.standing.status,
        recorded_status=setting.standing.recorded,
        when=setting.start,
        until=setting.end,
        quantity=None if is_cancelled else show.quantity,
        value="" if is_cancelled else value,
        flags=show.flags,
        reference_range=show.reference_range,
        author=setting.author,
        category=setting.category,
        details=(("part of", panel), *((m.name, _part_text(m.show)) for m in members), *setting.details),
    )


def _part_text(show: _Show) -> str:
    return words(show.text, f"({inner})" if (inner := _qualities(show)) else "")


def _line(part: _Part, setting: _Setting, members: list[_Part], panel: str) -> str:
    """`Hemoglobin A1c: 5.8 % (H; reference 4.0–5.6) on 25-Nov-2020`; a status other than final is said."""
    date = span(setting.start, setting.end) if setting.end else on_day(setting.start)
    if setting.standing.status is Status.CANCELLED:
        return line(part.name, words("cancelled", date), clause("part of", panel), *tell(setting.details))
    said = "" if setting.standing.recorded == "final" else setting.standing.words
    is_preference = setting.kind is Kind.DIRECTIVE and setting.category == "preference"
    nature = "a preference, not an order" if is_preference else ""
    inner = "; ".join(p for p in (said, _qualities(part.show), nature) if p)
    head = words(part.show.text, f"({inner})" if inner else "", date)
    parts = [words(member.name, _part_text(member.show)) for member in members]
    return line(part.name, head, *parts, clause("part of", panel), *tell(setting.details))


def _qualities(show: _Show) -> str:
    reference = f"reference {show.reference_range}" if show.reference_range else ""
    return "; ".join(part for part in (", ".join(show.flags), reference) if part)


def _show(element: Element, reading: Reading) -> _Show:
    """Show the value of an Observation or component; where there is none, say so and why."""
    value = read_value(element, "value", reading.chart.date)
    text, quantity = value.text, value.quantity
    recorded = bool(text)
    if not recorded and "dataAbsentReason" in element.raw:
        reason = element.concept("dataAbsentReason").name.replace("-", " ")
        text = f"no value ({reason})" if reason else "no value"
    elif not recorded and any(key.startswith("value") for key in element.raw):
        text = "a value that could not be read"
    elif not recorded and "component" not in element.raw and "hasMember" not in element.raw:
        text = "no value recorded"
    return _Show(text, quantity, _flags(element), _reference_range(element, quantity), recorded)


def _flags(element: Element) -> tuple[str, ...]:
    if "interpretation" not in element.raw:
        return ()
    found = []
    for concept in element.concepts("interpretation"):
        standard = next((c.code for c in concept.codes if c.system == INTERPRETATION and c.code), "")
        found.append(standard or concept.name)
    return tuple(dict.fromkeys(found))


def _reference_range(element: Element, quantity: Quantity | None) -> str:
    if "referenceRange" not in element.raw:
        return ""
    shown = [r for entry in element.children("referenceRange") if (r := _one_range(entry, quantity))]
    return ", ".join(shown)


def _one_range(entry: Element, quantity: Quantity | None) -> str:
    low, high = (read_quantity(entry.child(end)) for end in ("low", "high"))
    shown = show_range(entry)
    unit = (high or low).unit if high or low else ""  # type: ignore[union-attr]
    # A unit that differs from the value's own stays in sight.
    same = (
        quantity is not None
        and unit == quantity.unit
        and (low is None or high is None or low.unit in ("", unit))
    )
    if shown and unit and same:
        shown = shown.removesuffix(f" {unit}")
    shown = shown or entry.text("text")
    meant = [c.name for c in (entry.concept("type"), *entry.concepts("appliesTo")) if c.name]
    meant = [m for m in meant if m.lower() not in ("normal", "normal range")]
    age = show_range(entry.child("age"))
    label = ", ".join([*meant, f"age {age}" if age else ""]).strip(", ")
    return f"{shown} for {label}" if shown and label else shown


def _time(resource: Element, reading: Reading) -> tuple[When | None, When | None]:
    start, end = reading.occurred(resource, "effective")
    issued = reading.past(resource, "issued")
    return start or issued if not end else start, end


def _kind(resource: Element, whole: _Part, categories: list[Concept]) -> Kind:
    asked = [(whole.concept, whole.name)] + [(c, "") for c in categories]
    if "valueCodeableConcept" in resource.raw:  # some sites code "Code: DNR"
        value = resource.concept("valueCodeableConcept")
        asked.append((value, value.name))
    if any(is_directive(c, n) for c, n in asked):
        return Kind.DIRECTIVE
    codes = {c.code for concept in categories for c in concept.codes}
    if "vital-signs" in codes:
        return Kind.VITAL
    if not codes.isdisjoint(_SOCIAL):
        # A survey's score (PHQ-9, Glasgow) is a result; its answers are social facts.
        return Kind.RESULT if "survey" in codes and whole.show.quantity is not None else Kind.SOCIAL
    return Kind.VITAL if not codes and whole.concept.has(_VITALS) else Kind.RESULT


def _category(whole: _Part, kind: Kind, found: list[Concept]) -> str:
    if kind is Kind.DIRECTIVE:
        asked = [(whole.concept, whole.name)] + [(c, c.name) for c in found]
        return "preference" if any(is_preference(c, n) for c, n in asked) else "observation"
    return ", ".join(dict.fromkeys(c.name for c in found))


def _details(resource: Element, reading: Reading) -> tuple[tuple[str, str], ...]:
    raw = resource.raw
    if _REMARKS.isdisjoint(raw):
        return ()
    members = reading.names_of(resource, "hasMember") if "hasMember" in raw else ""
    return kept(
        ("method", resource.concept("method").name),
        ("body site", resource.concept("bodySite").name),
        ("members", members),
        ("focus", _focus(resource, reading) if "focus" in raw else ""),
        ("note", resource.notes_text()),
        ("comment", one_line(c) if isinstance(c := raw.get("comment", raw.get("comments")), str) else ""),
    )


def _focus(resource: Element, reading: Reading) -> str:
    return reading.names_of(resource, "focus") if reading.person().role == "patient" else ""
