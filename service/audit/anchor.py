"""The second place of the audit log's head: a file that is only ever added to, one signed line an anchor.

Put it where whoever can change the database cannot change it: another owner, another machine, write-once
storage. A line is JSON: `{"at", "entries", "head", "mac"}`; nothing in it speaks of a patient.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from service.audit.chain import Anchor, Anchors
from service.errors import StoreError
from service.ports import Clock

EVERY: Final = timedelta(minutes=1)
_TAIL_BYTES = 4096
_LINE = b"epicrisis audit anchor/1\0"
_ADVICE = "Check EPICRISIS_AUDIT_ANCHORS: the file, its folder, its owner, and the room on its disk."


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    at: datetime
    entries: int
    head: str
    mac: str


class AnchorFile:
    """The anchors of one log. Instances may be shared between threads, their file between processes."""

    def __init__(self, path: Path, clock: Clock, key: bytes) -> None:
        """`key` signs the lines."""
        self._path = path
        self._key = key
        self._clock = clock
        self._lock = threading.Lock()
        self._written_at: datetime | None = None

    def is_due(self) -> bool:
        """Tell whether a minute has passed since the last anchor. Raises StoreError."""
        with self._lock:
            if self._written_at is None:
                self._written_at = self._last_at()
            last = self._written_at
        return last is None or not timedelta(0) <= self._clock() - last < EVERY

    def is_empty(self) -> bool:
        """Tell whether there is no anchor yet. Raises StoreError."""
        with self._lock:
            return self._written_at is None and self._last_at() is None

    def newest(self) -> Anchor | None:
        """Return the last anchor that is whole and ours, without reading all of them. Raises StoreError."""
        line = self._last()
        return Anchor(line.entries, line.head, line.at) if line is not None else None

    def write(self, number: int, head: str) -> None:
        """Add the head, on the disk when this returns. Raises StoreError."""
        at = self._clock().astimezone(UTC)
        line = msgspec.json.encode(_Line(at, number, head, self._mac(number, head, at))) + b"\n"
        with self._lock:
            with _told_plainly():
                self._append(line)
            self._written_at = at

    def read(self) -> Anchors:
        """Return every anchor; without a file there are none. Raises StoreError."""
        hashes: dict[int, frozenset[str]] = {}
        newest: Anchor | None = None
        edited: list[int] = []
        torn = 0
        with _told_plainly(), suppress(FileNotFoundError), self._path.open("rb") as file:
            for number, text in enumerate(file, 1):
                line = _parse(text)
                if line is None:
                    torn += 1
                elif not hmac.compare_digest(line.mac, self._mac(line.entries, line.head, line.at)):
                    edited.append(number)
                else:
                    known = hashes.get(line.entries)
                    if known is None or line.head not in known:
                        hashes[line.entries] = (known or frozenset()) | {line.head}
                    if newest is None or line.at >= newest.at:
                        newest = Anchor(line.entries, line.head, line.at)
        return Anchors(hashes, newest, tuple(edited), torn)

    def _append(self, line: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_new = not self._path.exists()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            with suppress(OSError):  # some write-once file systems have no locks: one write is whole there
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # after a line that was not written to its end
            while line:
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            _sync_folder(self._path.parent)

    def _last_at(self) -> datetime | None:
        line = self._last()
        return line.at if line is not None else None

    def _last(self) -> _Line | None:
        """Return the last line that is whole and ours."""
        with _told_plainly(), suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            for text in reversed(file.readlines()):
                line = _parse(text)
                if line is not None and line.mac == self._mac(line.entries, line.head, line.at):
                    return line
        return None

    def _mac(self, number: int, head: str, at: datetime) -> str:
        message = _LINE + msgspec.json.encode([number, head, at.astimezone(UTC)])
        return hmac.digest(self._key, message, "sha256").hex()


def _parse(text: bytes) -> _Line | None:
    """Return a line, or None for one that was not written to its end."""
    try:
        line = msgspec.json.decode(text, type=_Line)
    except (msgspec.MsgspecError, ValueError):
        return None
    return line if line.at.tzinfo is not None and text.endswith(b"\n") and line.mac.isascii() else None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told_plainly() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "unknown reason"
        raise StoreError(f"The audit log's anchors cannot be used ({reason}).", _ADVICE) from None
