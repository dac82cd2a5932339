"""What the model is shown, and what it is not: the Context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from connectors.fhir.pull import Gap
from service.record.facts import Fact, Identity, RequiredKind, When

Label = NewType("Label", str)
"""`F12`: what a fact is called in one prompt, and all that the decoder may cite."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the summary: a heading, and the labels of the facts that belong under it."""

    key: str
    title: str
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Facts of one kind that did not fit: how many, and the period they cover."""

    kind: str
    title: str
    count: int
    earliest: str
    """Day as `04-May-2019`; empty when undated."""
    latest: str


@dataclass(frozen=True, slots=True)
class Context:
    """The chosen facts and what was left out, within a token budget.

    The budget counts the whole rendered prompt: instructions, patient and task, by the served model's
    tokenizer. Required facts are always in, whole or by index.
    """

    identity: Identity
    sections: tuple[Section, ...]
    facts: dict[Label, Fact]
    """Label → fact, in evidence order."""
    required: tuple[RequiredKind, ...]
    left_out: tuple[LeftOut, ...]
    gaps: tuple[Gap, ...]
    as_of: When | None
    budget_tokens: int
    tokens: int
    """Tokens of the rendered prompt; at most `budget_tokens`."""
    searched: int
    """How many facts the record holds in all."""
