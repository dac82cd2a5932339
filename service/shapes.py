"""The JSON that the command line prints of a chart in a file.

Keys may be added; none is renamed or removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from service.context.chosen import Context
from service.context.layout import label_facts
from service.record.facts import Absence, Fact, PatientRecord
from service.record.required import required_facts

_COMPLETE = {
    Absence.LISTED: "listed",
    Absence.NONE_RECORDED: "none-recorded",
    Absence.NOT_RETRIEVED: "not-retrieved",
}


def record_shape(record: PatientRecord, read_at: datetime) -> dict[str, Any]:
    """Return what `assemble --json` prints: every fact with its sources, and what was not kept."""
    labels = label_facts(record)
    required = required_facts(record)
    return {
        "patient": record.identity,
        "seen": record.seen,
        "kept": record.kept,
        "skipped": record.skips,
        "facts": [_fact_shape(fact, labels[fact.id], read_at) for fact in record.facts],
        "complete": {kind.key: _COMPLETE[kind.state] for kind in required},
        "required": required,
        "digest": record.digest,
        "as_of": record.as_of.recorded if record.as_of else None,
        "problems": record.problems,
    }


def _fact_shape(fact: Fact, label: str, read_at: datetime) -> dict[str, Any]:
    return {
        "label": label,
        "id": fact.id,
        "kind": fact.kind,
        "text": fact.text,
        "date": fact.when.recorded if fact.when else None,
        "status": fact.status,
        "name": fact.name,
        "value": fact.value,
        "span": fact.span,
        "sources": [
            {
                "reference": source.reference,
                "version": source.version,
                "sha256": source.digest,
                "read_at": read_at,
            }
            for source in fact.sources
        ],
    }


def context_shape(chosen: Context, needed: Sequence[Fact], prompt: str) -> dict[str, Any]:
    """Return what `context --json` prints: the prompt, and how many of the `needed` facts are in it."""
    shown = {fact.id for fact in chosen.facts.values()}
    return {
        "prompt": prompt,
        "tokens": chosen.tokens,
        "budget": chosen.budget_tokens,
        "shown": len(shown),
        "left_out": chosen.left_out,
        "required": {"total": len(needed), "shown": sum(fact.id in shown for fact in needed)},
        "searched": chosen.searched,
        "facts": {label: fact.id for label, fact in chosen.facts.items()},
        "sections": chosen.sections,
        "encounter": chosen.stay.reference if chosen.stay else None,
    }
