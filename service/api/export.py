"""A summary as JSON: what the page shows, for programs. Refused claims are a count here too (SAFETY 23)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from service.api.pages import is_showable, number_sources
from service.grounding.summary import Claim, SummarySection
from service.ports import StoredRun
from service.record.facts import Fact, FactId
from service.writeback.labels import BANNER
from service.writeback.moment import DRAFT_LIFE


def export_run(run: StoredRun, disputed: Collection[Claim] = ()) -> bytes:
    """Return one run as UTF-8 JSON: label first, then who, what was read, the statements, the sources."""
    summary = run.summary
    facts = {fact.id: fact for fact in summary.facts}
    numbers = number_sources(summary, facts)
    shown = [claim for claim in summary.published if is_showable(claim, facts)]
    return msgspec.json.encode(
        {
            "label": BANNER,
            "run": run.run_id,
            "state": run.state,
            "kind": summary.kind,
            "model": run.inputs.model,
            "document": run.document,
            "created_at": run.created_at,
            "read_at": run.read_at,
            "expires_at": run.created_at + DRAFT_LIFE,
            "patient": summary.identity,
            "incomplete": summary.incomplete,
            "searched": summary.searched,
            "as_of": summary.as_of.recorded if summary.as_of else None,
            "sections": [_export_section(section, numbers, facts, disputed) for section in summary.sections],
            "sources": [export_fact(facts[fact_id], number) for fact_id, number in numbers.items()],
            "left_out": summary.left_out,
            "not_retrieved": summary.gaps,
            "restricted": summary.restricted,
            "counts": {
                "published": len(shown),
                "withheld": len(summary.published) - len(shown),
                "refused": len(summary.refused),
            },
        }
    )


def _export_section(
    section: SummarySection,
    numbers: dict[FactId, int],
    facts: dict[FactId, Fact],
    disputed: Collection[Claim],
) -> dict[str, Any]:
    return {
        "key": section.key,
        "title": section.title,
        "state": section.state,
        "reason": section.reason,
        "conflict": section.conflict,
        "hidden": section.hidden,
        "claims": [
            {
                "text": claim.text,
                "origin": claim.origin,
                "verdict": claim.verdict,
                "corrected": claim.corrected,
                "disputed": claim in disputed,
                "sources": [numbers[fact_id] for fact_id in dict.fromkeys(claim.citations)],
            }
            for claim in section.claims
            if is_showable(claim, facts)
        ],
    }


def export_fact(fact: Fact, number: int) -> dict[str, Any]:
    """Return one source as JSON has it."""
    return {
        "number": number,
        "id": fact.id,
        "kind": fact.kind,
        "reference": fact.source.versioned_reference,
        "also": [copy.versioned_reference for copy in fact.copies],
        "span": fact.span,
        "text": fact.text,
        "when": fact.when.recorded if fact.when else None,
        "value": fact.value,
        "status": fact.recorded_status or fact.status,
        "flags": fact.flags,
        "reference_range": fact.reference_range,
        "details": fact.details,
        "body": fact.body,
    }
