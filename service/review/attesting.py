"""What a clinician must decide on before they attest, what they changed, and by how much. Values alone.

A conflict of the record and a fact that our own code added are decided on one by one (SAFETY 23), and so is
every statement that somebody disputes, or whose citation was corrected. There is no accepting of several at
once: what need not be decided on stays as it was written, without a tap.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from typing import NamedTuple

from service.grounding.summary import Claim, Origin, Summary, SummarySection, Verdict
from service.ports.attesting import Act, Disposal, Edit
from service.writeback.lasting import Change
from service.writeback.moment import fhir_instant

_WORD = re.compile(r"\s+|[^\W_]+|[\W_]")


class Why(StrEnum):
    """Why an item must be decided on."""

    CONFLICT = "the record contradicts itself here"
    ADDED = "added from the record, not written by the model"
    DISPUTED = "disputed by a colleague"
    CORRECTED = "its citation was corrected"
    NOT_SUPPORTED = "not supported by its sources"
    FROM_PICTURE = "read from a picture, not checked"


@dataclass(frozen=True, slots=True)
class Item:
    """One statement, or one conflict of the record, that a clinician can decide on."""

    key: str
    """`claim-3`, `conflict-allergies`: names it in forms and addresses."""
    section: SummarySection
    text: str
    """As it was written."""
    claim: Claim | None = None
    """None for a conflict."""
    ordinal: int | None = None
    """The claim's place among the published ones, from 0."""
    why: tuple[Why, ...] = ()
    """Why it must be decided on; empty where it need not."""

    @property
    def acts(self) -> tuple[Act, ...]:
        """What may be decided: a conflict is seen, and stays in the text (SAFETY 12)."""
        return tuple(Act) if self.claim is not None else (Act.ACCEPTED,)


def items_of(summary: Summary, disputed: Collection[Claim] = ()) -> tuple[Item, ...]:
    """Return all there is to decide on, in reading order, the conflict of a section before its statements."""
    items: list[Item] = []
    ordinal = 0
    for section in summary.sections:
        if section.conflict:
            items.append(Item(f"conflict-{section.key}", section, section.conflict, why=(Why.CONFLICT,)))
        for claim in section.claims:
            why = tuple(_whys(claim, disputed))
            items.append(Item(f"claim-{ordinal}", section, claim.text, claim, ordinal, why))
            ordinal += 1
    return tuple(items)


def _whys(claim: Claim, disputed: Collection[Claim]) -> list[Why]:
    told = {
        Why.ADDED: claim.origin is Origin.RECORD,
        Why.DISPUTED: claim in disputed,
        Why.CORRECTED: claim.corrected,
        Why.NOT_SUPPORTED: claim.verdict not in (Verdict.SUPPORTED, Verdict.NOT_VERIFIABLE),
        Why.FROM_PICTURE: claim.verdict is Verdict.NOT_VERIFIABLE,
    }
    return [why for why, holds in told.items() if holds]


def decided(items: Sequence[Item], disposals: Sequence[Disposal]) -> Mapping[str, Disposal]:
    """Return what was decided, by the item's key."""
    found = {(one.ordinal, one.section): one for one in disposals}
    keys = {item.key: (item.ordinal, item.section.key if item.claim is None else "") for item in items}
    return {key: found[of] for key, of in keys.items() if of in found}


def still_open(items: Sequence[Item], disposals: Sequence[Disposal]) -> tuple[Item, ...]:
    """Return what must be decided on before anybody may attest, and is not."""
    done = decided(items, disposals)
    return tuple(item for item in items if item.why and item.key not in done)


def changes_of(disposals: Sequence[Disposal], edits: Sequence[Edit]) -> tuple[Change, ...]:
    """Return what an attested text has otherwise than the stored one, in reading order."""
    texts = {edit.ordinal: edit.after for edit in edits}
    changes = [
        Change(one.ordinal, one.by, fhir_instant(one.at), texts.get(one.ordinal, ""))
        for one in disposals
        if one.ordinal is not None and one.act is not Act.ACCEPTED
    ]
    return tuple(sorted(changes))


class Measured(NamedTuple):
    """By how much a clinician changed a text."""

    edits: int
    rejected: int
    distance: int
    machine_characters: int


def measure(summary: Summary, disposals: Sequence[Disposal], edits: Sequence[Edit]) -> Measured:
    """Return how much was changed; a statement that was left out counts whole."""
    texts = [claim.text for claim in summary.published]
    gone = [one.ordinal for one in disposals if one.act is Act.REJECTED and one.ordinal is not None]
    distance = sum(edit.distance for edit in edits) + sum(len(texts[ordinal]) for ordinal in gone)
    return Measured(len(edits), len(gone), distance, sum(map(len, texts)))


class Piece(NamedTuple):
    """Words that stand in both texts (`same`), in the machine's alone (`gone`) or the human's (`new`)."""

    kind: str
    text: str


def word_diff(before: str, after: str) -> tuple[Piece, ...]:
    """Return both texts as one, word by word: what went stands before what came in its place."""
    one, two = _WORD.findall(before), _WORD.findall(after)
    pieces: list[Piece] = []
    for kind, i, j, k, m in SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(Piece("same", "".join(one[i:j])))
            continue
        pieces += [Piece("gone", "".join(one[i:j]))] if j > i else []
        pieces += [Piece("new", "".join(two[k:m]))] if m > k else []
    return tuple(pieces)


def edit_distance(one: str, two: str) -> int:
    """Return the Levenshtein distance in characters, by Hyyrö's bit vectors (2003): a row is an integer."""
    if not one:
        return len(two)
    places: dict[str, int] = {}
    for place, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << place
    whole, last = (1 << len(one)) - 1, 1 << (len(one) - 1)
    more, less, distance = whole, 0, len(one)
    for character in two:
        same = places.get(character, 0)
        diagonal = (((same & more) + more) ^ more) | same | less
        right = less | ~(diagonal | more) & whole
        left = more & diagonal
        distance += bool(right & last) - bool(left & last)
        right = (right << 1 | 1) & whole
        more = ((left << 1) & whole) | ~(diagonal | right) & whole
        less = right & diagonal & whole
    return distance
