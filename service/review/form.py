"""PDSQI-9, the form by which clinicians rate a summary as a whole, in the words of its instrument.

Croxford et al., Provider Documentation Summarization Quality Instrument for large language models, 2025:
eight attributes from 1 to 5, and whether the text stigmatizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from service.ports.reviews import FORM_SCALES


class Question(NamedTuple):
    """One attribute, as it is asked."""

    name: str
    title: str
    asks: str
    answers: tuple[tuple[int, str], ...]
    """(answer, what it stands for), the lowest first."""


_ASKED: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "cited": ("Cited", "Are citations there and right?", "wrong or none", "all there and right"),
    "accurate": ("Accurate", "Is it true to the record?", "major errors", "no errors"),
    "thorough": ("Thorough", "Is everything there that matters?", "major omissions", "nothing is missing"),
    "useful": ("Useful", "Does it help whoever treats this patient?", "of no use", "all of it is of use"),
    "organized": ("Organized", "Is it in an order that helps to understand?", "in no order", "well ordered"),
    "comprehensible": ("Comprehensible", "Are its words clear?", "hard to understand", "clear throughout"),
    "succinct": ("Succinct", "Is it free of needless words?", "much too long", "as brief as can be"),
    "synthesized": ("Synthesized", "Does it say what entries mean together?", "a mere list", "well joined"),
    "stigmatizing": ("Stigmatizing", "Is there language that stigmatizes?", "no", "yes"),
}  # fmt: skip


def questions() -> tuple[Question, ...]:
    """Return the form, in the order of the instrument."""
    return tuple(_question(name) for name in FORM_SCALES)


def _question(name: str) -> Question:
    title, asks, worst, best = _ASKED[name]
    lowest, highest = FORM_SCALES[name]
    words = {lowest: worst, highest: best}
    return Question(name, title, asks, tuple((n, words.get(n, "")) for n in range(lowest, highest + 1)))
