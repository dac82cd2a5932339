"""Digests: what the engine said of a window of the chart, each sentence checked and with its own sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.context.chosen import Block, Label, Line
from service.record.facts import Fact, FactId

TITLE = "Digests of earlier parts of the record"


@dataclass(frozen=True, slots=True)
class Told:
    """One checked sentence of a digest, and the facts of the record that bear it out."""

    text: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """What is told of one window of the chart, oldest window first in every list of digests."""

    title: str
    """`01-Jan-2019 to 04-May-2019`"""
    told: tuple[Told, ...]
    lost: tuple[FactId, ...] = ()
    """The facts of a window whose digest failed; then nothing is told."""


BLOCK = "digests"
SHARE = 0.35
"""Of the budget that all digests together may take in the last prompt."""
CHARACTERS_PER_TOKEN = 3


def digest_tokens(digests: Sequence[Digest]) -> int:
    """Return about how many tokens digests take, rather too many than too few."""
    told = sum(len(one.text) + 8 for digest in digests for one in digest.told)
    return (told + sum(len(digest.title) + 2 for digest in digests)) // CHARACTERS_PER_TOKEN


def digest_block(digests: Sequence[Digest]) -> Block | None:
    """Return the digests as evidence, each sentence under a label that stands for its facts."""
    lines: list[Line] = []
    number = 0
    for digest in digests:
        if digest.lost:
            lines.append(Line(f"{digest.title}: this part of the record could not be digested"))
        if not digest.told:
            continue
        lines.append(Line(f"{digest.title}:"))
        for told in digest.told:
            number += 1
            lines.append(Line(told.text, Label(f"Z{number}"), told.facts))
    return Block(BLOCK, TITLE, tuple(lines)) if lines else None
