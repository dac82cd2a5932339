"""How facts stand in a prompt: under which title, in which order, and by which label they are cited.

Labels and order depend on the record alone, never on what was chosen, so that all prompts on one patient
call a fact by the same name, and a new fact leaves what stood before it as it was: inside a block facts
stand in the order in which the server came to know them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime

from service.context.chosen import Block, Label, Line
from service.context.pivot import in_order, tables_of, told_by
from service.context.templates import BlockRule, Form, TemplateSet
from service.context.trends import trend_lines
from service.record.dates import show_day
from service.record.facts import Fact, FactId, Kind, PatientRecord, RequiredKind, Status

LETTERS: Mapping[Kind, str] = {
    Kind.PATIENT: "X", Kind.PROBLEM: "P", Kind.ALLERGY: "A", Kind.MEDICATION: "M", Kind.RESULT: "R",
    Kind.VITAL: "T", Kind.SOCIAL: "S", Kind.PROCEDURE: "O", Kind.ENCOUNTER: "V", Kind.IMMUNIZATION: "I",
    Kind.REPORT: "B", Kind.NOTE: "N", Kind.IMAGING: "G", Kind.ORDER: "Q", Kind.PLAN: "L", Kind.GOAL: "J",
    Kind.FAMILY_HISTORY: "H", Kind.DEVICE: "D", Kind.FLAG: "W", Kind.DIRECTIVE: "C",
}  # fmt: skip
"""E is kept for worked examples, F for pictures, K for trends, Z for digests."""
_SAID = frozenset({Status.NOT_DONE, Status.REFUTED, Status.ON_HOLD, Status.PRELIMINARY, Status.CORRECTED})
"""Statuses that an index must say: the name alone would say something else."""
_LONGEST_VALUE = 60


class Layout:
    """The evidence of one record under one template set, worked out once and used for every try."""

    def __init__(self, record: PatientRecord, templates: TemplateSet) -> None:
        self._templates = templates
        ordered = sorted(record.facts, key=known_since)
        self.labels = label_facts(record)
        self._place = {fact.id: place for place, fact in enumerate(ordered)}
        self._results = tables_of(record.facts, Kind.RESULT)
        self._vitals = tables_of(record.facts, Kind.VITAL)
        self.trends = trend_lines(record.facts, self._results, templates.limits.trends)
        self._days = {fact.source.reference: fact.when for fact in record.facts if fact.body}
        self._blocks = {fact.id: templates.block_of(fact) for fact in record.facts}

    def label(self, fact: Fact) -> Label:
        """Return what a fact is cited by."""
        return self.labels[fact.id]

    def blocks(self, chosen: Iterable[Fact], latest: Collection[FactId] = frozenset()) -> tuple[Block, ...]:
        """Return the blocks that hold these facts, in the order of the template set.

        `latest` are those that are shown only as the newest of their name.
        """
        held: dict[str, list[Fact]] = defaultdict(list)
        for fact in chosen:
            rule = self._blocks[fact.id]
            if rule is not None:
                held[rule.key].append(fact)
        found = []
        for rule in self._templates.blocks:
            if rule.key in held:
                facts = sorted(held[rule.key], key=lambda fact: self._place[fact.id])
                found.append(Block(rule.key, rule.title, tuple(self._lines(rule, facts, latest))))
        return tuple(found)

    def _lines(self, rule: BlockRule, facts: Collection[Fact], latest: Collection[FactId]) -> Iterator[Line]:
        match rule.form:
            case Form.PIVOT:
                return self._results.rows(facts, self.label, latest)
            case Form.VITALS:
                return self._vitals.rows(facts, self.label)
            case Form.NOTES:
                return self._notes(facts)
        return self._plain(facts)

    def _plain(self, facts: Iterable[Fact]) -> Iterator[Line]:
        """Yield a line a fact; activities of a care plan stand under its name and need not repeat it."""
        above = ""
        for fact in facts:
            plan = dict(fact.details).get("plan", "") if fact.kind is Kind.PLAN else ""
            if plan != above:
                above = plan
                yield Line(f"## {plan}, activities of this care plan:" if plan else "## Other:")
            text = told_by(fact)
            if plan:
                text = text.replace("care plan activity, ", "", 1).replace(f"; plan: {plan}", "", 1)
            yield Line(text, self.label(fact), (fact,))

    def _notes(self, facts: Iterable[Fact]) -> Iterator[Line]:
        """Yield each note's sentences under its name, day and author, and its sections by name.

        Names and headings are the record's own words on lines without a label: `#` keeps them from passing
        for a title of ours.
        """
        notes: dict[str, list[Fact]] = defaultdict(list)
        for fact in facts:
            notes[fact.source.reference].append(fact)
        for passages in notes.values():
            whole = [fact for fact in passages if fact.span is None]
            yield from (Line(told_by(fact), self.label(fact), (fact,)) for fact in whole)
            section = ""
            parts = sorted((fact for fact in passages if fact.span is not None), key=_by_span)
            if parts and not whole:
                yield Line(f"# {title_of(parts[0])}:")
            for fact in parts:
                if fact.category != section:
                    section = fact.category
                    yield Line(f"## {section or 'without a heading'}:")
                yield Line(sentence_of(fact, self._later(fact)), self.label(fact), (fact,))

    def _later(self, passage: Fact) -> int:
        """Count the later notes that repeat a sentence; a report with the same text on the day is none."""
        return sum(
            source.reference in self._days and self._days[source.reference] != passage.when
            for source in passage.copies
        )

    def index(self, required: Iterable[RequiredKind], facts: Mapping[FactId, Fact]) -> tuple[Line, ...]:
        """Return one line a required kind, with those of its facts that are shown by name alone."""
        lines = []
        for kind in required:
            named = [facts[fact_id] for fact_id in kind.facts if fact_id in facts]
            if named:
                lines.append(Line(kind.title, None, tuple(named)))
        return tuple(lines)


def label_facts(record: PatientRecord) -> dict[FactId, Label]:
    """Return what each fact is called in every prompt: its kind's letter, and its number in its kind."""
    counts: dict[Kind, int] = defaultdict(int)
    labels = {}
    for fact in sorted(record.facts, key=known_since):
        counts[fact.kind] += 1
        labels[fact.id] = Label(f"{LETTERS[fact.kind]}{counts[fact.kind]}")
    return labels


