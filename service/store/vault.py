"""The vault: bytes kept encrypted under a key. A cache: it may forget, and must never return wrong bytes.

A key that ends in ` Patient/1` says whose an entry is: it is sealed under that patient's data key.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Insert, LargeBinary, cast, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import col

from service.errors import StoreError
from service.ports import KEPT_AREAS, Clock
from service.store.cipher import Cipher
from service.store.database import Database
from service.store.tables import KeptTable

MOST_BYTES = 512 * 1024 * 1024 - 4096
"""SQLite refuses rows over 1,000,000,000 bytes; PostgreSQL answers of 1 GiB, where a byte is two digits."""
_USE_COUNTS_FOR = timedelta(hours=1)
_sealed_content = cast(col(KeptTable.content), LargeBinary)
"""SQLite's types belong to values: one flipped bit makes a BLOB a text, which the driver would not read."""


class _Spot(NamedTuple):
    """Where one entry lies. Its content is sealed for this spot, so in another row it does not open."""

    area: str
    key_hash: str

    @property
    def place(self) -> str:
        return f"epicrisis_kept.content {self.area} {self.key_hash}"

    @property
    def here(self) -> tuple[ColumnElement[bool], ...]:
        return col(KeptTable.area) == self.area, col(KeptTable.key_hash) == self.key_hash


class SqlVault:
    """The Vault in a database, which may be the store's. `clock` says aware UTC now."""

    def __init__(self, url: str, cipher: Cipher, clock: Clock) -> None:
        self.database = Database(url, cipher)
        self._clock = clock

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def get(self, area: str, key: str) -> bytes | None:
        """Return what was last put, or None. Raises StoreError where the database cannot be read."""
        spot = self._spot(area, key)
        now = self._clock()
        used_long_ago = col(KeptTable.used_at) <= now - _USE_COUNTS_FOR
        with self.database.reading() as session:
            row = session.execute(select(_sealed_content, used_long_ago).where(*spot.here)).first()
            if row is None:
                return None
            sealed, is_stale = row
            content = self._opened(sealed, spot)
        if content is None:
            self._forget(spot, sealed)
        elif is_stale:
            self._note_use(spot, now)
        return content

    def put(self, area: str, key: str, content: bytes) -> None:
        """Keep bytes, compressed by the caller, in place of earlier ones. Raises StoreError."""
        spot = self._spot(area, key)
        if len(content) > MOST_BYTES:
            raise StoreError("This is too large to be kept.")
        now, patient = self._clock(), _patient_of(key)
        row = {
            "area": spot.area,
            "key_hash": spot.key_hash,
            "patient_hash": self.database.hash_of(patient) if patient else "",
            "saved_at": now,
            "used_at": now,
        }
        with self.database.writing(alone=False, about=patient) as session:
            row["content"] = self.database.envelope.seal(content, spot.place)
            session.execute(_upsert(self.database.engine.dialect.name, row))

    def drop(self, area: str, key: str) -> None:
        """Forget one entry, if there is one. Raises StoreError."""
        self._delete(*self._spot(area, key).here)

    def prune(self, area: str, before: datetime) -> int:
        """Forget what was neither put nor read since then, and return how many. Raises StoreError."""
        return self._delete(col(KeptTable.area) == _known(area), col(KeptTable.used_at) < before)

    def size(self, area: str) -> int:
        """Return how many bytes an area takes. Raises StoreError."""
        total = select(func.coalesce(func.sum(func.length(_sealed_content)), 0))
        with self.database.reading() as session:
            return int(session.execute(total.where(col(KeptTable.area) == _known(area))).scalar_one())

    def shrink(self, area: str, most_bytes: int) -> int:
        """Forget what was not used for longest until an area takes no more than that. Raises StoreError.

        Returns how many entries that were. A use counts to the hour.
        """
        newest_first = (col(KeptTable.used_at).desc(), col(KeptTable.key_hash))
        upto = func.sum(func.length(_sealed_content)).over(order_by=newest_first)
        rows = select(col(KeptTable.key_hash), upto.label("upto")).where(col(KeptTable.area) == _known(area))
        placed = rows.subquery()
        beyond = select(placed.c.key_hash).where(placed.c.upto > most_bytes)
        return self._delete(col(KeptTable.area) == area, col(KeptTable.key_hash).in_(beyond))

    def _spot(self, area: str, key: str) -> _Spot:
        return _Spot(_known(area), self.database.cipher.keyed_hash(f"kept {area}", key))

    def _opened(self, sealed: bytes, spot: _Spot) -> bytes | None:
        """Return what was kept; None where it is damaged, or its key was lost or destroyed."""
        try:
            return self.database.envelope.unseal(sealed, spot.place)
        except StoreError:
            return None

    def _delete(self, *conditions: ColumnElement[bool]) -> int:
        with self.database.writing() as session:
            return session.connection().execute(delete(KeptTable).where(*conditions)).rowcount

    def _forget(self, spot: _Spot, sealed: bytes) -> None:
        """Drop what does not open, unless another writer has replaced it in the meantime."""
        with suppress(StoreError):
            self._delete(*spot.here, _sealed_content == sealed)

    def _note_use(self, spot: _Spot, now: datetime) -> None:
        """Let prune know; a full disk or a long writer elsewhere does not spoil what was read."""
        with suppress(StoreError), self.database.writing(alone=False) as session:
            session.execute(update(KeptTable).where(*spot.here).values(used_at=now))


def _upsert(dialect: str, row: Mapping[str, object]) -> Insert:
    """One statement that cannot lose a race, in the dialect's words: the standard's MERGE can."""
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = insert(KeptTable).values(row)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=["area", "key_hash"],
        set_={
            "patient_hash": new.patient_hash,
            "saved_at": new.saved_at,
            "used_at": new.used_at,
            "content": new.content,
        },
    )


def _patient_of(key: str) -> str:
    """Return the patient (`Patient/1`) whom a key names at its end, or nothing."""
    last = key.rpartition(" ")[2]
    return last if last.startswith("Patient/") else ""


def _known(area: str) -> str:
    """Refuse another area: it stands in the open, and must not become a place for a patient's name."""
    if area not in KEPT_AREAS:
        raise StoreError("The vault has no such area.")
    return area
