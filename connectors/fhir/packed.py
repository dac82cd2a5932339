"""Many resources in little memory: a chart of any size is held as compressed pages, not as objects.

A resource as Python objects takes five to ten times the room of its JSON, and its JSON ten times the room of
the compressed page. Small charts stay decoded, so that reading them again costs nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from operator import is_
from typing import Any

from connectors.errors import BrokenJson
from connectors.fhir.codec import decode, encode

HELD_BYTES = 24 * 1024 * 1024
"""JSON of this size may stay decoded: the largest Synthea charts are 6 to 12 MB."""
PAGE = 500
"""Resources that are decoded at a time."""
FASTEST = 1


class Packed:
    """Resources in their order of arrival, to be read from the first to the last as often as one likes.

    Everything JSON can hold is kept as it is; what it cannot hold (a lone surrogate) becomes None.
    """

    __slots__ = ("_bytes", "_count", "_held", "_held_bytes", "_pages")

    def __init__(self, resources: Iterable[Any] = (), *, held_bytes: int = HELD_BYTES) -> None:
        self._pages: list[bytes] = []
        self._held: list[Any] = []
        self._held_bytes = held_bytes
        self._bytes = 0
        self._count = 0
        self.extend(resources)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        for page in self._pages:
            yield from _unpack(page)[1]
        yield from self._held

    @property
    def held(self) -> int:
        """How many resources stand decoded in memory."""
        return len(self._held)

    def extend(self, resources: Iterable[Any], size: int = 0) -> None:
        """Add resources; `size` is the length of their JSON in bytes, where it is known."""
        for resource in resources:
            self._held.append(resource)
            self._count += 1
            if self._pages and len(self._held) >= PAGE:
                self._pack()
        self._bytes += size
        if not self._pages and self._bytes > self._held_bytes:
            self._pack()

    def revised(self, revise: Callable[[Any], Any]) -> Packed:
        """Return a copy in which each resource is what `revise` makes of it, left out where that is None.

        Pages of which nothing changes are taken over as they are.
        """
        copy = Packed(held_bytes=self._held_bytes)
        copy._bytes = self._bytes
        for page in self._pages:
            before = _unpack(page)[1]
            after = [new for resource in before if (new := revise(resource)) is not None]
            same = len(after) == len(before) and all(map(is_, before, after))
            if after:
                copy._pages.append(page if same else _pack(after))
            copy._count += len(after)
        copy._held = [new for resource in self._held if (new := revise(resource)) is not None]
        copy._count += len(copy._held)
        return copy

    def dump(self) -> bytes:
        """Return everything as bytes that `load` reads: compressed JSON pages, each after its length."""
        pages = [*self._pages, *(_pack(self._held[n : n + PAGE]) for n in range(0, len(self._held), PAGE))]
        return b"".join(len(page).to_bytes(4, "big") + page for page in pages)

    @classmethod
    def load(cls, data: bytes, *, held_bytes: int = HELD_BYTES) -> Packed:
        """Return what `dump` wrote. Raises ValueError for bytes that it did not write."""
        packed, place = cls(held_bytes=held_bytes), 0
        while place < len(data):
            size = int.from_bytes(data[place : place + 4], "big")
            page = data[place + 4 : place + 4 + size]
            if len(page) != size or not size:
                raise ValueError("these bytes hold no packed resources")
            packed._add_page(page)
            place += 4 + size
        return packed

    def _add_page(self, page: bytes) -> None:
        raw, resources = _unpack(page)
        self._bytes += len(raw)
        self._count += len(resources)
        if self._bytes > self._held_bytes:
            self._pack()
            self._pages.append(page)
        else:
            self._held.extend(resources)

    def _pack(self) -> None:
        for start in range(0, len(self._held), PAGE):
            self._pages.append(_pack(self._held[start : start + PAGE]))
        self._held = []


def _pack(resources: list[Any]) -> bytes:
    try:
        data = encode(resources)
    except ValueError:
        data = encode([_or_none(resource) for resource in resources])
    return zlib.compress(data, FASTEST)


def _or_none(resource: Any) -> Any:
    try:
        encode(resource)
    except ValueError:
        return None
    return resource


def _unpack(page: bytes) -> tuple[bytes, list[Any]]:
    """Return the JSON of a page and what it holds. Raises ValueError for a page that is not ours."""
    try:
        data = zlib.decompress(page)
        resources = decode(data)
    except (zlib.error, BrokenJson):
        raise ValueError("these bytes hold no packed resources") from None
    if not isinstance(resources, list):
        raise ValueError("these bytes hold no packed resources")
    return data, resources
