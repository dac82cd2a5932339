"""Choosing: which facts fit the token budget, and the list of those that did not.

Required facts come first (SAFETY 7), whole where they fit, else by index. Then what a clinician would want:
the newest of each name before the second newest of any, what is new before what is old, what is flagged or
of the stay at hand before the rest. The order is total, never random, and cut at coarse steps, so
that one new fact seldom pushes another out of a prompt that the engine has already read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import NamedTuple

from service.context.chosen import Block, Context, Label, Line, Section
from service.context.digests import Digest, digest_block
from service.context.layout import Layout
from service.context.manifest import left_out, shown_kinds
from service.context.pivot import in_order, is_abnormal
from service.context.render import TASK, whole_chat
from service.context.stay import Stay
from service.context.templates import Focus, FocusScope, TemplateSet
from service.engine.prompt import Message, Profile
from service.errors import EpicrisisError
from service.record.facts import Fact, FactId, Kind, PatientRecord, RequiredKind

TokenCount = Callable[[tuple[Message, ...]], int]
"""Tokens of a rendered chat, by the served model's own tokenizer."""

CHARACTERS_PER_TOKEN = 12
"""More than any tokenizer packs on average: only bounds how much text is rendered to be counted."""
PROSE_CHARACTERS_PER_TOKEN = 4
"""About what a tokenizer packs of English prose: turns the notes' share into characters."""
TASK_SHARE = 0.12
"""Of the budget, kept for the task and its focus: the evidence before them is the same for every task."""
WASTE = 0.1
"""Of the budget: when whole steps leave more than this free, the next step is taken in part."""
BOOST = 4
"""Quarters: how much newer than it is a day counts on which something was flagged, or that is of the stay."""


class BudgetTooSmall(EpicrisisError):
    """Not even the index of the required facts fits the budget."""

    code = "budget"
    exit_code = 3


class Steps(NamedTuple):
    """What may be shown beside the required facts, most wanted first."""

    steps: tuple[tuple[Fact, ...], ...]
    latest: frozenset[FactId]
    """The newest of each name: told on lines of their own where their time is not shown whole."""


@dataclass
class _Chooser:
    """One record, one template set, one budget: renders and counts a selection."""

    record: PatientRecord
    required: tuple[RequiredKind, ...]
    templates: TemplateSet
    profile: Profile
    budget: int
    count: TokenCount
    layout: Layout
    stay: Stay | None
    digests: tuple[Digest, ...]
    lost: frozenset[FactId] = frozenset()
    trends: tuple[Line, ...] = ()
    latest: frozenset[FactId] = frozenset()

    def context(
        self,
        chosen: Sequence[Fact],
        index: Mapping[FactId, Fact],
        focus: Sequence[Fact] = (),
        digests: int = 0,
        task: str = TASK,
    ) -> Context:
        """Build the Context of a selection, its tokens counted. `digests` is how many of them are shown."""
        kept = {fact.id for fact in (*chosen, *focus)}
        blocks = self.layout.blocks(chosen, self.latest)
        told = digest_block(self.digests[len(self.digests) - digests :])
        if told is not None:
            blocks = (told, *blocks)
        if self.trends:
            blocks = (*blocks, Block("trends", "Key trends over the whole record", self.trends))
        lines = self.layout.index(self.required, index)
        focused = self.layout.blocks(focus)
        shown = [*chosen, *focus, *(fact for fact in index.values() if fact.id not in kept)]
        carried = {fact.id for line in (told.lines if told else ()) for fact in line.facts}
        context = Context(
            identity=self.record.identity,
            sections=_sections(shown, self.templates, self.stay, self.layout),
            facts={self.layout.label(fact): fact for fact in shown},
            required=self.required,
            left_out=left_out(self.record, {fact.id for fact in shown}, carried, self.lost, self.templates),
            gaps=self.record.gaps,
            as_of=self.record.as_of,
            budget_tokens=self.budget,
            tokens=0,
            searched=len(self.record.facts),
            index=lines,
            blocks=blocks,
            focus=focused,
            cites=self._cites((*blocks, *focused), index.values()),
            stay=self.stay,
            kinds=shown_kinds(self.record, {fact.id for fact in shown}, self.templates),
        )
        return replace(context, tokens=self.count(whole_chat(context, self.templates, self.profile, task)))

    def _cites(self, blocks: Iterable[Block], named: Iterable[Fact]) -> dict[Label, tuple[Fact, ...]]:
        """Return every label that an answer may cite: those of facts that stand under some heading.

        The rows of one day in two tables share a label.
        """
        cites: dict[Label, tuple[Fact, ...]] = {}
        lines = [line for block in blocks for line in block.lines]
        for line in (*(Line("", self.layout.label(fact), (fact,)) for fact in named), *lines):
            facts = [fact for fact in line.facts if self._is_headed(fact)]
            if line.label is not None and facts:
                before = cites.get(line.label, ())
                cites[line.label] = (*before, *(fact for fact in facts if fact not in before))
        return cites

    def _is_headed(self, fact: Fact) -> bool:
        of_stay = self.stay is not None and self.stay.holds(fact)
        return self.templates.heading_of(fact, of_stay) is not None


