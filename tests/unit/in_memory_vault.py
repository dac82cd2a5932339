"""A double of the vault that keeps everything in a dictionary."""

from __future__ import annotations

from datetime import datetime

from service.errors import StoreError


class InMemoryVault:
    """A Vault; `is_full` makes every put fail as a full disk would, `is_broken` every call."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}
        self.is_full = False
        self.is_broken = False

    def area(self, area: str) -> dict[str, bytes]:
        """What is kept in one area."""
        return {key: content for (name, key), content in self.kept.items() if name == area}

    def get(self, area: str, key: str) -> bytes | None:
        self._check()
        return self.kept.get((area, key))

    def put(self, area: str, key: str, content: bytes) -> None:
        self._check()
        if self.is_full:
            raise StoreError("the disk is full")
        self.kept[area, key] = content

    def drop(self, area: str, key: str) -> None:
        self._check()
        self.kept.pop((area, key), None)

    def prune(self, area: str, before: datetime) -> int:
        raise NotImplementedError

    def _check(self) -> None:
        if self.is_broken:
            raise StoreError("the database cannot be read")
