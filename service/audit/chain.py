"""The chain of the audit log: each entry bound to all before it by keyed hashes, and the check of a trail.

An entry has two hashes. Its `mac` is made over everything in it with the key of its patient, or with the
log's own where there is none. Its `hash` is made with the log's key over the hash before it, that mac, and
what lies in the open. Once a patient's key is destroyed the mac is a value that nobody can test a guess on,
and the chain still holds. Number 0, the genesis, seals what was recorded before there was a chain.

Nothing here does I/O. Values are taken as the database holds them: a damaged one is a fault and no error.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

OPEN: Final = ("at", "action", "actor", "outcome", "run_id", "patient_hash", "counts", "server")
"""The columns of an entry that lie in the open, in the order in which they are hashed."""
SEALED: Final = ("patient", "target", "on_behalf")
"""Those that lie encrypted."""
MOST_FAULTS: Final = 1000
"""Faults that a report names; the others are counted."""
_GENESIS = b"epicrisis audit genesis/1\0"
_ENTRY = b"epicrisis audit entry/1\0"
_LINK = b"epicrisis audit link/1\0"
_KEY_ID = b"epicrisis audit key id/1\0"
_KEY_ID_CHARS = 16
_ENCODER = json.JSONEncoder(separators=(",", ":"))


class PatientKeys(Protocol):
    """The key of each patient for the macs of the audit log."""

    def mac_key(self, patient_hash: str) -> bytes | None:
        """Return the key of a patient, by the keyed hash of their reference, or None where it was destroyed.

        The same patient gets the same key for as long as it is not destroyed. Raises StoreError.
        """
        ...


@dataclass(frozen=True, slots=True, repr=False)
class TrailKeys:
    """The keys of one log, all derived from the installation's key file."""

    chain: bytes
    own: bytes
    """For the macs of entries without a patient."""
    anchors: bytes
    nobody: str
    """What such an entry has for a `patient_hash`."""


class Link(NamedTuple):
    """One entry's place in the chain. Of the genesis, number 0, `key_id` is a nonce and `mac` a digest."""

    number: int
    entry: int
    """The entry's row; of the genesis, the last row before the chain."""
    key_id: str
    mac: str
    hash: str


class Row(NamedTuple):
    """A link and its entry, as the database holds them."""

    link: Link
    open_part: bytes | None
    """What lies in the open, in canonical bytes; None where the entry is gone. Of the genesis: the digest of
    what was recorded before, as it is now."""
    sealed_part: bytes | None = None
    """What lies encrypted, in canonical bytes; None where it does not open."""
    patient_hash: str = ""


class Anchor(NamedTuple):
    """The head of the chain at some time: how many entries, and the hash of the last."""

    number: int
    hash: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Anchors:
    """What the second place says of the head."""

    hashes: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Number of entries → the hashes that were written for it."""
    newest: Anchor | None = None
    edited: tuple[int, ...] = ()
    """Lines that this installation did not write so."""
    torn: int = 0
    """Lines that were not written to their end: a process died, or the disk was full."""
    are_kept: bool = True
    """False where this log has no second place."""


class Kind(StrEnum):
    """What is wrong with a trail."""

    EDITED = "edited"
    DELETED = "deleted"
    INSERTED = "inserted"
    REORDERED = "reordered"
    FORKED = "forked"
    TRUNCATED = "truncated"
    GENESIS = "genesis"
    """What was recorded before the chain began is not what it was then."""
    ANCHOR_EDITED = "anchor_edited"
    ANCHORS_MISSING = "anchors_missing"


class Fault(NamedTuple):
    """One thing that is wrong, and where: an entry's number, the row of an inserted one, an anchor's line."""

    kind: Kind
    at: int


@dataclass(frozen=True, slots=True)
class Report:
    """What the check of a trail came to."""

    entries: int
    head: str
    anchored_at: datetime | None
    faults: tuple[Fault, ...]
    """The first of them."""
    found: int
    """How many there are."""
    shredded: int
    """Entries whose patient's key was destroyed: what was encrypted in them is gone, the rest was checked."""
    torn: int
    """Lines of the anchors that were not written to their end."""

    @property
    def is_intact(self) -> bool:
        """Tell whether nothing is wrong."""
        return not self.found