def choose_facts(
    record: PatientRecord,
    required: Sequence[RequiredKind],
    templates: TemplateSet,
    profile: Profile,
    budget_tokens: int,
    count: TokenCount,
    *,
    stay: Stay | None = None,
    digests: Sequence[Digest] = (),
) -> Context:
    """Return the largest Context, in ranked order, whose whole rendered prompt fits `budget_tokens`.

    Raises BudgetTooSmall, naming the least that fits, when not even the required facts' index does.
    """
    chooser = _Chooser(
        record, tuple(required), templates, profile, budget_tokens, count, Layout(record, templates), stay,
        tuple(digests), frozenset(fact_id for digest in digests for fact_id in digest.lost),
    )  # fmt: skip
    needed = required_in(record, required, templates)
    base, is_whole = _with_required(chooser, needed)
    if not is_whole:
        return base
    chooser.trends = chooser.layout.trends
    if chooser.context(needed, {}, task="").tokens > budget_tokens * (1 - TASK_SHARE):
        chooser.trends = ()
    ranked = rank_steps(record, needed, templates, stay)
    chooser.latest = ranked.latest
    chosen = _as_many_as_fit(chooser, needed, ranked.steps)
    told = _with_digests(chooser, chosen)
    return _with_focus(chooser, chosen, told)


def required_in(
    record: PatientRecord, required: Sequence[RequiredKind], templates: TemplateSet
) -> tuple[Fact, ...]:
    """Return every required fact once, in order; the patient's own fact stands in the banner instead."""
    ids = dict.fromkeys(fact_id for kind in required for fact_id in kind.facts)
    facts = (record.fact(fact_id) for fact_id in ids)
    return tuple(fact for fact in facts if templates.block_of(fact) is not None)


def _with_required(chooser: _Chooser, needed: Sequence[Fact]) -> tuple[Context, bool]:
    """Return the Context of the required facts, and whether all stand in it whole."""
    whole = chooser.context(needed, {})
    if whole.tokens <= chooser.budget:
        return whole, True
    named = {fact.id: fact for fact in needed}
    best = chooser.context((), named)
    if best.tokens > chooser.budget:
        raise BudgetTooSmall(
            f"A budget of {chooser.budget} tokens is too small: instructions, required facts by name and the "
            f"list of what is not shown take {best.tokens}.",
            f"Give at least {best.tokens} tokens.",
        )
    low, high = 0, len(needed) - 1
    while low < high:
        middle = (low + high + 1) // 2
        rest = {fact.id: fact for fact in needed[middle:]}
        tried = chooser.context(needed[:middle], rest)
        low, high, best = (middle, high, tried) if tried.tokens <= chooser.budget else (low, middle - 1, best)
    return best, False


def _as_many_as_fit(
    chooser: _Chooser, needed: Sequence[Fact], steps: Sequence[Sequence[Fact]]
) -> tuple[Fact, ...]:
    """Return the required facts and as many steps of the others as leave room for the task."""
    budget = int(chooser.budget * (1 - TASK_SHARE))
    steps = _bounded(steps, budget)

    def fits(others: Sequence[Fact]) -> int:
        """Tokens left; negative where the selection is too large."""
        return budget - chooser.context((*needed, *others), {}, task="").tokens

    def taken(n: int) -> list[Fact]:
        return [fact for step in steps[:n] for fact in step]

    low, high = 0, len(steps)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(taken(middle)) >= 0 else (low, middle - 1)
    chosen = taken(low)
    if low == len(steps) or fits(chosen) <= WASTE * chooser.budget:
        return (*needed, *chosen)
    rest, part = steps[low], 0
    low, high = 0, len(rest) - 1
    while low < high:
        part = (low + high + 1) // 2
        low, high = (part, high) if fits([*chosen, *rest[:part]]) >= 0 else (low, part - 1)
    return (*needed, *chosen, *rest[:low])


def _with_digests(chooser: _Chooser, chosen: Sequence[Fact]) -> int:
    """Return how many of the newest digests fit beside the chosen facts."""
    low, high = 0, len(chooser.digests)
    while low < high:
        middle = (low + high + 1) // 2
        fits = chooser.context(chosen, {}, digests=middle).tokens <= chooser.budget
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _with_focus(chooser: _Chooser, chosen: Sequence[Fact], digests: int) -> Context:
    """Add what this task wants beyond the shared evidence, newest first, within its share."""
    best = chooser.context(chosen, {}, digests=digests)
    kept = {fact.id for fact in chosen}
    rule = chooser.templates.focus
    wanted = [fact for fact in focused(chooser.record, rule, chooser.stay) if fact.id not in kept]
    room = min(chooser.budget, best.tokens + int(rule.share * chooser.budget))
    low, high = 0, len(wanted)
    while low < high:
        middle = (low + high + 1) // 2
        tried = chooser.context(chosen, {}, wanted[:middle], digests)
        low, high, best = (middle, high, tried) if tried.tokens <= room else (low, middle - 1, best)
    return best


