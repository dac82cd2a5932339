"""A few values kept in memory for a short while: bounded in bytes and in seconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

Value = TypeVar("Value")


class _Kept(NamedTuple, Generic[Value]):
    value: Value
    size: int
    until: float


class Shelf(Generic[Value]):
    """Keeps each value for `seconds`, and of all together at most `max_bytes`: the least used go first."""

    def __init__(self, seconds: float, max_bytes: int, now: Callable[[], float]) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._now = now
        self._kept: OrderedDict[Hashable, _Kept[Value]] = OrderedDict()
        self._size = 0

    def get(self, key: Hashable) -> Value | None:
        """Return what was put here, or None where it is gone."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found.until <= self._now():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return found.value

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value of so many bytes; one that is larger than the shelf is not kept."""
        self._drop(key)
        if size > self._max_bytes:
            return
        for old in [one for one, kept in self._kept.items() if kept.until <= self._now()]:
            self._drop(old)
        while self._size + size > self._max_bytes:
            self._drop(next(iter(self._kept)))
        self._kept[key] = _Kept(value, size, self._now() + self._seconds)
        self._size += size

    def _drop(self, key: Hashable) -> None:
        gone = self._kept.pop(key, None)
        if gone is not None:
            self._size -= gone.size
