"""A Ledger over the entries of an audit log in memory: their places are numbers, their hashes made up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.ports import AuditEntry
from service.ports.trail import Checked, Recorded, Sought
from tests.unit.api.in_memory import InMemoryAudit


class InMemoryLedger:
    """A Ledger."""

    def __init__(self, audit: InMemoryAudit) -> None:
        self._audit = audit
        self._checks: list[Checked] = []

    def head(self) -> tuple[int, str]:
        number = len(self._audit.entries)
        return number, self.hash_at(number)

    def hash_at(self, number: int) -> str:
        return f"{number:064x}" if 0 <= number <= len(self._audit.entries) else ""

    def newest(self, sought: Sought, limit: int = 50, before: int = 0) -> Sequence[Recorded]:
        found = [one for one in self.oldest(sought) if not before or one.number < before]
        return found[::-1][:limit]

    def oldest(self, sought: Sought, after: int = 0, until: int | None = None) -> Iterator[Recorded]:
        for number, entry in enumerate(self._audit.entries, 1):
            if number > after and (until is None or number <= until) and _is_sought(entry, sought):
                hashed = f"hash of {entry.patient}" if entry.patient else ""
                yield Recorded(number, self.hash_at(number), hashed, entry)

    def keep_check(self, checked: Checked) -> None:
        self._checks.append(checked)

    def last_check(self) -> Checked | None:
        return self._checks[-1] if self._checks else None


def _is_sought(entry: AuditEntry, sought: Sought) -> bool:
    wanted = (
        (sought.actor, entry.actor), (sought.action, entry.action.value), (sought.patient, entry.patient),
        (sought.run_id, entry.run_id),
    )  # fmt: skip
    if any(want and want != has for want, has in wanted):
        return False
    return (sought.since is None or entry.at >= sought.since) and (
        sought.until is None or entry.at < sought.until
    )
