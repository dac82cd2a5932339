"""A process of its own that appends to an audit log: what writes beside another, and what is killed.

`python -m tests.unit.audit.appender URL KEY_FILE ANCHORS NAME COUNT`; it says `begun` after its first entry.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from service.audit.anchor import AnchorFile
from service.ports import Action, AuditEntry
from service.store.cipher import Cipher
from service.store.trail import SqlAuditLog


def now() -> datetime:
    return datetime.now(UTC)


def main(url: str, key_file: str, anchors: str, name: str, count: str) -> None:
    cipher = Cipher.from_file(Path(key_file))
    log = SqlAuditLog(url, cipher, partial(AnchorFile, Path(anchors), now))
    for number in range(int(count)):
        action = Action.ATTEST if number % 5 == 0 else Action.READ
        log.append(
            AuditEntry(action, "system:cli", f"Patient/{number % 3}", now(), run_id=f"{name}-{number}")
        )
        if number == 0:
            print("begun", flush=True)
    log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
