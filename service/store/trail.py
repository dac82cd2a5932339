"""The audit log in the database: a trail that is only ever added to, and in which every change shows.

An entry and its link in the chain (`service.audit.chain`) are written in one transaction that excludes every
other, so that numbers have no gaps and the chain no branches, however many write.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Dialect
from sqlmodel import Session, col, select

from service.audit.anchor import AnchorFile
from service.audit.chain import (
    OPEN,
    SEALED,
    Anchor,
    Anchors,
    Link,
    PatientKeys,
    Report,
    Row,
    TrailKeys,
    check_trail,
    digest_of,
    make_link,
    open_bytes,
    sealed_bytes,
    trail_keys,
)
from service.errors import ShreddedError, StoreError
from service.ports import Action, AuditEntry
from service.store.cipher import Cipher
from service.store.columns import Encrypted
from service.store.database import Database
from service.store.documents import PATIENT
from service.store.tables import AuditTable, LinkTable

_log = logging.getLogger("epicrisis.audit")

_ABOUT_PATIENTS = frozenset({Action.READ, Action.GENERATE, Action.WRITE, Action.ATTEST})
PAGE = 1000
"""Entries that are read at a time."""
MOST_KEYS = 16_384
"""Patients whose keys a check keeps at a time: a few megabytes."""
_ENTRY = sa.table("epicrisis_audit_entry", *[sa.column(name) for name in ("id", *OPEN, *SEALED)])
_LINK = sa.table(
    "epicrisis_audit_link", *[sa.column(name) for name in ("number", "entry", "key_id", "mac", "hash")]
)
"""Both without types: what is checked is what the database holds, readable or not."""
_TYPES = {name: Encrypted(f"epicrisis_audit_entry.{name}") for name in SEALED}
_LOST = StoreError(
    "The audit trail has lost its end: nothing more can be recorded.",
    "Run `epicrisis audit verify`, and restore the database from its backup.",
)


class SqlAuditLog:
    """The AuditLog in a database, which may be the store's. Entries are never changed or deleted."""

    def __init__(
        self,
        url: str,
        cipher: Cipher,
        anchors: Callable[[bytes], AnchorFile] | None = None,
        patient_keys: PatientKeys | None = None,
    ) -> None:
        """`anchors` opens the second place of the chain's head, given the key that signs what is written.

        Without one the end of the trail can be cut off unseen.
        """
        self.database = Database(url, cipher)
        self._keys = keys_of(cipher)
        self._patient_keys = patient_keys or self.database.envelope
        self._anchors = anchors(self._keys.anchors) if anchors else None
        self._lock = threading.Lock()
        self._loose: Link | None = None

    def close(self) -> None:
        """Anchor what is not anchored yet, and close every connection."""
        try:
            self._anchor_the_rest()
        except StoreError as error:
            _log.warning("the end of the audit log is not anchored: %s", error.message)
        self.database.close()

    def append(self, entry: AuditEntry) -> None:
        """Append one entry. Raises StoreError: an act that cannot be recorded does not happen.

        About a patient whose key was destroyed nothing is read or made any more: ShreddedError. What else is
        done, such as a withdrawal of what still stands in the EHR, is recorded without saying about whom.
        """
        self._anchor_the_beginning()
        try:
            link = self._append(entry)
        except ShreddedError:
            if entry.action in _ABOUT_PATIENTS:
                raise
            link = self._append(replace(entry, patient=""))
        self._anchor(link, entry.action)

    def entries(self, limit: int = 50, *, patient: str | None = None) -> tuple[AuditEntry, ...]:
        """Return the newest entries, of one patient or of all, newest first. Raises StoreError."""
        wanted = select(AuditTable).order_by(col(AuditTable.id).desc()).limit(max(limit, 0))
        if patient is not None:
            hashed = self.database.cipher.keyed_hash(PATIENT, patient)
            wanted = wanted.where(col(AuditTable.patient_hash) == hashed)
        with self.database.reading() as session:
            return tuple(entry_of(row) for row in session.exec(wanted))

    def verify(self, tell: Callable[[int, int], None] = lambda done, total: None) -> Report:
        """Check the whole trail, and its end against the anchors, while others may go on writing.

        `tell` hears how many entries are checked, of how many. Raises StoreError where the database or the
        anchors cannot be read at all.
        """
        # Read first: an anchor that is written meanwhile speaks of entries which this view does not hold.
        anchors = self._anchors.read() if self._anchors else Anchors(are_kept=False)
        mac_key = lru_cache(MOST_KEYS)(self._patient_keys.mac_key)
        with self.database.reading() as session:
            connection = session.connection()
            rows = _told(_rows(connection), connection, tell)
            return check_trail(rows, _loose(connection), anchors, self._keys, mac_key)

    def last_anchor(self) -> Anchor | None:
        """Return the head as it was last written to the second place, or None. Raises StoreError."""
        return self._anchors.newest() if self._anchors is not None else None

    def _append(self, entry: AuditEntry) -> Link:
        """Write an entry and its link. Raises ShreddedError where the patient's key was destroyed."""
        patient_hash = self.database.cipher.keyed_hash(PATIENT, entry.patient)
        with self.database.writing(about=entry.patient) as session:
            key = self._mac_key(patient_hash)
            if key is None:
                raise ShreddedError
            row = _row_of(entry, patient_hash)
            session.add(row)
            session.flush()
            link = self._link(session, row.id or 0, key)
            session.add(LinkTable(**link._asdict()))
        return link

    def _mac_key(self, patient_hash: str) -> bytes | None:
        if patient_hash == self._keys.nobody:
            return self._keys.own
        return self._patient_keys.mac_key(patient_hash)

    def _link(self, session: Session, entry: int, key: bytes) -> Link:
        """Return the link of an entry just written, as the database took it: PostgreSQL keeps no NUL."""
        connection = session.connection()
        values = connection.execute(sa.select(_ENTRY).where(_ENTRY.c.id == entry)).mappings().one()
        sealed = _open(values, connection.dialect)
        assert sealed is not None
        return make_link(_head(connection), entry, open_bytes(values), sealed, key, self._keys.chain)

    def _anchor_the_beginning(self) -> None:
        """Where there is no anchor yet, write one of the head as it is, before there is more to lose."""
        if self._anchors is not None and self._anchors.is_empty():
            with self.database.reading() as session:
                head = _head(session.connection())
            self._anchors.write(head.number, head.hash)

    def _anchor(self, link: Link, action: Action) -> None:
        """Write the head to the second place, when it is due or something was attested."""
        if self._anchors is None:
            return
        is_due = action is Action.ATTEST or self._anchors.is_due()
        if is_due:
            self._anchors.write(link.number, link.hash)
        with self._lock:
            if self._loose is None or self._loose.number < link.number:
                self._loose = None if is_due else link

    def _anchor_the_rest(self) -> None:
        with self._lock:
            loose, self._loose = self._loose, None
        if loose is not None and self._anchors is not None:
            self._anchors.write(loose.number, loose.hash)


