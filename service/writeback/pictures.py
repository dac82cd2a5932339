"""What of a run is filed: what was read from pictures only where a site switched that on (SAFETY 26)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from service.context.pictures import SECTION, spot_of
from service.grounding.readings import DISAGREEMENTS, NOT_CHECKED, without_readings
from service.grounding.summary import Claim, SummarySection, Verdict
from service.ports import StoredRun
from service.record.facts import Fact

OF_PICTURES = frozenset({SECTION, DISAGREEMENTS})
"""Keys of sections that hold what was read from pictures."""
MARK = "(read from a picture, not checked against the record)"
FILED = (
    f"{NOT_CHECKED} This site files it all the same: each statement there names the pictures that it was read"
    " from, and no rule has looked at them."
)


def as_filed(run: StoredRun) -> StoredRun:
    """Return a run as it is filed; without pictures, or where they are filed too, it is the run itself."""
    if run.inputs.files_images or not any(one.key in OF_PICTURES for one in run.summary.sections):
        return run
    return replace(run, summary=without_readings(run.summary))


def may_be_filed(section: SummarySection, claim: Claim, facts: Iterable[Fact]) -> bool:
    """Tell whether a statement may stand in a document: borne out, or read from pictures and said to be."""
    if claim.verdict is Verdict.SUPPORTED:
        return bool(claim.citations)
    shown = {fact.id for fact in facts if spot_of(fact) is not None}
    is_apart = claim.verdict is Verdict.NOT_VERIFIABLE and section.key in OF_PICTURES
    return is_apart and bool(claim.citations) and shown.issuperset(claim.citations)
