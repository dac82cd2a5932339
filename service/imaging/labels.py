"""Zero-shot labels: what an image encoder would call a picture. Suggestions for reviewers, never findings.

They are shown in the console alone, with their scores. Nothing here reaches a summary, a document or the
model that writes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from math import exp
from typing import Any, NamedTuple

from service.imaging.choice import Vector
from service.imaging.encoder import Embedder
from service.imaging.offer import name_of, regions_of

MOST_SHOWN = 5
NO_FINDING = (
    "Suggestions of an image encoder, not reviewed by anyone. A score says how well the words fit the "
    "picture beside their denial; it is no probability of a disease, and nothing here is a finding."
)


class Suggestion(NamedTuple):
    """A label and how well it fits, 0 to 1; 0.5 says that its denial fits as well."""

    words: str
    score: float


class Label(NamedTuple):
    """A label, and the two sentences whose likeness to a picture is compared."""

    words: str
    said: str
    denied: str


class Labeller:
    """Suggests labels by one encoder. It keeps the vectors of its sentences, so each is embedded once."""

    def __init__(self, encoder: Embedder) -> None:
        self._encoder = encoder
        self._known: dict[str, Vector] = {}
        self._scale = 1.0

    def suggest(self, modality: str, places: Iterable[str], vector: Vector) -> tuple[Suggestion, ...]:
        """Return the best labels for a picture, best first; none where no set is for it. Raises NoEncoder.

        `places` are the words of its header and study: body part, descriptions.
        """
        labels = labels_for(modality, places)
        self._learn([text for label in labels for text in (label.said, label.denied)])
        found = [Suggestion(label.words, self._score(label, vector)) for label in labels]
        return tuple(sorted(found, key=lambda one: (-one.score, one.words))[:MOST_SHOWN])

    def _score(self, label: Label, vector: Vector) -> float:
        lead = float(self._known[label.said] @ vector) - float(self._known[label.denied] @ vector)
        return 1 / (1 + exp(max(-60.0, min(60.0, -self._scale * lead))))

    def _learn(self, texts: Iterable[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            told = self._encoder.embed_texts(new)
            self._scale = told.scale
            self._known |= zip(new, told.vectors, strict=True)


def labels_for(modality: str, places: Iterable[str]) -> tuple[Label, ...]:
    """Return the labels of every set that a picture of this modality and these places is held against."""
    regions = regions_of(places)
    name = name_of(modality)
    return tuple(
        Label(one["words"], f"{name} with {one['words']}", f"{name} {_denial(one)}")
        for chosen in _sets()
        if modality in chosen["modalities"] and (not chosen["regions"] or regions & set(chosen["regions"]))
        for one in chosen["labels"]
    )


def _denial(label: Mapping[str, str]) -> str:
    return f"with {label['not']}" if "not" in label else f"without {label['words']}"


@cache
def _sets() -> tuple[Mapping[str, Any], ...]:
    return tuple(
        tomllib.loads((resources.files("service.imaging") / "labels.toml").read_text("utf-8"))["set"]
    )
