"""The audit log, and what a collector of it does not have yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from service.ports.held import Closes


class Action(StrEnum):
    """What an audit entry records."""

    READ = "read"
    GENERATE = "generate"
    WRITE = "write"
    VIEW = "view"
    ATTEST = "attest"
    WITHDRAW = "withdraw"
    STOP = "stop"
    LOGIN = "login"
    LOGOUT = "logout"
    REFUSED = "refused"
    EXPORT = "export"
    """A stored summary was handed out as data."""
    FEEDBACK = "feedback"
    """Somebody said that a statement is wrong, or took that back; `target` is what was said: `wrong`."""
    REVIEW = "review"
    """A reviewer did something in a review; `target` is what: `score`, `finish:rejected`, `upheld`."""
    CONFIGURE = "configure"
    """How or when this installation works was changed; `target` says what: `schedule:morning:pause`."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act: who did what to whose record, when, and how it ended."""

    action: Action
    actor: str
    """`system:cli`, `system:demo`, `user:local`"""
    patient: str
    """`Patient/1`; stored encrypted, with a keyed hash for look-ups."""
    at: datetime
    outcome: str = "ok"
    """`ok` or an error code."""
    run_id: str = ""
    target: str = ""
    """`DocumentReference/7` or empty."""
    counts: Mapping[str, int] = field(default_factory=dict)
    server: str = ""
    """Base URL of the FHIR server that `patient` and `target` are of; empty where nobody said."""
    by: str = ""
    """`Practitioner/7`, who answers for the act where `actor` only carried it out; stored encrypted."""


@dataclass(frozen=True, slots=True)
class DueEntry:
    """One audit entry that a collector does not have yet."""

    number: int
    handle: str
    """A keyed hash that this entry has and no other, here or elsewhere: by it a collector's copy is found."""
    entry: AuditEntry
    was_tried: bool
    """True where it may have been written already: an answer was lost, or a process died."""


class Outbox(Protocol):
    """What of the audit log a collector (its base URL) does not have yet. Every method raises StoreError.

    With a `server`, what is about a patient counts only where it is of that server: a reference means another
    patient on another one.
    """

    def hold(self, collector: str) -> Closes | None:
        """Return the right to send to a collector until it is closed, or None where another has it."""
        ...

    def due(
        self, collector: str, server: str | None = None, limit: int | None = None, after: int = 0
    ) -> Sequence[int]:
        """Return the numbers `after` one of what is due, oldest first; what was refused before comes last."""
        ...

    def count(self, collector: str, server: str | None = None) -> int:
        """Return how many entries are due."""
        ...

    def begin(self, collector: str, numbers: Sequence[int], at: datetime) -> Sequence[DueEntry]:
        """Note that these are about to be sent, and return those of them that were not sent meanwhile."""
        ...

    def settle(self, collector: str, sent: Sequence[int], refused: Sequence[int], at: datetime) -> None:
        """Note what the collector took, and what it would not take."""
        ...


class AuditLog(Protocol):
    """Every read, generation, write and view goes through here. Append only."""

    def append(self, entry: AuditEntry) -> None:
        """Append one entry. Raises StoreError: an act that cannot be recorded does not happen."""
        ...
