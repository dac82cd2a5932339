"""Choosing: which facts fit the token budget, and the list of those that did not.

Required facts come first (SAFETY 7), whole where they fit, else by index. Then what a clinician would want:
the newest of each name before the second newest of any, what is new before what is old, what is flagged or
of the stay at hand before the rest. The order is total, never random, and cut at coarse steps, so
that one new fact seldom pushes another out of a prompt that the engine has already read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from service.context.chosen import Block, Context, Label, Line, Section
from service.context.digests import SHARE as DIGEST_SHARE
from service.context.digests import Digest, digest_block, digest_tokens
from service.context.layout import Layout
from service.context.manifest import left_out, shown_kinds
from service.context.pivot import in_order, is_abnormal
from service.context.render import TASK, task_of, whole_chat
from service.context.stay import Stay
from service.context.templates import Focus, FocusScope, SectionRule, TemplateSet
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
WASTE = 0.04
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
    older: frozenset[FactId] = frozenset()
    """Vital signs of other days than the newest."""


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
    question: str = ""
    trends: tuple[Line, ...] = ()
    latest: frozenset[FactId] = frozenset()
    older: frozenset[FactId] = frozenset()

    def context(
        self,
        chosen: Sequence[Fact],
        index: Mapping[FactId, Fact],
        focus: Sequence[Fact] = (),
        digests: int = 0,
        task: str = TASK,
    ) -> Context:
        """Build the Context of a selection, its tokens counted. `digests` is how many of them are shown.

        Without a `task` it is a try, to be counted: no heading and no citable label is worked out.
        """
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
            sections=self._sections(shown) if task else (),
            facts={self.layout.label(fact): fact for fact in shown},
            required=self.required,
            left_out=left_out(
                self.record, {fact.id for fact in shown}, carried, self.lost, self.older, self.templates
            ),
            gaps=self.record.gaps,
            as_of=self.record.as_of,
            budget_tokens=self.budget,
            tokens=0,
            searched=len(self.record.facts),
            index=lines,
            blocks=blocks,
            focus=focused,
            cites=self._cites((*blocks, *focused), index.values()) if task else {},
            stay=self.stay,
            kinds=shown_kinds(self.record, {fact.id for fact in shown}, self.templates),
            question=self.question,
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
        return self._heading(fact) is not None

    def _heading(self, fact: Fact) -> SectionRule | None:
        return self.templates.heading_of(fact, self.stay is not None and self.stay.holds(fact))

    def _sections(self, shown: Iterable[Fact]) -> tuple[Section, ...]:
        """Sort the shown facts under the headings of the summary, oldest first."""
        held: dict[str, list[Fact]] = defaultdict(list)
        for fact in shown:
            rule = self._heading(fact)
            if rule is not None:
                held[rule.key].append(fact)
        label = self.layout.label
        return tuple(
            Section(rule.key, rule.title, tuple(label(f) for f in sorted(held[rule.key], key=in_order)))
            for rule in self.templates.sections
            if rule.key in held
        )

    def shared_room(self) -> int:
        """Return the tokens that the evidence may take; the rest is kept for the task and its focus."""
        titles = [rule.title for rule in self.templates.sections]
        asked = self.count((Message("user", task_of(self.templates, TASK, titles, self.question)),))
        return self.budget - max(int(self.budget * TASK_SHARE), asked)


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
    question: str = "",
    matching: Sequence[Fact] | None = None,
) -> Context:
    """Return the largest Context, in ranked order, whose whole rendered prompt fits `budget_tokens`.

    For a `question` the facts `matching` it, best first, are the task's focus in place of the set's own.
    Raises BudgetTooSmall, naming the least that fits, when not even the required facts' index does.
    """
    chooser = _Chooser(
        record, tuple(required), templates, profile, budget_tokens, count, Layout(record, templates), stay,
        tuple(digests), frozenset(fact_id for digest in digests for fact_id in digest.lost), question,
    )  # fmt: skip
    needed = required_in(record, required, templates)
    base, is_whole = _with_required(chooser, needed)
    if not is_whole:
        return base
    room = chooser.shared_room() - min(digest_tokens(digests), int(DIGEST_SHARE * budget_tokens))
    # A guided model is asked about facts one by one: what is only for the whole prompt would take their room.
    chooser.trends = chooser.layout.trends if profile.mode == "free" else ()
    if chooser.context(needed, {}, task="").tokens > room:
        chooser.trends = ()
    ranked = rank_steps(record, needed, templates, stay)
    chooser.latest, chooser.older = ranked.latest, ranked.older
    steps = _with_notes_share(ranked.steps, int(templates.limits.notes_share * budget_tokens))
    chosen = _within(chooser, needed, _as_many_as_fit(chooser, needed, steps, room))
    told = _with_digests(chooser, chosen)
    return _with_focus(chooser, chosen, told, matching)


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
    best = chooser.context((), {fact.id: fact for fact in needed})
    if best.tokens > chooser.budget:
        least = min(best.tokens, whole.tokens)
        raise BudgetTooSmall(
            f"A budget of {chooser.budget} tokens is too small: instructions, required facts by name and the "
            f"list of what is not shown take {least}.",
            f"Give at least {least} tokens.",
        )

    def with_whole(n: int) -> Context:
        return chooser.context(needed[:n], {fact.id: fact for fact in needed[n:]})

    n = _most(len(needed) - 1, lambda n: with_whole(n).tokens <= chooser.budget)
    return (with_whole(n) if n else best), False


def _most(high: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number found, at most `high`, for which something fits; 0 is taken to fit."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _with_notes_share(steps: Iterable[Sequence[Fact]], tokens: int) -> list[Sequence[Fact]]:
    """Leave out of the steps what of the notes goes beyond their share, the oldest notes first."""
    kept = [fact for step in steps for fact in step if fact.span is not None]
    room = tokens * PROSE_CHARACTERS_PER_TOKEN
    over: set[FactId] = set()
    for fact in sorted(kept, key=_newest_first):
        room -= len(fact.value)
        if room < 0:
            over.add(fact.id)
    bounded = ([fact for fact in step if fact.id not in over] for step in steps)
    return [step for step in bounded if step]


def _as_many_as_fit(
    chooser: _Chooser, needed: Sequence[Fact], steps: Sequence[Sequence[Fact]], budget: int
) -> tuple[Fact, ...]:
    """Return the required facts and as many steps of the others as fit a budget without the task."""
    steps = _bounded(steps, budget)

    def left(others: Sequence[Fact]) -> int:
        """Tokens left; negative where the selection is too large."""
        return budget - chooser.context((*needed, *others), {}, task="").tokens

    def taken(n: int) -> list[Fact]:
        return [fact for step in steps[:n] for fact in step]

    whole = _most(len(steps), lambda n: left(taken(n)) >= 0)
    chosen = taken(whole)
    if whole == len(steps) or left(chosen) <= WASTE * chooser.budget:
        return (*needed, *chosen)
    rest = _units(steps[whole])

    def begun(n: int) -> list[Fact]:
        return [fact for unit in rest[:n] for fact in unit]

    part = _most(len(rest) - 1, lambda n: left([*chosen, *begun(n)]) >= 0)
    return (*needed, *chosen, *begun(part))


def _units(step: Sequence[Fact]) -> list[list[Fact]]:
    """Part a step where it may be parted: never within a day of results, whose row would have holes."""
    units: dict[Any, list[Fact]] = {}
    for fact in step:
        is_cell = fact.kind in (Kind.RESULT, Kind.VITAL) and fact.when is not None
        units.setdefault(_day(fact) if is_cell else fact.id, []).append(fact)
    return list(units.values())


def _within(chooser: _Chooser, needed: Sequence[Fact], chosen: tuple[Fact, ...]) -> tuple[Fact, ...]:
    """Give up trends, then the least wanted facts, where the whole prompt takes more than its parts did."""
    if chooser.context(chosen, {}).tokens <= chooser.budget:
        return chosen
    chooser.trends = ()
    others = chosen[len(needed) :]
    n = _most(len(others), lambda n: chooser.context((*needed, *others[:n]), {}).tokens <= chooser.budget)
    return (*needed, *others[:n])


def _with_digests(chooser: _Chooser, chosen: Sequence[Fact]) -> int:
    """Return how many of the newest digests fit beside the chosen facts."""
    return _most(
        len(chooser.digests), lambda n: chooser.context(chosen, {}, digests=n).tokens <= chooser.budget
    )


def _with_focus(
    chooser: _Chooser, chosen: Sequence[Fact], digests: int, matching: Sequence[Fact] | None = None
) -> Context:
    """Add what this task wants beyond the shared evidence, newest or best first, within its share."""
    best = chooser.context(chosen, {}, digests=digests)
    kept = {fact.id for fact in chosen}
    rule = chooser.templates.focus
    found = matching
    if found is None:
        found = focused(chooser.record, rule, chooser.stay, chooser.templates.unshown)
    wanted = [fact for fact in found if fact.id not in kept]
    room = min(chooser.budget, best.tokens + int(rule.share * chooser.budget))

    def with_focus(n: int) -> Context:
        return chooser.context(chosen, {}, wanted[:n], digests)

    n = _most(len(wanted), lambda n: with_focus(n).tokens <= room)
    return with_focus(n) if n else best


def focused(
    record: PatientRecord, rule: Focus, stay: Stay | None, unshown: Collection[Kind] = ()
) -> list[Fact]:
    """Return the facts that a task wants beside the shared evidence, newest first; none of a kind unshown."""
    if rule.scope in (FocusScope.NONE, FocusScope.QUESTION) or (
        rule.scope is FocusScope.STAY and stay is None
    ):
        return []
    since = _days_before(record, rule.days)
    found = []
    for fact in record.facts:
        if (rule.kinds and fact.kind not in rule.kinds) or fact.kind in (Kind.PATIENT, *unshown):
            continue
        if rule.scope is FocusScope.STAY:
            is_wanted = stay is not None and stay.holds(fact)
        else:
            is_wanted = since is not None and fact.when is not None and fact.when.latest >= since
        if is_wanted:
            found.append(fact)
    return sorted(found, key=_newest_first)


def _days_before(record: PatientRecord, days: int) -> datetime | None:
    """Return the time so many days before the record's newest; the first day of the calendar at the most."""
    if record.as_of is None:
        return None
    try:
        return record.as_of.earliest - timedelta(days=days)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


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
    older: list[FactId] = []
    for (kind, _), facts in series.items():
        newest = max(facts, key=in_order)
        place = order.get(kind, len(order))
        for fact in facts:
            if fact.id in taken:
                continue
            # A note is named by one of its sentences: the newest is the whole note.
            if fact is newest or (fact.span is not None and fact.source.reference == newest.source.reference):
                age = max(year - fact.when.day.year, 0).bit_length() if fact.when else 0
                steps[0, age, place].append(fact)
            elif kind is not Kind.VITAL or (fact.when is not None and fact.when.day >= days):
                matters = (kind, _day(fact)) in telling or (stay is not None and stay.holds(fact))
                steps[1, -_quarter(fact) - (BOOST if matters else 0), place].append(fact)
            else:
                older.append(fact.id)
    keys = sorted(steps)
    latest = frozenset(fact.id for key in keys if key[0] == 0 for fact in steps[key])
    return Steps(
        tuple(tuple(sorted(steps[key], key=_newest_first)) for key in keys), latest, frozenset(older)
    )


def _newest_first(fact: Fact) -> tuple[float, str, tuple[int, int], str]:
    """Order facts backwards in time; the passages of one note as they are read."""
    return -in_order(fact)[0], fact.source.reference, fact.span or (0, 0), fact.id


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
