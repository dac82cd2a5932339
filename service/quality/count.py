"""What a run came to, in numbers. Pure; not a word of a chart is in what is returned.

Of a stored run the record is not at hand: what it tells of required facts is counted under the headings that
are required, and what it does not tell is not known. An evaluation has the record, and counts against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Final

from service.filing.stopped import wards_of
from service.grounding.complete import covers
from service.grounding.reasons import CODES
from service.grounding.summary import Claim, Origin, Summary, Verdict
from service.ports import StoredRun
from service.ports.quality import NO_WARD, Counts, Group, Measure
from service.record.facts import Absence, Fact, FactId

HOUSEKEEPING: Final = frozenset({"the_record_says_more", "no_heading_for_it"})
"""Reasons for which a statement that the rules bore out is not shown."""
OTHER: Final = "other"
_LATER: Final = "publish"
"""The stage that is no work of the model, and has not been when a run is first counted."""


@dataclass(frozen=True, slots=True)
class Told:
    """Which required facts a summary tells, and by whom."""

    by_model: frozenset[FactId]
    added: frozenset[FactId]
    required: frozenset[FactId]


def count_run(run: StoredRun, required: Sequence[FactId] | None = None) -> tuple[Counts, Told]:
    """Return a run's numbers; `required` are the facts of the record that no summary may leave out."""
    summary = run.summary
    told = _told(summary, required)
    written = _written(summary)
    counts = Counts(
        claims=len(written),
        supported=sum(_is_borne_out(claim) for claim in written),
        contradicted=sum(claim.verdict is Verdict.CONTRADICTED for claim in written),
        told=len(told.by_model),
        added=len(told.added),
        missing=len(told.required - told.by_model - told.added),
        headings=sum(section.state is not None for section in summary.sections),
        not_retrieved=sum(section.state is Absence.NOT_RETRIEVED for section in summary.sections),
        fabricated=_fabricated(summary),
        characters=sum(len(claim.text) for claim in summary.published),
        prompt_tokens=sum(one.usage.prompt_tokens for one in run.completions),
        completion_tokens=sum(one.usage.completion_tokens for one in run.completions),
        seconds=round(sum(took for stage, took in run.seconds.items() if stage != _LATER), 3),
        refused=dict(sorted(_reasons(summary.refused).items())),
    )
    return counts, told


def measure_run(run: StoredRun, zone: tzinfo) -> Measure:
    """Return what is kept of a run, in the week in which it was made."""
    inputs = run.inputs
    wards = wards_of(run)
    group = Group(
        week=week_of(run.created_at, zone),
        model=inputs.model,
        model_digest=inputs.model_digest,
        prompt=f"{inputs.prompt_id}@{inputs.prompt_version}",
        ward=wards[0] if wards else NO_WARD,
    )
    counts, _ = count_run(run)
    return Measure(run.run_id, run.created_at, group, inputs.template_digest, inputs.rules_version, counts)


def week_of(at: datetime, zone: tzinfo) -> str:
    """Return the Monday of an instant's week in a time zone, as `2026-11-23`."""
    day = at.astimezone(zone).date()
    return (day - timedelta(days=day.weekday())).isoformat()


def _written(summary: Summary) -> list[Claim]:
    """Return what the model wrote, each statement once: one that two headings show is one."""
    every = (claim for claim in (*summary.published, *summary.refused) if claim.origin is Origin.MODEL)
    return list({(claim.text, claim.citations): claim for claim in every}.values())


def _is_borne_out(claim: Claim) -> bool:
    return claim.verdict is Verdict.SUPPORTED or bool(HOUSEKEEPING.intersection(claim.reasons))


def _told(summary: Summary, required: Sequence[FactId] | None) -> Told:
    known = {fact.id: fact for fact in summary.facts}
    under = [claim for section in summary.sections if section.state is not None for claim in section.claims]
    claims = under if required is None else list(summary.published)
    added = {cited for claim in claims if claim.origin is Origin.RECORD for cited in claim.citations}
    told = {fact.id for claim in claims if claim.origin is Origin.MODEL for fact in _covered(claim, known)}
    wanted = frozenset(told | added if required is None else required)
    by_model = frozenset(told) & wanted
    return Told(by_model, (frozenset(added) & wanted) - by_model, wanted)


def _covered(claim: Claim, known: dict[FactId, Fact]) -> Iterable[Fact]:
    cited = (known[one] for one in claim.citations if one in known)
    return [fact for fact in cited if covers(claim.text, fact)]


def _fabricated(summary: Summary) -> int:
    known = {fact.id for fact in summary.facts}
    return sum(
        claim.verdict is not Verdict.SUPPORTED or not known.intersection(claim.citations)
        for section in summary.sections
        if section.state is not None
        for claim in section.claims
    )


def _reasons(refused: Iterable[Claim]) -> Counter[str]:
    """Count why statements were refused; what follows the colon may be a patient's, and is left out."""
    heads = (reason.partition(":")[0] for claim in refused for reason in claim.reasons)
    return Counter(head if head in CODES else OTHER for head in heads)