def keys_of(cipher: Cipher) -> TrailKeys:
    """Return the keys of an installation's audit log."""
    return trail_keys(cipher.keyed_hash, cipher.keyed_hash(PATIENT, ""))


def entry_of(row: AuditTable) -> AuditEntry:
    """Return the entry of a row."""
    return AuditEntry(
        action=Action(row.action),
        actor=row.actor,
        patient=row.patient,
        at=row.at,
        outcome=row.outcome,
        run_id=row.run_id,
        target=row.target,
        counts=row.counts,
        server=row.server,
        by=row.on_behalf or "",
    )


def digest_of_earlier(connection: Connection) -> tuple[int, str]:
    """Return the last row and the digest of all entries, where there is no chain yet."""
    return digest_of(_entries(connection))


def _row_of(entry: AuditEntry, patient_hash: str) -> AuditTable:
    return AuditTable(
        at=entry.at,
        action=entry.action.value,
        actor=entry.actor,
        outcome=entry.outcome,
        run_id=entry.run_id,
        patient_hash=patient_hash,
        patient=entry.patient,
        target=entry.target,
        counts=dict(entry.counts),
        server=entry.server,
        on_behalf=entry.by or None,
    )


def _head(connection: Connection) -> Link:
    newest = sa.select(_LINK).order_by(_LINK.c.number.desc()).limit(1)
    found = connection.execute(newest).mappings().first()
    if found is None:
        raise _LOST
    return _link_of(found)