def trail_keys(derive: Callable[[str, str], str], nobody: str) -> TrailKeys:
    """Return the keys of a log. `derive(purpose, value)` is a keyed hash, in hex."""

    def key(name: str) -> bytes:
        return bytes.fromhex(derive("audit trail key", name))

    return TrailKeys(key("chain"), key("own"), key("anchors"), nobody)


def key_id_of(key: bytes) -> str:
    """Return the name of a key, by which it is known again and which says nothing of it."""
    return _mac(key, _KEY_ID)[:_KEY_ID_CHARS]


def open_bytes(values: Mapping[Any, Any]) -> bytes:
    """Return the canonical bytes of what lies in the open, from a row's columns by name."""
    told = dict(values, at=_instant(values["at"]), counts=_counts(values["counts"]))
    return _canonical([_plain(told[name]) for name in OPEN])


def sealed_bytes(patient: str | None, target: str | None, on_behalf: str | None) -> bytes:
    """Return the canonical bytes of what is encrypted, once it was opened."""
    return _canonical([patient, target, on_behalf])


def digest_of(rows: Iterable[Mapping[Any, Any]]) -> tuple[int, str]:
    """Return the last row (0: none) and the digest (hex) of the entries before the chain, given in order.

    What is encrypted in them is left out: it is sealed anew when keys change.
    """
    last, digest = 0, hashlib.sha256()
    for values in rows:
        last = values["id"]
        digest.update(_canonical([last, hashlib.sha256(open_bytes(values)).hexdigest()]) + b"\n")
    return last, digest.hexdigest()


