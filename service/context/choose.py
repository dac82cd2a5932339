"""Choosing: which facts fit the token budget, and the list of those that did not.

Required facts come first (SAFETY 7), then the newest of each distinct name, so that a chart of two
thousand blood pressures still shows everything else. The order is total and never random.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from service.context.chosen import Context, Label, LeftOut, Section
from service.context.render import whole_chat
from service.context.templates import TemplateSet
from service.engine.prompt import Message, Profile
from service.errors import EpicrisisError
from service.record.dates import show_day
from service.record.facts import Fact, FactId, Kind, PatientRecord, RequiredKind

TokenCount = Callable[[tuple[Message, ...]], int]
"""Tokens of a rendered chat, by the served model's own tokenizer."""

CHARACTERS_PER_TOKEN = 12
"""More than any tokenizer packs on average: only bounds how much text is rendered to be counted."""

UNDATED = datetime.min.replace(tzinfo=UTC)


class BudgetTooSmall(EpicrisisError):
    """Not even the instructions fit the budget."""

    code = "budget"
    exit_code = 3


def choose_facts(
    record: PatientRecord,
    required: Sequence[RequiredKind],
    templates: TemplateSet,
    profile: Profile,
    budget_tokens: int,
    count: TokenCount,
) -> Context:
    """Return the largest Context, in ranked order, whose whole rendered prompt fits `budget_tokens`.

    Required facts that do not fit are named in `left_out` and stand whole in the deterministic part of
    the summary. Raises BudgetTooSmall when the prompt without any fact is already larger.
    """
    ranked = rank_facts(record, required, templates)
    ranked = ranked[: _bound(ranked, budget_tokens)]

    def sized(n: int) -> Context:
        context = build_context(record, required, templates, ranked[:n], budget_tokens)
        return replace(context, tokens=count(whole_chat(context, templates, profile)))

    everything = sized(len(ranked))
    if everything.tokens <= budget_tokens:
        return everything
    best = sized(0)
    if best.tokens > budget_tokens:
        raise BudgetTooSmall(
            f"A budget of {budget_tokens} tokens is too small: the instructions alone take {best.tokens}.",
            f"Give at least {best.tokens + 200} tokens.",
        )
    low, high = 0, len(ranked) - 1
    while low < high:
        middle = (low + high + 1) // 2
        candidate = sized(middle)
        if candidate.tokens <= budget_tokens:
            low, best = middle, candidate
        else:
            high = middle - 1
    return best


def rank_facts(
    record: PatientRecord, required: Sequence[RequiredKind], templates: TemplateSet
) -> tuple[Fact, ...]:
    """Return the facts that may be shown, most wanted first.

    Required facts in their own order; then, round by round, the newest fact of each distinct name, the
    second newest, and so on. Within a round the kinds take turns, each with its newest first, so that a
    hundred analytes do not crowd out the operations.
    """
    first: dict[FactId, None] = {fact_id: None for kind in required for fact_id in kind.facts}
    shown = {kind for rule in templates.sections for kind in rule.kinds}
    needed = tuple(f for f in (record.fact(fact_id) for fact_id in first) if f.kind in shown)
    others = [fact for fact in record.facts if fact.kind in shown and fact.id not in first]
    order = {kind: place for place, kind in enumerate(templates.kind_order)}
    by_name: dict[tuple[Kind, str], list[Fact]] = defaultdict(list)
    for fact in others:
        by_name[fact.kind, fact.name.casefold()].append(fact)
    rounds: dict[tuple[int, Kind], list[Fact]] = defaultdict(list)
    for (kind, _), facts in by_name.items():
        for turn, fact in enumerate(sorted(facts, key=_newest_first)):
            rounds[turn, kind].append(fact)
    keyed = [
        ((turn, place, order.get(kind, len(order))), fact)
        for (turn, kind), facts in rounds.items()
        for place, fact in enumerate(sorted(facts, key=_newest_first))
    ]
    return needed + tuple(fact for _, fact in sorted(keyed, key=lambda item: item[0]))


def build_context(
    record: PatientRecord,
    required: Sequence[RequiredKind],
    templates: TemplateSet,
    chosen: Sequence[Fact],
    budget_tokens: int,
) -> Context:
    """Label the chosen facts, sort them under their headings, and account for all others."""
    kept = {fact.id for fact in chosen}
    facts: dict[Label, Fact] = {}
    sections: list[Section] = []
    for rule in templates.sections:
        labels: list[Label] = []
        for fact in sorted((f for f in chosen if f.kind in rule.kinds), key=_oldest_first):
            label = Label(f"F{len(facts) + 1}")
            facts[label] = fact
            labels.append(label)
        if labels:
            sections.append(Section(rule.key, rule.title, tuple(labels)))
    rest = (fact for fact in record.facts if fact.id not in kept and fact.kind is not Kind.PATIENT)
    return Context(
        identity=record.identity,
        sections=tuple(sections),
        facts=facts,
        required=tuple(required),
        left_out=_left_out(rest, templates),
        gaps=record.gaps,
        as_of=record.as_of,
        budget_tokens=budget_tokens,
        tokens=0,
        searched=len(record.facts),
    )


def _left_out(facts: Iterable[Fact], templates: TemplateSet) -> tuple[LeftOut, ...]:
    by_kind: dict[Kind, list[Fact]] = defaultdict(list)
    for fact in facts:
        by_kind[fact.kind].append(fact)
    rows = []
    for kind in sorted(by_kind):
        dated = sorted(
            (fact.when for fact in by_kind[kind] if fact.when is not None), key=lambda when: when.earliest
        )
        title = templates.unshown.get(kind) or templates.kind_titles[kind]
        rows.append(
            LeftOut(
                kind=kind.value,
                title=title,
                count=len(by_kind[kind]),
                earliest=show_day(dated[0]) if dated else "",
                latest=show_day(dated[-1]) if dated else "",
            )
        )
    return tuple(rows)


def _bound(ranked: Sequence[Fact], budget_tokens: int) -> int:
    characters = 0
    for n, fact in enumerate(ranked):
        characters += len(fact.text)
        if characters > budget_tokens * CHARACTERS_PER_TOKEN:
            return n
    return len(ranked)


def _newest_first(fact: Fact) -> tuple[float, str]:
    return (-(fact.when.earliest if fact.when else UNDATED).timestamp(), fact.id)


def _oldest_first(fact: Fact) -> tuple[datetime, str]:
    return (fact.when.earliest if fact.when else UNDATED, fact.id)
