"""Column types: the one that encrypts, and the one that keeps instants in UTC.

An engine is told once what seals its values (`attach_cipher`); an Encrypted column of an engine without it
refuses.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import DateTime, LargeBinary
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.types import TypeDecorator

from service.errors import ShreddedError, StoreError


class Seals(Protocol):
    """What seals values, each bound to its place."""

    def seal(self, plain: bytes, place: str, /) -> bytes:
        """Encrypt a value."""

    def unseal(self, sealed: bytes, place: str, /) -> bytes:
        """Decrypt a value. Raises StoreError; ShreddedError where its key was destroyed."""

    def of_house(self) -> Seals:
        """Return what seals values that are about no patient, whoever is written about now."""


_ciphers: WeakKeyDictionary[Dialect, Seals] = WeakKeyDictionary()


def attach_cipher(engine: Engine, cipher: Seals) -> None:
    """Let every Encrypted column of this engine use this cipher."""
    _ciphers[engine.dialect] = cipher


class Encrypted(TypeDecorator[str]):
    """Text that lies in the database only sealed: compressed, then encrypted for `place` (table.column).

    Where the key was destroyed, or the value was overwritten with nothing, it reads as `gone`. A column
    `of_house` is sealed under the house's key in rows about a patient, too.
    """

    impl = LargeBinary
    cache_ok = True

    def __init__(self, place: str, *, gone: str = "", of_house: bool = False) -> None:
        super().__init__()
        self.place = place
        self.gone = gone
        self.of_house = of_house

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """Seal a value on its way in."""
        if value is None:
            return None
        cipher = _cipher_of(dialect)
        return (cipher.of_house() if self.of_house else cipher).seal(
            zlib.compress(value.encode()), self.place
        )

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:
        """Open a value on its way out. Raises StoreError where it does not belong here."""
        if value is None:
            return None
        if not value:
            return self.gone
        try:
            return zlib.decompress(_cipher_of(dialect).unseal(value, self.place)).decode()
        except ShreddedError:
            return self.gone


class UtcInstant(TypeDecorator[datetime]):
    """An aware instant, kept in UTC: SQLite has no zones, and text in one zone sorts by time.

    PostgreSQL keeps instants, and tells them in the session's zone.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Move to UTC. Raises StoreError for a naive datetime."""
        if value is not None and value.tzinfo is None:
            raise StoreError("An instant without a zone cannot be stored.")
        return value if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None or value.tzinfo is not None:
            return value if value is None else value.astimezone(UTC)
        return value.replace(tzinfo=UTC)


def _cipher_of(dialect: Dialect) -> Seals:
    try:
        return _ciphers[dialect]
    except KeyError:
        raise StoreError("This database was opened without its key.") from None
