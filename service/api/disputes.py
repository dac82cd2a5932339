"""Statements that somebody called wrong are marked for every viewer at once (SAFETY 24)."""

from __future__ import annotations

from service.api.pages import NO_MARKS, Marks
from service.ports import StoredRun
from service.ports.feedback import FeedbackStore


def marks_of(feedback: FeedbackStore | None, run: StoredRun) -> Marks:
    """Return by what each statement of a run is named, and which are disputed now. Raises StoreError."""
    if feedback is None:
        return NO_MARKS
    server, patient = run.inputs.server, run.inputs.patient
    keys = feedback.claim_keys(server, patient, run.summary.published)
    disputed = feedback.disputes_of(server, patient)
    return Marks(
        keys={claim: str(key) for claim, key in keys.items()},
        disputed=frozenset(claim for claim, key in keys.items() if key in disputed),
    )
