"""What the pages of reviewers show: values in, values out, no markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.api.pages import Source, SummaryPage
from service.api.words import count
from service.grounding.reasons import reason_of
from service.grounding.summary import Origin, Verdict
from service.ports import StoredRun
from service.ports.feedback import Feedback
from service.ports.reviews import Outcome, QueueEntry, Review, Rule, Support
from service.record.facts import FactId
from service.review.figures import Share, coverage_of, support_of
from service.review.items import Item, score_of, words_of
from service.writeback.moment import show_instant

RULES: Mapping[Rule, str] = {
    Rule.RANDOM: "Random share",
    Rule.LOW_COVERAGE: "Low coverage",
    Rule.LOW_SUPPORT: "Low support",
    Rule.FEEDBACK: "Feedback",
    Rule.FIRST_OF_VERSION: "New model or prompt",
    Rule.WARD: "Ward",
    Rule.HAND: "Asked for",
    Rule.SEEDED: "Planted error",
}
SUPPORTS: Mapping[Support, str] = {
    Support.SUPPORTED: "Supported",
    Support.NOT_SUPPORTED: "Not supported",
    Support.NOT_ADDRESSED: "Not addressed",
}
KEYS: Mapping[Support, str] = {
    Support.SUPPORTED: "a",
    Support.NOT_SUPPORTED: "r",
    Support.NOT_ADDRESSED: "n",
}


@dataclass(frozen=True, slots=True)
class ShownEntry:
    """One row of the queue. It holds nothing of a patient."""

    run_id: str
    rule: str
    why: str
    added: str
    age: str
    model: str
    prompt: str
    support: str
    coverage: str
    on_it: str
    wanted: str
    is_mine: bool
    is_finished_by_me: bool


@dataclass(frozen=True, slots=True)
class Said:
    """One dispute of a statement on which nobody has ruled."""

    id: str
    mark: str
    at: str
    words: str
    is_mine: bool


@dataclass(frozen=True, slots=True)
class Other:
    """What another reviewer, who has finished, said of the same statement."""

    name: str
    support: str
    words: str
    differs: bool


@dataclass(frozen=True, slots=True)
class ShownItem:
    """One statement beside its sources."""

    number: int
    section: str
    text: str
    """In one weight: a planted error would else be told by what is not found in it."""
    sources: tuple[Source, ...]
    state: str
    """What the checks found, for reviewers alone."""
    reasons: tuple[str, ...]
    is_published: bool
    from_record: bool
    score: str
    """Value of a Support, or empty."""
    words: str
    key: str
    """By what feedback names it; empty for a refused one, which nobody else is shown."""
    disputed: bool
    is_mine_disputed: bool
    said: tuple[Said, ...]
    others: tuple[Other, ...]


def show_entry(
    entry: QueueEntry, run: StoredRun, actor: str, mine: Review | None, now: datetime
) -> ShownEntry:
    """Return one row of the queue."""
    others = len([one for one in entry.reviewers if one != actor])
    who = [*(["you"] if actor in entry.reviewers else []), *([count(others, "other")] if others else [])]
    return ShownEntry(
        run_id=entry.run_id,
        rule=RULES[entry.rule],
        why=entry.why,
        added=show_instant(entry.added_at),
        age=show_age(entry.added_at, now),
        model=run.inputs.model,
        prompt=f"{run.inputs.prompt_id} {run.inputs.prompt_version}",
        support=show_support(support_of(run.summary)),
        coverage=show_coverage(coverage_of(run.summary)),
        on_it=" and ".join(who) or "nobody yet",
        wanted=f"{entry.done} of {count(entry.wanted, 'review')} finished",
        is_mine=actor in entry.reviewers,
        is_finished_by_me=mine is not None and mine.ended_at is not None,
    )


def show_support(share: Share) -> str:
    """Write how many of the model's statements were let through."""
    return f"{share.part} of {share.whole} statements of the model let through"


def show_coverage(share: Share) -> str:
    """Write how much of what the model was given is cited."""
    return f"{share.part} of {share.whole} entries cited"


def show_age(since: datetime, now: datetime) -> str:
    """Write how long something waits, in whole hours or days."""
    hours = max(0, int((now - since).total_seconds() // 3600))
    return count(hours // 24, "day") if hours >= 48 else count(hours, "hour")


def show_said(said: Sequence[Feedback], actor: str) -> tuple[Said, ...]:
    """Return the disputes of a statement on which nobody has ruled, oldest first."""
    return tuple(
        Said(one.id, one.mark.value, show_instant(one.at), one.words, one.actor == actor)
        for one in said
        if one.mark.disputes and one.undone_at is None and one.ruling is None
    )


def show_item(
    item: Item,
    page: SummaryPage,
    run: StoredRun,
    review: Review,
    numbers: Mapping[FactId, int],
    *,
    key: str,
    disputed: bool,
    said: Sequence[Feedback],
    others: Sequence[Review],
) -> ShownItem:
    """Return one statement with what this reviewer, and others who have finished, said of it."""
    facts = {fact.id: fact for fact in run.summary.facts}
    cited = [fact_id for fact_id in dict.fromkeys(item.claim.citations) if fact_id in facts]
    score = score_of(item, review)
    titles = {section.key: section.title for section in run.summary.sections}
    return ShownItem(
        number=item.number,
        section=titles.get(item.claim.section, item.claim.section.replace("_", " ").capitalize()),
        text=item.claim.text,
        sources=tuple(found for i in cited if (found := page.source(numbers[i])) is not None),
        state=_state(item),
        reasons=() if item.is_published else _reasons(item),
        is_published=item.is_published,
        from_record=item.claim.origin is Origin.RECORD,
        score=score.value if score is not None else "",
        words=words_of(item, review),
        key=key,
        disputed=disputed or key in review.disputed,
        is_mine_disputed=key in review.disputed,
        said=show_said(said, review.reviewer),
        others=_others(item, score, others),
    )


def show_outcome(review: Review) -> str:
    """Write what a finished review came to."""
    said = "Rejected" if review.outcome is Outcome.REJECTED else "Accepted"
    return f"{said} {show_instant(review.ended_at)}" if review.ended_at is not None else "In progress"


def _others(item: Item, mine: Support | None, reviews: Sequence[Review]) -> tuple[Other, ...]:
    found = [
        (n, score)
        for n, review in enumerate(reviews, 1)
        for score in review.scores
        if score.ordinal == item.ordinal and not item.is_seeded
    ]
    return tuple(
        Other(f"Reviewer {n + 1}", SUPPORTS[score.support], score.words, score.support is not mine)
        for n, score in found
    )


def _state(item: Item) -> str:
    """UX: three honest states in words. Refused and not checked are never shown to anybody else."""
    if item.claim.verdict is Verdict.NOT_VERIFIABLE:
        return "Read from images, not checked"
    if item.is_published:
        return "Published"
    if item.claim.verdict is Verdict.NOT_CHECKED:
        return "Not checked, not published"
    return "Not supported, not published"


def _reasons(item: Item) -> tuple[str, ...]:
    """Write why a statement was refused; a code of another version stands as it is."""
    found = []
    for code in item.claim.reasons:
        try:
            found.append(reason_of(code).detail)
        except KeyError:
            found.append(code.replace("_", " "))
    return tuple(dict.fromkeys(found))
