"""Audit logs to check: a clock that goes on, keys that can be destroyed, and entries of every kind."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from service.audit.anchor import AnchorFile
from service.audit.chain import PatientKeys
from service.ports import Action, AuditEntry
from service.store.cipher import Cipher
from service.store.trail import SqlAuditLog
from tests.unit.writeback.charts import CREATED

PATIENTS = ("Patient/77", "Patient/78", "", "Patient/79")
ACTIONS = (Action.READ, Action.GENERATE, Action.VIEW, Action.WITHDRAW, Action.EXPORT, Action.STOP)


class Ticking:
    """A clock that goes on by some seconds whenever it is asked."""

    def __init__(self, seconds: float = 7) -> None:
        self._lock = threading.Lock()
        self._now = CREATED
        self._step = timedelta(seconds=seconds)

    def __call__(self) -> datetime:
        with self._lock:
            self._now += self._step
            return self._now


class Destructible:
    """PatientKeys of which some are destroyed."""

    def __init__(self) -> None:
        self.destroyed: set[str] = set()

    def key(self, patient_hash: str) -> bytes:
        return hashlib.sha256(b"key of " + patient_hash.encode()).digest()

    def mac_key(self, patient_hash: str) -> bytes | None:
        return None if patient_hash in self.destroyed else self.key(patient_hash)


def open_log(
    url: str, cipher: Cipher, anchors: Path, clock: Ticking, keys: PatientKeys | None = None
) -> SqlAuditLog:
    return SqlAuditLog(url, cipher, partial(AnchorFile, anchors, clock), keys)


def entry_of(number: int, name: str = "run") -> AuditEntry:
    return AuditEntry(
        ACTIONS[number % len(ACTIONS)],
        "user:local" if number % 2 else "system:cli",
        PATIENTS[number % len(PATIENTS)],
        CREATED + timedelta(seconds=number),
        "ok" if number % 7 else "timeout",
        f"{name}-{number}",
        f"DocumentReference/{number}/_history/1" if number % 2 else "",
        {"resources": number, "claims": 3} if number % 3 else {},
        "http://127.0.0.1:1/fhir" if number % 4 else "",
        "Practitioner/roe" if number % 5 == 0 else "",
    )


def fill(log: SqlAuditLog, count: int, writers: int = 4) -> None:
    """Append `count` entries by each of several writers that begin together."""
    together = threading.Barrier(writers)

    def write(writer: int) -> None:
        together.wait(10)
        for number in range(count):
            log.append(entry_of(number, f"run-{writer}"))

    with ThreadPoolExecutor(writers) as threads:
        list(threads.map(write, range(writers)))