def focused(record: PatientRecord, rule: Focus, stay: Stay | None) -> list[Fact]:
    """Return the facts that a task wants beside the shared evidence, newest first."""
    if rule.scope is FocusScope.NONE or (rule.scope is FocusScope.STAY and stay is None):
        return []
    since = record.as_of.earliest - timedelta(days=rule.days) if record.as_of else None
    found = []
    for fact in record.facts:
        if (rule.kinds and fact.kind not in rule.kinds) or fact.kind is Kind.PATIENT:
            continue
        if rule.scope is FocusScope.STAY:
            is_wanted = stay is not None and stay.holds(fact)
        else:
            is_wanted = since is not None and fact.when is not None and fact.when.latest >= since
        if is_wanted:
            found.append(fact)
    return sorted(found, key=in_order, reverse=True)


def rank_steps(
    record: PatientRecord, needed: Iterable[Fact], templates: TemplateSet, stay: Stay | None = None
) -> Steps:
    """Return the facts beside the required ones in steps, most wanted first; a step is shown whole or not.

    First the newest of every name, what is recent before what is old; then everything else by calendar
    quarter, backwards. Within both the kinds take turns in the set's order. Days with a flagged value and
    the stay at hand stand as if `BOOST` quarters newer; a day is never split, so that its row in a table is
    whole. Vital signs are told of the newest days alone. Periods of the calendar do not move when a fact
    arrives, so little is pushed out by one.
    """
    taken = {fact.id for fact in needed}
    order = {kind: place for place, kind in enumerate(templates.kind_order)}
    series: dict[tuple[Kind, str], list[Fact]] = defaultdict(list)
    for fact in record.facts:
        if fact.kind is not Kind.PATIENT and fact.kind not in templates.unshown:
            series[fact.kind, fact.name.casefold()].append(fact)
    year = record.as_of.day.year if record.as_of else 0
    days = _newest_days(record, templates.limits.vitals_days)
    telling = {(fact.kind, _day(fact)) for fact in record.facts if is_abnormal(fact)}
    steps: dict[tuple[int, int, int], list[Fact]] = defaultdict(list)
    for (kind, _), facts in series.items():
        ordered = sorted(facts, key=in_order)
        place = order.get(kind, len(order))
        for fact in ordered:
            if fact.id in taken:
                continue
            if fact is ordered[-1]:
                age = max(year - fact.when.day.year, 0).bit_length() if fact.when else 0
                steps[0, age, place].append(fact)
            elif kind is not Kind.VITAL or (fact.when is not None and fact.when.day >= days):
                matters = (kind, _day(fact)) in telling or (stay is not None and stay.holds(fact))
                steps[1, -_quarter(fact) - (BOOST if matters else 0), place].append(fact)
    keys = sorted(steps)
    latest = frozenset(fact.id for key in keys if key[0] == 0 for fact in steps[key])
    return Steps(tuple(tuple(sorted(steps[key], key=in_order, reverse=True)) for key in keys), latest)


def _newest_days(record: PatientRecord, most: int) -> date:
    days = {fact.when.day for fact in record.facts if fact.kind is Kind.VITAL and fact.when is not None}
    return min(sorted(days)[-most:], default=date.min)


def _day(fact: Fact) -> date:
    return fact.when.day if fact.when else date.max


def _quarter(fact: Fact) -> int:
    day = _day(fact)
    return day.year * 4 + (day.month - 1) // 3


def _bounded(steps: Sequence[Sequence[Fact]], budget: int) -> list[Sequence[Fact]]:
    """Leave out what no tokenizer could fit, so that it is never rendered."""
    characters, bounded = 0, []
    for step in steps:
        bounded.append(step)
        characters += sum(len(fact.value or fact.name) for fact in step)
        if characters > budget * CHARACTERS_PER_TOKEN:
            break
    return bounded


def _sections(
    shown: Iterable[Fact], templates: TemplateSet, stay: Stay | None, layout: Layout
) -> tuple[Section, ...]:
    """Sort the shown facts under the headings of the summary, oldest first."""
    held: dict[str, list[Fact]] = defaultdict(list)
    for fact in shown:
        rule = templates.heading_of(fact, stay is not None and stay.holds(fact))
        if rule is not None:
            held[rule.key].append(fact)
    return tuple(
        Section(rule.key, rule.title, tuple(layout.label(f) for f in sorted(held[rule.key], key=in_order)))
        for rule in templates.sections
        if rule.key in held
    )
