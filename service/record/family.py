"""FamilyMemberHistory → what a relative has or had: the person is part of every fact (SAFETY 2)."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.dates import labelled
from service.record.facts import Fact, Kind, Person
from service.record.fhirjson import Element
from service.record.reading import Reading, clause, kept, line, tell, words
from service.record.statuses import STANDING, Standing, read_status
from service.record.values import read_value


def read_family_history(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield one fact for each condition of the relative, or one that says there is none listed."""
    relative = resource.concept("relationship").name or resource.text("name") or "a relative"
    person = Person("relative", relative)
    recorded = reading.past(resource, "date")
    raw_status = resource.text("status")
    standing = read_status(resource, "status", STANDING) if raw_status != "health-unknown" else None
    said = _status_words(standing)
    death = _death(resource, reading)
    note = resource.notes_text()
    fields = {
        "when": recorded, "person": person, "category": relative, "recorded_status": raw_status,
        **({"status": standing.status} if standing else {}),
    }  # fmt: skip
    conditions = [c for c in resource.children("condition") if c.concept("code").name]
    for condition in conditions:
        concept = condition.concept("code")
        details = _condition_details(condition, reading)
        text = line(
            f"Family history, {relative}: {concept.name}",
            *tell(details),
            death,
            clause("note", note),
            said,
            labelled("recorded", recorded),
        )
        yield reading.fact(Kind.FAMILY_HISTORY, concept.name, text, codes=concept.codes,
                           details=(("relative", relative), *details, ("death", death)),
                           **fields)  # fmt: skip
    if not conditions:
        told = "health unknown" if standing is None else "no condition listed"
        text = line(
            f"Family history, {relative}",
            told,
            death,
            clause("note", note),
            said,
            labelled("recorded", recorded),
        )
        yield reading.fact(
            Kind.FAMILY_HISTORY, f"Family history of {relative}", text, details=(("death", death),), **fields
        )


def _status_words(standing: Standing | None) -> str:
    if standing is None or standing.recorded == "completed":
        return ""
    return words("history", standing.words)


def _condition_details(condition: Element, reading: Reading) -> tuple[tuple[str, str], ...]:
    onset = read_value(condition, "onset", reading.chart.date).text
    kind, _ = condition.choice("onset")
    return kept(
        ("onset", f"at age {onset}" if onset and kind in ("Age", "Range") else onset),
        ("outcome", condition.concept("outcome").name),
        ("contributed to death", "yes" if condition.flag("contributedToDeath") else ""),
        ("condition note", condition.notes_text()),
    )


def _death(resource: Element, reading: Reading) -> str:
    kind, raw = resource.choice("deceased")
    if not kind:
        return ""
    if kind == "Boolean":
        return {True: "deceased", False: "not deceased"}.get(raw, "") if isinstance(raw, bool) else ""
    value = read_value(resource, "deceased", reading.chart.date).text
    return f"deceased {'at age ' if kind in ('Age', 'Range') else ''}{value}" if value else ""
