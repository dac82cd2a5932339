"""Envelope encryption: one data key a patient, one for the house, each sealed by a master key.

A value is `2 | data key id (8 bytes) | nonce (12 bytes) | ciphertext and tag`, bound to place and key. Values
of the first version, sealed by a master key itself, still open (`service.store.cipher`). A data key is made
with the first row about its patient, in the same transaction; whoever destroys it leaves nothing of that
patient that could be read. Opened keys are kept in memory, and are forgotten in all processes with the next
transaction after one was destroyed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Row, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from service.errors import ShreddedError, StoreError
from service.ports import Clock
from service.store.cipher import BY_MASTER, KEY_BYTES, NONCE_BYTES, Cipher
from service.store.tables import DataKeyTable, KeyCheckTable

BY_DATA_KEY = b"\x02"
ID_BYTES = 8
_HEAD = len(BY_DATA_KEY) + ID_BYTES + NONCE_BYTES
MOST_OPEN = 4096
"""Data keys that one process keeps opened."""
HOUSE, LOOKUP = "house", "lookup"
"""What stands in place of a patient's hash, which is hexadecimal, for the two keys of the house."""
_MAC = b"epicrisis audit entry"
_DAMAGED = ("A stored value is damaged or was changed.", "Restore the database from its backup.")


