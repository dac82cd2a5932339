"""The sources of a summary: numbered as cited, and every resource version that the model was given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from service.errors import FilingError
from service.grounding.summary import Summary
from service.record.facts import Fact, FactId, ResourceVersion
from service.writeback.clean import one_line
from service.writeback.moment import show_when

LITERAL = re.compile(r"([A-Z][A-Za-z]{1,63})/([A-Za-z0-9\-.]{1,64})")
"""A relative reference to one resource, as servers give them out."""
_VERSION = re.compile(r"[A-Za-z0-9\-.]{1,64}")


@dataclass(frozen=True, slots=True)
class Source:
    """One cited fact under its number, with the words by which a reader finds it."""

    number: int
    fact: Fact
    resource_type: str
    title: str
    """`Observation · Hemoglobin A1c · 25-Nov-2020 · Observation/a1c/_history/3`"""


def numbered_sources(summary: Summary) -> dict[FactId, Source]:
    """Number every cited fact in reading order. Raises FilingError where a citation names nothing."""
    facts = {fact.id: fact for fact in summary.facts}
    sources: dict[FactId, Source] = {}
    for claim in summary.published:
        for fact_id in claim.citations:
            if fact_id not in facts:
                raise FilingError("A statement cites a source that is not in the summary: nothing is filed.")
            if fact_id not in sources:
                sources[fact_id] = _source(len(sources) + 1, facts[fact_id])
    return sources


def _source(number: int, fact: Fact) -> Source:
    literal = LITERAL.fullmatch(fact.source.reference)
    resource_type = literal[1] if literal else "Record entry"
    date = show_when(fact.when) if fact.when else "no date recorded"
    also = f"and {len(fact.copies)} more that say the same" if fact.copies else ""
    words = (resource_type, fact.name, date, fact.source.versioned_reference, also)
    return Source(number, fact, resource_type, one_line(" · ".join(word for word in words if word)))


def given_versions(summary: Summary) -> Iterator[ResourceVersion]:
    """Every resource version that the model was given or that is cited, once, in record order."""
    yield from dict.fromkeys(source for fact in summary.facts for source in fact.sources)


def plain_reference(source: ResourceVersion) -> dict[str, Any] | None:
    """Return a Reference to the resource itself, or None where the server has no id for it."""
    return {"reference": source.reference} if LITERAL.fullmatch(source.reference) else None


def version_reference(source: ResourceVersion) -> dict[str, Any]:
    """Return a Reference to the version; what has no id on the server is named by its identifier."""
    if LITERAL.fullmatch(source.reference) is None:
        said = one_line(source.reference)
        name = {"system": "urn:ietf:rfc:3986", "value": said} if said else None
        digest = {"display": f"Content with SHA-256 {source.digest}"}
        return digest | ({"identifier": name} if name else {})
    if source.version and _VERSION.fullmatch(source.version):
        return {"reference": source.versioned_reference}
    return {"reference": source.reference}
