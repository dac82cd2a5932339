"""Checking a trail of a million entries, beside a plain loop that makes HMACs over the same rows.

`python -m tests.bench.trail verify FOLDER` is one measurement, told as JSON.
"""

from __future__ import annotations

import hmac
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.audit.anchor import AnchorFile
from service.audit.chain import OPEN, SEALED, Link, make_link, open_bytes, sealed_bytes
from service.store.cipher import Cipher
from service.store.database import open_cipher
from service.store.ledger import SqlLedger
from service.store.trail import SqlAuditLog, keys_of
from tests.bench.memory import _peak, _resident
from tests.bench.table import Table, at_most

SIZES = (200_000, 1_000_000)
CHUNK = 5_000
"""Entries of one transaction, and of one anchor."""
PATIENTS = 5_000
ACTS = 10
"""Entries about one patient that stand together, as one visit to a chart writes them."""
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ACTIONS = ("read", "generate", "write", "view", "view")
MOST_MB = 300
"""Of memory for any number of entries."""
_ENTRY = sa.table("epicrisis_audit_entry", *[sa.column(name) for name in ("id", *OPEN, *SEALED)])
_LINK = sa.table("epicrisis_audit_link", *[sa.column(name) for name in Link._fields])


def bench_trail() -> Table:
    """Write a trail of each size, and check it in a process of its own."""
    columns = (
        "entries", "read by", "entries a second", "seconds", "memory before, MB", "peak, MB", "peak",
    )  # fmt: skip
    table = Table("Checking the audit trail", columns)
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            write_trail(Path(folder), size)
            for reader in ("verify", "loop"):
                table.rows.append(_row(size, reader, _measured(Path(folder), reader)))
    table.remarks = [
        f"SQLite; {PATIENTS:,} patients, a data key each; an anchor for {CHUNK:,} entries. The loop reads "
        "the same rows by one cursor of sqlite3 and makes two HMACs over each, and opens nothing. "
        "The trail is written by the chain's own code, in bulk."
    ]
    return table


def _measured(folder: Path, reader: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.trail", reader, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _row(size: int, reader: str, told: dict[str, float]) -> tuple[str, ...]:
    assert told["entries"] == size, told
    peak = told["peak"] / 1e6
    name = "Epicrisis: audit verify" if reader == "verify" else "plain loop of HMACs"
    return (
        f"{size:,}", name, f"{size / told['seconds']:,.0f}", f"{told['seconds']:.1f}",
        f"{told['before'] / 1e6:.0f}", f"{peak:.0f}",
        at_most(peak, MOST_MB, f"{MOST_MB} MB") if reader == "verify" else "",
    )  # fmt: skip


def write_trail(folder: Path, size: int) -> None:
    """Let a trail have `size` entries, by the chain's own code and in a few large transactions."""
    log = _log(folder)
    with closing(log):
        keys = keys_of(log.database.cipher)
        anchors = AnchorFile(folder / "anchors", lambda: BEGAN, keys.anchors)
        with log.database.reading() as session:
            newest = sa.select(_LINK).order_by(_LINK.c.number.desc()).limit(1)
            link = Link(*session.execute(newest).one())
        while link.number < size:
            numbers = range(link.number, min(link.number + CHUNK, size))
            link = _write(log, link, numbers)
            anchors.write(link.number, link.hash)
        assert SqlLedger(log.database).head() == (size, link.hash)


def _write(log: SqlAuditLog, link: Link, numbers: range) -> Link:
    """Write some entries with their links, and return the last link."""
    entries, links, chain = [], [], keys_of(log.database.cipher).chain
    with log.database.writing() as session:
        for number in numbers:
            if number % ACTS == 0:
                patient = f"Patient/{number // ACTS % PATIENTS}"
                hashed = log.database.hash_of(patient)
                key = log.database.envelope.live_key(hashed)
                mac_key = log.database.envelope.mac_key(hashed) or b""
            sealed = {"patient": patient, "target": f"DocumentReference/{number}/_history/1"}
            values = _open(number, hashed) | {"id": number + 1, "on_behalf": None}
            values |= {
                name: key.seal(zlib.compress(text.encode()), f"epicrisis_audit_entry.{name}")
                for name, text in sealed.items()
            }
            opened = sealed_bytes(sealed["patient"], sealed["target"], None)
            link = make_link(link, number + 1, open_bytes(values), opened, mac_key, chain)
            entries.append(values)
            links.append(link._asdict())
        session.connection().execute(_ENTRY.insert(), entries)
        session.connection().execute(_LINK.insert(), links)
    return link


def _open(number: int, hashed: str) -> dict[str, Any]:
    """Return what of an entry lies in the open, as SQLite holds it."""
    at = BEGAN + timedelta(seconds=number)
    return {
        "at": f"{at:%Y-%m-%d %H:%M:%S.%f}", "action": ACTIONS[number % len(ACTIONS)],
        "actor": f"user:{number % 300:032x}", "outcome": "ok", "run_id": f"{number // ACTS:032x}",
        "patient_hash": hashed, "counts": '{"claims": 31, "resources": 412}',
        "server": "https://ehr.example.org/fhir",
    }  # fmt: skip


def _log(folder: Path) -> SqlAuditLog:
    url = f"sqlite:///{folder}/epicrisis.db"
    return SqlAuditLog(url, open_cipher(folder / "key", url), partial(AnchorFile, folder / "anchors", _now))


def _now() -> datetime:
    return datetime.now(UTC)


def measure(reader: str, folder: Path) -> dict[str, float]:
    """Read a trail once; seconds, and bytes resident before and at most."""
    if reader == "loop":
        return _timed(lambda: _loop(folder))
    log = _log(folder)
    with closing(log):
        return _timed(lambda: _verified(log))


def _timed(work: Any) -> dict[str, float]:
    before, start = _resident(), time.perf_counter()
    entries = work()
    taken = time.perf_counter() - start
    return {"entries": entries, "seconds": taken, "before": before, "peak": _peak()}


def _verified(log: SqlAuditLog) -> int:
    report = log.verify()
    assert report.is_intact, report.faults
    return report.entries


def _loop(folder: Path) -> int:
    """Make two HMACs over each row, one bound to the one before, as a script would."""
    key, before, count = Cipher.from_file(folder / "key", create=False).current * 8, b"", 0
    with closing(sqlite3.connect(folder / "epicrisis.db")) as raw:
        for row in _rows(raw):
            mac = hmac.digest(key, repr(row).encode(), "sha256")
            before = hmac.digest(key, before + mac + repr(row[5:13]).encode(), "sha256")
            count += 1
    return count


def _rows(raw: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    columns = ", ".join(("l.number", "l.entry", "l.key_id", "l.mac", "l.hash", *OPEN, *SEALED))
    wanted = f"SELECT {columns} FROM epicrisis_audit_link l JOIN epicrisis_audit_entry e ON e.id = l.entry"
    cursor = raw.execute(f"{wanted} ORDER BY l.number")
    while page := list(islice(cursor, 1000)):
        yield from page


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
