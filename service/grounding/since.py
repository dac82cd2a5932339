"""What is new since the last summary: told first, line by line, with nothing of the model's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.grounding.summary import Claim, Origin, SummarySection, Verdict
from service.record.facts import Fact, Kind, PatientRecord, RequiredKind
from service.record.required import call_previous

KEY = "since"
MOST_NEW = 12
"""How many new statements are told; a reader who has the last summary wants the newest, not all."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier summary of the same kind: up to when it had read the record, and what it knew."""

    read_up_to: str
    """As shown: `24-Nov-2026 14:05 UTC`."""
    known: frozenset[str]


def known_by(record: PatientRecord) -> tuple[str, ...]:
    """Return short digests of every statement of a record, sorted: the same text is the same statement."""
    return tuple(sorted({mark_of(fact) for fact in record.facts}))


def since_section(
    record: PatientRecord, required: Sequence[RequiredKind], earlier: Earlier
) -> Iterator[SummarySection]:
    """Yield the section of new statements: required first, then the newest; none if nothing changed."""
    new = [f for f in record.facts if f.kind is not Kind.PATIENT and mark_of(f) not in earlier.known]
    gone = len(earlier.known - set(known_by(record)))
    if not new and not gone:
        return
    first = {fact_id for kind in required for fact_id in kind.facts}
    previous = {fact_id for kind in required for fact_id in kind.previous}
    new.sort(key=lambda fact: fact.id)
    new.sort(key=lambda fact: fact.when.earliest.timestamp() if fact.when else float("inf"), reverse=True)
    new.sort(key=lambda fact: (fact.id not in first, fact.span is not None))
    changed = f" ({gone} earlier statement{'s' if gone != 1 else ''} changed or gone)" if gone else ""
    yield SummarySection(
        key=KEY,
        title=f"New since the summary read up to {earlier.read_up_to}{changed}",
        claims=tuple(_told(fact, fact.id in previous) for fact in new[:MOST_NEW]),
        hidden=max(0, len(new) - MOST_NEW),
    )


def _told(fact: Fact, is_previous: bool) -> Claim:
    text = call_previous(fact) if is_previous else fact.text
    return Claim(KEY, text, (fact.id,), Origin.RECORD, Verdict.SUPPORTED)


def mark_of(fact: Fact) -> str:
    """Return the short digest of one statement."""
    said = f"{fact.kind}\0{fact.text}".encode("utf-8", "replace")
    return hashlib.sha256(said).hexdigest()[:10]
