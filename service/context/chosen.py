"""What the model is shown, and what it is not: the Context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

from connectors.fhir.pull import Gap
from service.context.stay import Stay
from service.record.facts import Fact, Identity, RequiredKind, When

Label = NewType("Label", str)
"""`P12`: what a fact is called in every prompt about one record; `R@25-Nov-2020` for a row of a table."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the summary: a heading, and the labels of the facts that belong under it."""

    key: str
    title: str
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of evidence: what it is cited by, and the facts that it rests on.

    A heading or the head of a table has no label. A row of a table rests on many facts.
    """

    text: str
    label: Label | None = None
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of evidence under one title."""

    key: str
    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Facts of one kind that are not shown for one reason: how many, and the period they cover."""

    kind: str
    title: str
    count: int
    earliest: str
    """Day as `04-May-2019`; empty when undated."""
    latest: str
    reason: str = ""
    """`did not fit`, `told by a digest`…; empty in summaries of an older version."""


@dataclass(frozen=True, slots=True)
class Context:
    """The chosen facts and what was left out, within a token budget.

    The budget counts the whole rendered prompt: instructions, patient and task, by the served model's
    tokenizer. Required facts are always in, whole or by index.
    """

    identity: Identity
    sections: tuple[Section, ...]
    facts: Mapping[Label, Fact]
    """Label → fact for every fact that is shown by itself or within a row, in evidence order."""
    required: tuple[RequiredKind, ...]
    left_out: tuple[LeftOut, ...]
    gaps: tuple[Gap, ...]
    as_of: When | None
    budget_tokens: int
    tokens: int
    """Tokens of the rendered prompt; at most `budget_tokens`."""
    searched: int
    """How many facts the record holds in all."""
    index: tuple[Line, ...] = ()
    """Required facts that are shown by name alone, one line a kind; each label in it may be cited."""
    blocks: tuple[Block, ...] = ()
    focus: tuple[Block, ...] = ()
    """Further evidence for this task alone, after what all tasks on this patient share."""
    cites: Mapping[Label, tuple[Fact, ...]] = field(default_factory=dict)
    """Every label that an answer to the whole prompt may cite → the facts that it stands for."""
    stay: Stay | None = None
    """The encounter at hand, where there is one."""
    kinds: tuple[tuple[str, int, int], ...] = ()
    """(title, how many there are, how many are shown) of every kind of fact that the record holds."""
    question: str = ""
    """What was asked of the record, where that is the task."""

    def behind(self, label: Label) -> tuple[Fact, ...]:
        """Return the facts that a label stands for; none for a label that was not given."""
        if label in self.cites:
            return self.cites[label]
        fact = self.facts.get(label)
        return () if fact is None else (fact,)
