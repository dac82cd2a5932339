"""Statements that somebody called wrong are marked for every viewer at once (SAFETY 24).

So is what a clinician changed when they attested: what is stored is the machine's text, not the attested one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from service.api.pages import NO_MARKS, Marks, Own
from service.grounding.summary import Claim
from service.ports import StoredRun
from service.ports.attesting import Act, AttestingStore
from service.ports.feedback import FeedbackStore


def marks_of(
    feedback: FeedbackStore | None, run: StoredRun, attesting: AttestingStore | None = None
) -> Marks:
    """Return by what each statement of a run is named, which are disputed now, and what was attested instead.

    Raises StoreError.
    """
    own = _own(attesting, run) if attesting is not None else {}
    if feedback is None:
        return replace(NO_MARKS, own=own)
    server, patient = run.inputs.server, run.inputs.patient
    keys = feedback.claim_keys(server, patient, run.summary.published)
    disputed = feedback.disputes_of(server, patient)
    return Marks(
        keys={claim: str(key) for claim, key in keys.items()},
        disputed=frozenset(claim for claim, key in keys.items() if key in disputed),
        own=own,
    )


def _own(attesting: AttestingStore, run: StoredRun) -> Mapping[Claim, Own]:
    """Return what whoever attested a run put in the place of its statements."""
    attested = attesting.attested_of(run.run_id)
    if attested is None:
        return {}
    texts = {edit.ordinal: edit.after for edit in attesting.edits_of(run.run_id, attested.actor)}
    published = run.summary.published
    return {
        published[one.ordinal]: Own(one.by, texts.get(one.ordinal, ""))
        for one in attesting.disposals(run.run_id, attested.actor)
        if one.ordinal is not None and one.act is not Act.ACCEPTED
    }
