"""A patient's pictures found by words: vectors in a small index (usearch), with what each is of. No I/O.

What is found is what looks most like the words, best first. Something always does: a hit is a place to look,
and never says that the picture shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np

from service.imaging.choice import Vector
from service.imaging.labels import Suggestion
from service.imaging.picture import Spot

FORMAT = 1
MOST_PICTURES = 20_000
"""Of one patient: about 100 MB. What comes after is not taken in, and `add` says so."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One picture of the index, and what is shown of it where it is found."""

    study: str
    series: str
    instance: str
    frame: int
    source: str
    """`ImagingStudy/7`"""
    modality: str = ""
    taken: str = ""
    """As `Picture.taken`."""
    what: str = ""
    """Study and series in words."""
    digest: str = ""
    """SHA-256 (hex) of the PNG that was embedded."""
    labels: tuple[Suggestion, ...] = ()

    @property
    def spot(self) -> Spot:
        """Where it is."""
        return Spot(self.study, self.series, self.instance, self.frame)

    def __repr__(self) -> str:
        return f"Entry({self.instance!r}, {self.frame})"


class Found(NamedTuple):
    """One picture, and its likeness to what was asked for (cosine)."""

    entry: Entry
    likeness: float


class _Kept(msgspec.Struct, array_like=True):
    format: int
    model: str
    dimensions: int
    scale: float
    bias: float
    entries: list[Entry]
    index: bytes


class PictureIndex:
    """The pictures of one patient as one encoder's weights see them."""

    def __init__(self, model: str, dimensions: int = 0, scale: float = 1.0, bias: float = 0.0) -> None:
        """`model` is the digest of the weights; `scale` and `bias` turn likeness into a score."""
        self.model, self.scale, self.bias = model, scale, bias
        self._entries: list[Entry] = []
        self._places: dict[Spot, int] = {}
        self._index = _empty(dimensions) if dimensions else None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is in it, in the order in which it came."""
        return tuple(self._entries)

    def known(self, digests: Iterable[tuple[Spot, str]]) -> dict[Spot, Vector]:
        """Return the vectors of pictures (by spot and digest of the PNG) that need not be embedded again."""
        return {
            spot: vector for spot, digest in digests if (vector := self._vector(spot, digest)) is not None
        }

    def add(self, entries: Sequence[Entry], vectors: Sequence[Vector]) -> int:
        """Take pictures in, each in place of an earlier one of its spot; return how many had no room."""
        left_out = 0
        for entry, vector in zip(entries, vectors, strict=True):
            place = self._places.get(entry.spot, len(self._entries))
            if place >= MOST_PICTURES:
                left_out += 1
                continue
            self._put(place, entry, vector)
        return left_out

    def find(self, vector: Vector, most: int = 10) -> tuple[Found, ...]:
        """Return the pictures most like a vector, best first; of equals the one that came first."""
        if self._index is None or not self._entries:
            return ()
        # So few vectors are compared one by one: faster than a graph, and it misses none.
        matches = self._index.search(vector, min(most, len(self._entries)), exact=True, threads=1)
        found = sorted(zip(matches.distances.tolist(), matches.keys.tolist(), strict=True))
        return tuple(Found(self._entries[key], 1.0 - distance) for distance, key in found)

    def to_bytes(self) -> bytes:
        """Return it as it is kept."""
        index = bytes(self._index.save() or b"") if self._index is not None else b""
        dimensions = int(self._index.ndim) if self._index is not None else 0
        kept = _Kept(FORMAT, self.model, dimensions, self.scale, self.bias, self._entries, index)
        return msgspec.msgpack.encode(kept)

    @classmethod
    def from_bytes(cls, data: bytes | None, model: str) -> Self:
        """Return what was kept; an empty index where it is of other weights or an older form."""
        try:
            kept = msgspec.msgpack.decode(data or b"", type=_Kept)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return cls(model)
        if kept.format != FORMAT or kept.model != model or not kept.index:
            return cls(model)
        found = cls(model, kept.dimensions, kept.scale, kept.bias)
        assert found._index is not None
        found._index.load(kept.index)
        found._entries = kept.entries
        found._places = {entry.spot: place for place, entry in enumerate(kept.entries)}
        return found

    def _put(self, place: int, entry: Entry, vector: Vector) -> None:
        if self._index is None:
            self._index = _empty(len(vector))
        if place < len(self._entries):
            self._index.remove(place)
            self._entries[place] = entry
        else:
            self._entries.append(entry)
        self._places[entry.spot] = place
        self._index.add(place, np.ascontiguousarray(vector, np.float32), threads=1)

    def _vector(self, spot: Spot, digest: str) -> Vector | None:
        place = self._places.get(spot)
        if place is None or self._entries[place].digest != digest or self._index is None:
            return None
        vector: Vector = np.asarray(self._index[place], np.float32)
        return vector


def _empty(dimensions: int) -> Any:
    from usearch.index import Index  # noqa: PLC0415 - commands that find no picture need not wait for it

    return Index(ndim=dimensions, metric="cos", dtype="f32")
