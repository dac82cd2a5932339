"""The trail as it is read: entries with their places in the chain, what auditors ask for, and its state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from service.ports.audit import AuditEntry


@dataclass(frozen=True, slots=True)
class Recorded:
    """One entry in its place."""

    number: int
    """Its number in the chain, without gaps; 0 for what was recorded before there was one."""
    hash: str
    """The chain's hash (hex) up to and with it."""
    patient_hash: str
    """Keyed hash of the patient; empty where the entry is about none."""
    entry: AuditEntry


@dataclass(frozen=True, slots=True)
class Sought:
    """Which entries are wanted; what is empty is not asked for."""

    actor: str = ""
    action: str = ""
    patient: str = field(default="", repr=False)
    """`Patient/1`"""
    run_id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    """Left out itself."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What one check of the whole trail came to."""

    at: datetime
    entries: int
    faults: int
    anchored_at: datetime | None = None

    @property
    def is_intact(self) -> bool:
        """Tell whether nothing was wrong."""
        return not self.faults


class Ledger(Protocol):
    """The trail for those who read it. Every method raises StoreError."""

    def head(self) -> tuple[int, str]:
        """Return number and hash of the last entry."""
        ...

    def hash_at(self, number: int) -> str:
        """Return the hash that the chain has at a number, or "" where it has no such entry."""
        ...

    def newest(self, sought: Sought, limit: int = 50, before: int = 0) -> Sequence[Recorded]:
        """Return entries, newest first, with numbers below `before` where one is given."""
        ...

    def oldest(self, sought: Sought, after: int = 0, until: int | None = None) -> Iterator[Recorded]:
        """Yield entries with numbers above `after`, in order, a page at a time."""
        ...

    def keep_check(self, checked: Checked) -> None:
        """Keep what a check came to."""
        ...

    def last_check(self) -> Checked | None:
        """Return what the newest check came to, or None."""
        ...