def make_genesis(last: int, digest: str) -> Link:
    """Return the beginning of a new chain, unlike any other."""
    nonce = secrets.token_hex(_KEY_ID_CHARS // 2)
    return Link(0, last, nonce, digest, _genesis_hash(last, nonce, digest))


def make_link(
    before: Link, entry: int, open_part: bytes, sealed_part: bytes, key: bytes, chain_key: bytes
) -> Link:
    """Return the link of an entry that follows another."""
    mac = _entry_mac(key, entry, open_part, sealed_part)
    link = Link(before.number + 1, entry, key_id_of(key), mac, "")
    return link._replace(hash=_link_hash(chain_key, before.hash, link, open_part))


def check_trail(
    rows: Iterable[Row],
    loose: Iterable[int],
    anchors: Anchors,
    keys: TrailKeys,
    mac_key: Callable[[str], bytes | None],
) -> Report:
    """Check a trail from its genesis on, in order of the numbers; `loose` are rows of entries without a link.

    It holds one row at a time. Whatever is not exactly as it was written is a fault.
    """
    check = _Check(anchors, keys, mac_key)
    for row in rows:
        check.take(row)
    check.end()
    for entry in loose:
        check.fault(Kind.INSERTED, entry)
    return check.report()


class _Check:
    """A check under way."""

    def __init__(self, anchors: Anchors, keys: TrailKeys, mac_key: Callable[[str], bytes | None]) -> None:
        self._anchors = anchors
        self._keys = keys
        self._mac_key = mac_key
        self._before: Link | None = None
        self._newest = -1
        self._faults: list[Fault] = []
        self._found = 0
        self._shredded = 0

    def fault(self, kind: Kind, at: int) -> None:
        """Note a fault; one of a place is told once."""
        one = Fault(kind, at)
        if self._faults and self._faults[-1] == one:
            return
        self._found += 1
        if len(self._faults) < MOST_FAULTS:
            self._faults.append(one)

    def take(self, row: Row) -> None:
        """Check one row after the one before it."""
        link = row.link
        follows = self._check_number(link.number)
        if link.number == 0:
            self._check_genesis(row)
        elif row.open_part is None:
            self.fault(Kind.DELETED, link.number)
        elif not self._is_sound(row, row.open_part, follows):
            is_older = self._before is not None and link.entry < self._before.entry
            self.fault(Kind.REORDERED if is_older else Kind.EDITED, link.number)
        anchored = self._anchors.hashes.get(link.number)
        if anchored is not None and anchored != {link.hash}:
            self.fault(Kind.FORKED, link.number)
        self._before, self._newest = link, max(self._newest, link.number)

    def end(self) -> None:
        """Check the end, and what the anchors say of it."""
        highest = max(self._anchors.hashes, default=-1)
        if highest > self._newest:
            self.fault(Kind.TRUNCATED, self._newest + 1)
        elif self._newest < 0:
            self.fault(Kind.DELETED, 0)
        for line in self._anchors.edited:
            self.fault(Kind.ANCHOR_EDITED, line)
        if self._anchors.newest is None and self._newest > 0 and self._anchors.are_kept:
            self.fault(Kind.ANCHORS_MISSING, 0)

    def report(self) -> Report:
        """Return what it came to."""
        newest = self._anchors.newest
        return Report(
            max(self._newest, 0),
            self._before.hash if self._before else "",
            newest.at if newest else None,
            tuple(self._faults),
            self._found,
            self._shredded,
            self._anchors.torn,
        )

    def _check_number(self, number: int) -> bool:
        """Tell whether a link follows the one before it, and note what is between them."""
        expected = self._newest + 1
        if number > expected:
            self.fault(Kind.DELETED, expected)
        elif number < expected:
            is_same = self._before is not None and self._before.number == number
            self.fault(Kind.FORKED if is_same else Kind.REORDERED, number)
        return number == expected

    def _check_genesis(self, row: Row) -> None:
        link = row.link
        if row.open_part != link.mac.encode() or link.hash != _genesis_hash(
            link.entry, link.key_id, link.mac
        ):
            self.fault(Kind.GENESIS, 0)

    def _continues(self, link: Link, open_part: bytes) -> bool:
        before = self._before
        if before is None:
            return False
        return before.entry < link.entry and link.hash == _link_hash(
            self._keys.chain, before.hash, link, open_part
        )

    def _is_sound(self, row: Row, open_part: bytes, follows: bool) -> bool:
        """Tell whether an entry is what was chained; after a gap only its own mac can say so."""
        link = row.link
        if follows and not self._continues(link, open_part):
            return False
        is_ours = row.patient_hash == self._keys.nobody
        key = self._keys.own if is_ours else self._mac_key(row.patient_hash)
        if key is None or key_id_of(key) != link.key_id:
            self._shredded += 1
            return True
        if row.sealed_part is None:
            return False
        return link.mac == _entry_mac(key, link.entry, open_part, row.sealed_part)


def _entry_mac(key: bytes, entry: int, open_part: bytes, sealed_part: bytes) -> str:
    return _mac(key, _ENTRY + _canonical([entry]) + open_part + b"\n" + sealed_part)


def _link_hash(key: bytes, before: str, link: Link, open_part: bytes) -> str:
    place = [before, link.number, link.entry, link.key_id, link.mac]
    return _mac(key, _LINK + _canonical(place) + b"\n" + open_part)


def _genesis_hash(last: int, nonce: str, digest: str) -> str:
    return hashlib.sha256(_GENESIS + _canonical([last, nonce, digest])).hexdigest()


def _mac(key: bytes, message: bytes) -> str:
    return hmac.digest(key, message, "sha256").hex()


def _canonical(values: list[Any]) -> bytes:
    """JSON without spaces, in ASCII: no value flows over into the next, and it can say all that SQL can."""
    return _ENCODER.encode(values).encode()


def _plain(value: Any) -> Any:
    """SQLite keeps any type in any column, and bytes are never the text that they spell."""
    return {"bytes": bytes(value).hex()} if isinstance(value, bytes | memoryview) else value


def _instant(value: Any) -> Any:
    """One form of an instant on every database; what is none stays what it is."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        return (at.replace(tzinfo=at.tzinfo or UTC)).astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, TypeError, AttributeError, OverflowError):
        return _plain(value)


def _counts(value: Any) -> Any:
    """Names in order; what holds anything but counts stays what it is."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return _plain(value)
    if isinstance(found, dict) and all(type(count) is int for count in found.values()):
        return sorted(found.items())
    return _plain(value)
