"""Consent and Flag → directives, preferences and alerts."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.dates import labelled, on_day, span
from service.record.facts import Fact, Kind
from service.record.fhirjson import Element
from service.record.reading import Reading, clause, kept, line, tell, words
from service.record.rules import is_directive, is_preference
from service.record.statuses import STANDING, read_status


def is_directive_consent(resource: Element) -> bool:
    """Tell whether a Consent is about care (advance directive, treatment), not privacy or research."""
    asked = [*resource.concepts("scope"), *resource.concepts("category")]
    return any(is_directive(c, c.name) for c in asked)


def read_consent(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the one statement of a Consent about care. A preference is not an order, and says so."""
    asked = [*resource.concepts("category"), *resource.concepts("scope")]
    named = [c.name for c in asked if is_directive(c, c.name)] or [c.name for c in asked]
    name = ", ".join(dict.fromkeys(named))
    standing = read_status(resource, "status", STANDING)
    when = reading.past(resource, "dateTime")
    preference = any(is_preference(c, c.name) for c in asked)
    provision = resource.child("provision")
    period = provision.child("period")
    details = kept(
        ("decision", provision.text("type")),
        ("about", ", ".join(c.name for c in provision.concepts("code"))),
        ("policy", resource.concept("policyRule").name),
        (
            "source",
            resource.child("sourceAttachment").text("title")
            or reading.name_of(resource.child("sourceReference")),
        ),
        ("valid", span(reading.when(period, "start"), reading.when(period, "end"))),
    )
    text = line(
        name,
        words("treatment preference, not an order," if preference else "consent or directive,",
        standing.words,
              on_day(when)),
        *tell(details),
    )  # fmt: skip
    yield reading.fact(
        Kind.DIRECTIVE, name, text, codes=tuple(code for c in asked for code in c.codes),
        status=standing.status,
        recorded_status=standing.recorded, when=when, details=details, value=words(provision.text("type")),
        category="preference" if preference else "directive", author=reading.names_of(resource, "performer"),
    )  # fmt: skip


def read_flag(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the one statement of a Flag: an alert, isolation, or a code status."""
    concept = resource.concept("code")
    categories = [c.name for c in resource.concepts("category")]
    name = reading.name_or_narrative(concept.name or ", ".join(categories))
    if not name:
        return
    standing = read_status(resource, "status", STANDING)
    period = resource.child("period")
    start, end = reading.past(period, "start"), reading.when(period, "end")
    directive = is_directive(concept, name)
    text = line(
        name,
        words("flag,", standing.words, span(start, end) if end else labelled("since", start)),
        clause("category", ", ".join(c for c in categories if c != name)),
    )
    yield reading.fact(
        Kind.DIRECTIVE if directive else Kind.FLAG, name, text, codes=concept.codes, status=standing.status,
        recorded_status=standing.recorded, when=start, until=end,
        category="flag" if directive else ", ".join(categories),
        author=reading.name_of(resource.child("author")),
    )  # fmt: skip