def _link_of(values: Mapping[Any, Any]) -> Link:
    """Return a link, of whatever types a damaged one has become."""
    number, entry = (values[name] if isinstance(values[name], int) else -1 for name in ("number", "entry"))
    texts = (values[name] if isinstance(values[name], str) else "" for name in ("key_id", "mac", "hash"))
    return Link(number, entry, *texts)


def _rows(connection: Connection) -> Iterator[Row]:
    """Every link with its entry, in order, a page at a time."""
    joined = sa.select(_LINK, _ENTRY).select_from(
        _LINK.outerjoin(_ENTRY, sa.and_(_ENTRY.c.id == _LINK.c.entry, _LINK.c.number > 0))
    )
    last: int | None = None
    while True:
        page = joined.order_by(_LINK.c.number).limit(PAGE)
        found = connection.execute(page if last is None else page.where(_LINK.c.number > last)).mappings()
        values = None
        for values in found:
            yield _row(values, connection)
        if values is None:
            return
        last = values["number"]


def _row(values: Mapping[Any, Any], connection: Connection) -> Row:
    link = _link_of(values)
    if link.number == 0:
        return _genesis_row(link, connection)
    if values["id"] is None:
        return Row(link, None)
    patient_hash = values["patient_hash"]
    named = patient_hash if isinstance(patient_hash, str) else ""
    return Row(link, open_bytes(values), _open(values, connection.dialect), named)


def _genesis_row(link: Link, connection: Connection) -> Row:
    """Return the genesis with what was recorded before it, as it is now; all of that must open, too."""
    do_all_open = True

    def opened() -> Iterator[Mapping[Any, Any]]:
        nonlocal do_all_open
        for values in _entries(connection, link.entry):
            do_all_open = do_all_open and _open(values, connection.dialect) is not None
            yield values

    last, digest = digest_of(opened())
    return Row(link, digest.encode() if do_all_open and last == link.entry else b"")


def _entries(connection: Connection, until: int | None = None) -> Iterator[Mapping[Any, Any]]:
    """Every entry up to a row, in order, a page at a time."""
    last = 0
    while True:
        page = sa.select(_ENTRY).where(_ENTRY.c.id > last).order_by(_ENTRY.c.id).limit(PAGE)
        if until is not None:
            page = page.where(_ENTRY.c.id <= until)
        values = None
        for values in connection.execute(page).mappings():
            yield values
        if values is None:
            return
        last = values["id"]


def _loose(connection: Connection) -> Iterator[int]:
    """Rows of entries after the genesis that no link has."""
    genesis = sa.select(_LINK.c.entry).where(_LINK.c.number == 0).scalar_subquery()
    linked = sa.select(_LINK.c.number).where(_LINK.c.entry == _ENTRY.c.id, _LINK.c.number > 0).exists()
    after = _ENTRY.c.id > sa.func.coalesce(genesis, 0)
    yield from connection.execute(
        sa.select(_ENTRY.c.id).where(after, ~linked).order_by(_ENTRY.c.id)
    ).scalars()


def _open(values: Mapping[Any, Any], dialect: Dialect) -> bytes | None:
    """Return what is encrypted in an entry, or None where it does not open."""
    try:
        return sealed_bytes(*(_TYPES[name].process_result_value(values[name], dialect) for name in SEALED))
    except (StoreError, TypeError, ValueError, zlib.error):
        return None


def _told(rows: Iterator[Row], connection: Connection, tell: Callable[[int, int], None]) -> Iterator[Row]:
    total = connection.scalar(sa.select(sa.func.count()).select_from(_LINK)) or 0
    for number, row in enumerate(rows):
        if number % PAGE == 0:
            tell(number, total)
        yield row
    tell(total, total)