@dataclass(frozen=True, slots=True)
class DataKey:
    """An opened data key.

    A worker keeps thousands of them, and OpenSSL's state of one takes 2.4 kB: it is made for each use, which
    costs a microsecond.
    """

    id: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, key_id: bytes, secret: bytes) -> DataKey:
        """Return the key of these bytes."""
        return cls(key_id, secret)

    def seal(self, plain: bytes, place: str) -> bytes:
        """Encrypt a value for one place, with a fresh random nonce."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(self.secret).encrypt(nonce, plain, _bound_to(place, self.id))
        return BY_DATA_KEY + self.id + nonce + sealed

    def unseal(self, sealed: bytes, place: str) -> bytes:
        """Decrypt a value of one place. Raises StoreError for another place, or a change."""
        nonce = sealed[1 + ID_BYTES : _HEAD]
        try:
            aead = AESGCM(self.secret)
            return aead.decrypt(nonce, memoryview(sealed)[_HEAD:], _bound_to(place, self.id))
        except InvalidTag:
            raise StoreError(*_DAMAGED) from None

    def of_house(self) -> DataKey:
        """Return itself."""
        return self


@dataclass(slots=True)
class _Scope:
    """One transaction: where keys are looked up, and under which one is sealed in it now."""

    envelope: Envelope
    session: Session
    epoch: int
    key: DataKey | None
    outer: _Scope | None


_scope: ContextVar[_Scope | None] = ContextVar("_scope", default=None)


class Envelope:
    """The data keys of one database. Instances may be shared between threads."""

    def __init__(self, cipher: Cipher, clock: Clock = lambda: datetime.now(UTC)) -> None:
        self.cipher = cipher
        self._clock = clock
        self._house: DataKey | None = None
        self._open: OrderedDict[bytes, DataKey | None] = OrderedDict()
        self._epoch = -1
        self._lock = threading.Lock()
        self.unwrapped = 0
        """How often a data key was opened, ever."""

    def __repr__(self) -> str:
        return f"Envelope({self.cipher!r})"

    @contextmanager
    def within(self, session: Session) -> Iterator[None]:
        """Look keys up in this transaction; what another process destroyed is forgotten first."""
        epoch = session.execute(select(col(KeyCheckTable.epoch))).scalar() or 0
        with self._lock:
            if epoch > self._epoch:
                self._open.clear()
                self._epoch = epoch
        token = _scope.set(_Scope(self, session, epoch, None, _scope.get()))
        try:
            yield
        finally:
            _scope.reset(token)

    @contextmanager
    def about(self, patient_hash: str) -> Iterator[None]:
        """Seal under a patient's data key while the block runs, made where there is none; flushes at its end.

        Raises ShreddedError where the last one was destroyed.
        """
        scope = self._here()
        before, scope.key = scope.key, self.live_key(patient_hash)
        try:
            yield
            scope.session.flush()
        finally:
            scope.key = before

    def seal(self, plain: bytes, place: str) -> bytes:
        """Encrypt a value for one place, under the key of whom the transaction is about."""
        scope = self._find()
        return (scope.key if scope is not None and scope.key is not None else self.of_house()).seal(
            plain, place
        )

    def unseal(self, sealed: bytes, place: str) -> bytes:
        """Decrypt a value of one place. Raises StoreError; ShreddedError where its key was destroyed."""
        if sealed[:1] == BY_MASTER:
            return self.cipher.unseal(sealed, place)
        if sealed[:1] != BY_DATA_KEY or len(sealed) < _HEAD:
            raise StoreError("A stored value is damaged.", _DAMAGED[1])
        key = self._key(bytes(sealed[1 : 1 + ID_BYTES]))
        if key is None:
            raise ShreddedError
        return key.unseal(sealed, place)

    def of_house(self) -> DataKey:
        """Return the house's key, which seals what is about no patient."""
        if self._house is None:
            raise StoreError("This database was opened without its key.")
        return self._house

    def live_key(self, patient_hash: str) -> DataKey:
        """Return a patient's data key, made where there never was one; in a writing transaction alone.

        Nobody can destroy it before the transaction ends. Raises ShreddedError where it was destroyed.
        """
        row = self._last(patient_hash, lock=True)
        if row is None:
            self._insert(patient_hash, 1)
            row = self._last(patient_hash, lock=True)
            if row is None:  # made in a transaction that ended otherwise
                raise StoreError("Another process changed the same rows: nothing was stored.", "Run again.")
        if row.destroyed_at is not None:
            raise ShreddedError
        key = self._key(bytes.fromhex(row.id))
        if key is None:
            raise ShreddedError
        return key

    def is_shredded(self, patient_hash: str) -> bool:
        """Tell whether a patient's last data key was destroyed."""
        row = self._last(patient_hash)
        return row is not None and row.destroyed_at is not None

    def readmit(self, patient_hash: str) -> None:
        """Give a patient whose data key was destroyed a new one; where it was not, nothing happens."""
        row = self._last(patient_hash, lock=True)
        if row is not None and row.destroyed_at is not None:
            self._insert(patient_hash, row.generation + 1)

    def mac_key(self, patient_hash: str) -> bytes | None:
        """Return the key of audit entries about a patient; None where there is none, or none any more.

        In a transaction, as the trail's PatientKeys. Raises StoreError.
        """
        row = self._last(patient_hash)
        key = None if row is None or row.destroyed_at is not None else self._key(bytes.fromhex(row.id))
        return None if key is None else hmac.new(key.secret, _MAC, hashlib.sha256).digest()

    def introduce(self) -> None:
        """Make the house's keys in this transaction, where they are missing. `find_house` opens them."""
        self._introduce(LOOKUP, self.cipher.lookup)
        self._introduce(HOUSE, None)

    def find_house(self) -> bool:
        """Open the house's keys in this transaction; False where there are none yet. Raises StoreError."""
        if self._last(HOUSE) is None or self._last(LOOKUP) is None:
            return False
        self.cipher.know_lookup(self._opened(LOOKUP).secret)
        self._house = self._opened(HOUSE)
        return True

    def rewrap(self, row: Row[Any] | DataKeyTable, master: bytes) -> bytes:
        """Return a data key sealed by another master key."""
        place = _place(row.id, row.patient_hash)
        return self.cipher.seal(self.cipher.unseal(row.wrapped, place), place, master)

    def _introduce(self, name: str, secret: bytes | None) -> None:
        if self._last(name) is None:
            self._insert(name, 1, secret)

    def _opened(self, name: str) -> DataKey:
        row = self._last(name)
        key = None if row is None else self._key(bytes.fromhex(row.id))
        if key is None:
            raise StoreError("The database lacks a key of the house.", "Restore it from its backup.")
        return key

    def _last(self, patient_hash: str, *, lock: bool = False) -> Row[Any] | None:
        wanted = (
            select(col(DataKeyTable.id), col(DataKeyTable.generation), col(DataKeyTable.destroyed_at))
            .where(col(DataKeyTable.patient_hash) == patient_hash)
            .order_by(col(DataKeyTable.generation).desc())
            .limit(1)
        )
        return self._here().session.execute(wanted.with_for_update(read=True) if lock else wanted).first()

    def _insert(self, patient_hash: str, generation: int, secret: bytes | None = None) -> None:
        """Make a data key, unless another transaction was first.

        The name of the master key is held until the transaction ends: a rotation, which changes it, waits
        for every key that is being sealed by the one before, and only then forgets that one.
        """
        session, key_id = self._here().session, secrets.token_bytes(ID_BYTES)
        named = session.execute(select(col(KeyCheckTable.master)).with_for_update(read=True)).scalar()
        master = bytes.fromhex(named) if named else self.cipher.current
        wrapped = self.cipher.seal(
            secret or secrets.token_bytes(KEY_BYTES), _place(key_id.hex(), patient_hash), master
        )
        dialect = session.get_bind().dialect.name
        statement: Any = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(DataKeyTable)
        session.execute(
            statement.values(
                id=key_id.hex(), patient_hash=patient_hash, generation=generation, master=master.hex(),
                wrapped=wrapped, created_at=self._clock(),
            ).on_conflict_do_nothing(index_elements=["patient_hash", "generation"])
        )  # fmt: skip

    def _key(self, key_id: bytes) -> DataKey | None:
        """Return an opened key, or None for a destroyed one. Raises StoreError."""
        with self._lock:
            if key_id in self._open:
                self._open.move_to_end(key_id)
                return self._open[key_id]
        scope = self._here()
        row = scope.session.execute(
            select(
                col(DataKeyTable.id), col(DataKeyTable.patient_hash), col(DataKeyTable.wrapped),
                col(DataKeyTable.destroyed_at),
            ).where(col(DataKeyTable.id) == key_id.hex())
        ).first()  # fmt: skip
        if row is None:
            raise StoreError("The database lacks the key of a stored value.", "Restore it from its backup.")
        key = None
        if row.destroyed_at is None:
            key = DataKey.of(key_id, self.cipher.unseal(row.wrapped, _place(row.id, row.patient_hash)))
            self.unwrapped += 1
        self._remember(key_id, key, scope.epoch)
        return key

    def _remember(self, key_id: bytes, key: DataKey | None, epoch: int) -> None:
        """Keep an opened key, unless one was destroyed since this transaction began: it might be that one."""
        with self._lock:
            if epoch == self._epoch:
                self._open[key_id] = key
                while len(self._open) > MOST_OPEN:
                    self._open.popitem(last=False)

    def _find(self) -> _Scope | None:
        scope = _scope.get()
        while scope is not None and scope.envelope is not self:
            scope = scope.outer
        return scope

    def _here(self) -> _Scope:
        scope = self._find()
        if scope is None:
            raise StoreError("A sealed value was used outside of a transaction.")
        return scope


def raise_epoch(session: Session) -> None:
    """Let every process forget the keys that it has opened."""
    session.execute(update(KeyCheckTable).values(epoch=col(KeyCheckTable.epoch) + 1))


def _place(key_id: str, patient_hash: str) -> str:
    return f"epicrisis_patient_key.wrapped {key_id} {patient_hash}"


def _bound_to(place: str, key_id: bytes) -> bytes:
    return b"epicrisis\0" + place.encode() + b"\0" + key_id
