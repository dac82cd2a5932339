"""Procedure and Immunization → what was done, and what was not (never shown as done)."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.dates import labelled, on_day, show_day, span
from service.record.facts import Fact, Kind, Status, When
from service.record.fhirjson import Element
from service.record.reading import Reading, clause, kept, line, tell, words
from service.record.statuses import EVENT, read_status
from service.record.values import read_value, show_quantity


def read_procedure(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the one statement of a Procedure."""
    concept = resource.concept("code")
    name = reading.name_or_narrative(concept.name)
    if not name:
        return
    standing = read_status(resource, "status", EVENT)
    status = standing.status
    if resource.flag("notDone") or resource.flag("notPerformed"):  # STU3, DSTU2
        status = Status.NOT_DONE
    happened = status in (Status.COMPLETED, Status.IN_PROGRESS, Status.STOPPED)
    start, end, told = _performed(resource, reading, past=happened)
    why = resource.concept("statusReason").name or ", ".join(
        c.name for key in ("notDoneReason", "reasonNotPerformed") for c in resource.concepts(key)
    )
    details = _details(resource, reading)
    said = "not done" if status is Status.NOT_DONE else standing.words
    text = line(
        name,
        _course(status, said, start, end, told=told, why=why),
        *tell(details),
    )
    yield reading.fact(
        Kind.PROCEDURE, name, text, codes=concept.codes, status=status, recorded_status=standing.recorded,
        when=start, until=end, details=(("status reason", why), ("performed", told), *details),
        category=resource.concept("category").name,
        author=_performers(resource, reading),
    )  # fmt: skip


def _performers(resource: Element, reading: Reading) -> str:
    names = (reading.name_of(p.child("actor")) for p in resource.children("performer"))
    return ", ".join(name for name in names if name)


def _course(status: Status, said: str, start: When | None, end: When | None, *, told: str, why: str) -> str:
    reason = f"({why})" if why else ""
    if status in (Status.NOT_DONE, Status.PLANNED, Status.CANCELLED):
        # The date of what did not happen is when that was recorded or meant, not when it was performed.
        word = "planned for" if status is Status.PLANNED else "recorded"
        when = f"{word} {show_day(start)}" if start else clause(word, told)
        return ", ".join(part for part in (words(said, reason), when) if part)
    when = span(start, end) if end else on_day(start)
    return words(said, reason, when or (f"({told})" if told else ""))


def _performed(resource: Element, reading: Reading, *, past: bool) -> tuple[When | None, When | None, str]:
    kind, _ = resource.choice("performed")
    if kind in ("DateTime", "Period"):
        return *reading.occurred(resource, "performed", past=past), ""
    if not kind:
        return None, None, ""
    value = read_value(resource, "performed", reading.chart.date).text
    return None, None, f"at age {value}" if value and kind in ("Age", "Range") else value


def _details(resource: Element, reading: Reading) -> tuple[tuple[str, str], ...]:
    devices = [n for d in resource.children("focalDevice") if (n := reading.name_of(d.child("manipulated")))]
    return kept(
        ("body site", ", ".join(c.name for c in resource.concepts("bodySite"))),
        ("reason", reading.reasons(resource)),
        ("outcome", resource.concept("outcome").name),
        ("complication", reading.reasons(resource, "complication", "complicationDetailReference")),
        ("device", ", ".join(devices)),
        ("note", resource.notes_text()),
    )


def read_immunization(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the one statement of an Immunization: given, or not given and why."""
    concept = resource.concept("vaccineCode")
    name = reading.name_or_narrative(concept.name)
    if not name:
        return
    standing = read_status(resource, "status", EVENT)
    not_given = resource.flag("notGiven") or resource.flag("wasNotGiven")
    status = Status.NOT_DONE if not_given else standing.status
    kind, _ = resource.choice("occurrence")
    told = resource.text("occurrenceString") if kind == "String" else ""
    when = None if told else reading.occurred(resource, "occurrence", past=status is not Status.PLANNED)[0]
    when = when or reading.past(resource, "date")  # STU3
    recorded = reading.past(resource, "recorded")
    why = resource.concept("statusReason").name
    details = _immunization_details(resource, reading)
    if status is Status.NOT_DONE:
        head = ", ".join(
            p for p in (words("not done", f"({why})" if why else ""), labelled("recorded", when)) if p
        )
    else:
        head = words(standing.words, f"({why})" if why else "", on_day(when) or told)
    text = line(
        f"Immunization {name}",
        head,
        *tell(details),
        labelled("recorded", recorded) if not when else "",
    )
    yield reading.fact(
        Kind.IMMUNIZATION, name, text, codes=concept.codes, status=status, recorded_status=standing.recorded,
        when=when or recorded, details=(("status reason", why), *details),
    )  # fmt: skip


def _immunization_details(resource: Element, reading: Reading) -> tuple[tuple[str, str], ...]:
    protocol = resource.child("protocolApplied")
    number = protocol.text("doseNumberPositiveInt") or protocol.text("doseNumberString")
    series = protocol.text("seriesDosesPositiveInt") or protocol.text("seriesDosesString")
    reactions = [n for r in resource.children("reaction") if (n := reading.name_of(r.child("detail")))]
    return kept(
        (
            "source",
            "reported, not from the primary source" if resource.flag("primarySource") is False else "",
        ),
        ("subpotent", "yes" if resource.flag("isSubpotent") else ""),
        ("dose number", words(number, f"of {series}" if number and series else "")),
        ("dose", show_quantity(resource.child("doseQuantity"), dose=True)),
        ("site", resource.concept("site").name),
        ("route", resource.concept("route").name),
        ("reason", reading.reasons(resource)),
        ("reaction", ", ".join(reactions)),
        ("lot", resource.text("lotNumber")),
        ("note", resource.notes_text()),
    )