def known_since(fact: Fact) -> tuple[float, str]:
    """Order facts as the server came to know them; where it does not say, as they happened; then by id."""
    updated = fact.updated
    if updated:
        try:
            at = datetime.fromisoformat(updated)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp(), fact.id
        except (ValueError, OverflowError):
            pass
    return in_order(fact)


def name_of(fact: Fact) -> str:
    """Return a fact in the fewest words that cannot be misread: name, short value, telling status, person."""
    value = f": {fact.value}" if 0 < len(fact.value) <= _LONGEST_VALUE and fact.value != fact.name else ""
    said = [fact.status.value] if fact.status in _SAID else []
    if fact.person.role != "patient":
        said.append(f"about {fact.person.text or fact.person.role}")
    if fact.certainty and fact.certainty != "confirmed":
        said.append(fact.certainty)
    return f"{fact.name}{value}" + (f" ({', '.join(said)})" if said else "")


def title_of(passage: Fact) -> str:
    """Return what a note is called: `Progress note of 04-May-2019 by Dr. Weiss`."""
    day = f" of {show_day(passage.when)}" if passage.when else ", undated"
    return f"{passage.name}{day}" + (f" by {passage.author}" if passage.author else "")


def sentence_of(passage: Fact, repeated: int) -> str:
    """Return a sentence of a note as written, and how many later notes repeat it (SAFETY 13)."""
    said = f" (repeated in {repeated} later note{'s' if repeated != 1 else ''})" if repeated else ""
    return passage.value + said


def _by_span(fact: Fact) -> tuple[int, int]:
    return fact.span or (0, 0)
