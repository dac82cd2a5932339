"""One cited fact taken apart: what words, numbers and dates it can account for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from service.grounding.wording import lexicon, plain_name, without_asides
from service.grounding.words import (
    PLAIN_WORDS,
    DateToken,
    NumberToken,
    Piece,
    Sentence,
    take_apart,
    units_of,
    words_of,
)
from service.record.facts import Fact, Kind

OBSERVED = frozenset({Kind.RESULT, Kind.VITAL, Kind.SOCIAL})
"""Kinds whose value belongs to a day: the same thing measured on another day is another fact."""
_TIMES_TOLD = frozenset({"first", "latest"})
"""How a line dates its further sources: `recorded 3 times, latest …`; since then is not since that day."""
_SETTINGS = {"inpatient": ("inpatient", "admission", "stay", "hospitalization"), "emergency": ("emergency",)}
"""What an encounter of these settings may be called, whatever its own name is."""
_SAYS_NOTHING = frozenset("yes no true false positive negative present absent unknown other none".split())
_VISITS = frozenset(
    "encounter visit seen attended presented admission inpatient emergency ambulatory".split()
)
_SUFFIXES = frozenset({"device"})
"""SNOMED CT's displays end so: `Implantable defibrillator, device`."""


@dataclass(frozen=True)
class Source:
    """One fact taken apart, ready to be compared with many claims."""

    fact: Fact

    @cached_property
    def units(self) -> frozenset[str]:
        """The words that stand after numbers in the fact's line."""
        quantity = self.fact.quantity
        recorded = {quantity.unit.casefold()} - {""} if quantity is not None else set()
        return units_of(self.fact.text) | recorded

    @cached_property
    def sentence(self) -> Sentence:
        """The fact's line taken apart."""
        told = take_apart(self.line, self.units)
        if self.fact.kind is Kind.MEDICATION or not self.line.startswith(self.fact.name):
            return told
        # A number in a name is no value: `Pain severity 0-10`, `type 2`; a drug's strength is one.
        return replace(told, pieces=tuple(p for p in told.pieces if p.start >= len(self.fact.name)))

    @cached_property
    def line(self) -> str:
        """The fact's line; of a device also what it says of itself elsewhere, its serial number."""
        if self.fact.kind is not Kind.DEVICE:
            return self.fact.text
        more = (f"{label} {text}" for label, text in self.fact.details if text not in self.fact.text)
        return "; ".join((self.fact.text, *more))

    @cached_property
    def words(self) -> frozenset[str]:
        """Every word that this fact can account for: its line, its name, and the displays of its codes."""
        codes = (code.display for code in self.fact.codes)
        named = words_of(" ".join((self.fact.name, self.fact.certainty, *codes)))
        status = words_of(f"{self.fact.status.value} {self.fact.recorded_status}")
        return frozenset((*self.sentence.words, *named, *status))

    @cached_property
    def name_words(self) -> frozenset[str]:
        """The content words of the name that a sentence must hold: no brackets, specimens, dose forms."""
        told = content(take_apart(without_asides(self.fact.name), self.units).words)
        if self.fact.kind is Kind.MEDICATION:
            salts = lexicon().salts - set(
                words_of(self.fact.name)[:1]
            )  # `sodium bicarbonate` is no salt left out
            return (told - lexicon().forms - salts) or told
        if self.fact.kind in OBSERVED:
            return content(take_apart(plain_name(self.fact.name), self.units).words) or told
        return told - _SUFFIXES or told

    def is_named_by(self, said: frozenset[str]) -> bool:
        """Say whether these words name what the fact is about; an admission is named by being one."""
        if self.name_words <= said:
            return True
        if self.fact.kind is Kind.SOCIAL:  # `Former smoker` says itself what it is
            value = content(words_of(self.fact.value))
            return bool(value - _SAYS_NOTHING) and value <= said
        if self.fact.kind is not Kind.ENCOUNTER:
            return False
        settings = content(words_of(self.fact.category))
        called = {name for setting in settings for name in _SETTINGS.get(setting, ())}
        reasons = [content(words_of(text)) for label, text in self.fact.details if label == "reason"]
        tells_reason = any(reason <= said for reason in reasons if reason)
        return bool(called & said) or (tells_reason and bool(_VISITS & said))

    @cached_property
    def beside(self) -> Source:
        """What may stand beside a quotation: all that this fact says, without the note's sentence itself."""
        if self.fact.span is None:
            return self
        return Source(replace(self.fact, text=self.fact.text.rpartition(self.fact.value or " ")[0]))

    @cached_property
    def own_words(self) -> frozenset[str]:
        """The words of the fact's line, without the mark that it is about another person."""
        return frozenset(words_of(self.fact.text.replace(", not the patient:", ":", 1)))

    @cached_property
    def is_pressure(self) -> bool:
        """True for a blood pressure with both its parts in mm[Hg]."""
        parts = {label for label, text in self.fact.details if text.endswith(" mm[Hg]")}
        return parts >= {"systolic", "diastolic"}

    @cached_property
    def has_components(self) -> bool:
        """True for a panel of several values, where each number needs its own label beside it."""
        measured = [piece for piece in self.sentence.pieces if isinstance(piece.token, NumberToken)]
        return self.fact.kind in OBSERVED and self.fact.quantity is None and len(measured) > 1

    def bears(self, token: DateToken | NumberToken, window: frozenset[str], before: frozenset[str]) -> bool:
        """Say whether this fact has this number or date where the words around it say it is.

        `window` are the claim's content words since its number or date before, `before` all words so far.
        """
        if not window.issubset(self.words):
            return False
        if isinstance(token, DateToken):
            return any(
                token.within(own.token) and self._told_alike(own, window)
                for own in self.sentence.pieces
                if isinstance(own.token, DateToken)
            )
        seen: set[str] = set()
        for own in self.sentence.pieces:
            seen |= own.window
            is_named = not self.has_components or self._names_component(own, window)
            if own.token == token and is_named and "reference" not in seen - before:
                return True
        return False

    def _told_alike(self, own: Piece, window: frozenset[str]) -> bool:
        told = _TIMES_TOLD - self.name_words
        return told & own.window == told & window

    def _names_component(self, own: Piece, window: frozenset[str]) -> bool:
        label = content(own.window) - self.units
        return bool(window & label) and window <= label | self.name_words | self.units


def content(words: Iterable[str]) -> frozenset[str]:
    """Return the words that carry clinical content."""
    return frozenset(word for word in words if word not in PLAIN_WORDS)
