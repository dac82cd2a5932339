"""Sessions in the database: the id as a keyed hash, the content sealed."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Column, Index, delete, update
from sqlmodel import Field, SQLModel, col, or_

from service.errors import StoreError
from service.ports import KeptSession
from service.store.cipher import Cipher
from service.store.columns import Encrypted, UtcInstant
from service.store.database import Database


class SessionTable(SQLModel, table=True):
    """One session. The sealed content repeats the hash: moved to another row, it opens nothing."""

    __tablename__ = "epicrisis_session"
    __table_args__ = (Index("ix_epicrisis_session_used", "used_at"),)

    id_hash: str = Field(primary_key=True)
    began_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    used_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_session.content"), nullable=False))


class _Content(msgspec.Struct, frozen=True):
    id_hash: str
    actor: str
    roles: tuple[str, ...]
    issuer: str
    began_at: datetime
    fhir_user: str


class SqlSessions:
    """The SessionStore in a database, which may be the store's."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        self.database = Database(url, cipher)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def put_session(self, session_id: str, session: KeptSession) -> None:
        """Keep a new session. Raises StoreError."""
        hashed = self._hash(session_id)
        content = _Content(
            hashed, session.actor, session.roles, session.issuer, session.began_at, session.fhir_user
        )
        with self.database.writing(alone=False) as db:
            db.add(
                SessionTable(
                    id_hash=hashed,
                    began_at=session.began_at,
                    used_at=session.used_at,
                    content=msgspec.json.encode(content).decode(),
                )
            )

    def get_session(self, session_id: str) -> KeptSession | None:
        """Return a session, or None. Raises StoreError, for one that was changed by others too."""
        hashed = self._hash(session_id)
        with self.database.reading() as db:
            row = db.get(SessionTable, hashed)
            if row is None:
                return None
            used_at, sealed = row.used_at, row.content
        try:
            said = msgspec.json.decode(sealed, type=_Content)
        except (msgspec.MsgspecError, ValueError):
            raise StoreError("A session in the store is damaged.") from None
        if said.id_hash != hashed:
            raise StoreError("A session in the store was changed.")
        return KeptSession(said.actor, said.roles, said.issuer, said.began_at, used_at, said.fhir_user)

    def use_session(self, session_id: str, at: datetime) -> None:
        """Note that it is in use. Raises StoreError."""
        here = col(SessionTable.id_hash) == self._hash(session_id)
        with self.database.writing(alone=False) as db:
            db.connection().execute(update(SessionTable).where(here).values(used_at=at))

    def end_session(self, session_id: str) -> None:
        """Delete it. Raises StoreError."""
        here = col(SessionTable.id_hash) == self._hash(session_id)
        with self.database.writing(alone=False) as db:
            db.connection().execute(delete(SessionTable).where(here))

    def forget_sessions(self, began_before: datetime, used_before: datetime) -> int:
        """Delete what is over, and return how many. Raises StoreError."""
        over = or_(col(SessionTable.began_at) < began_before, col(SessionTable.used_at) < used_before)
        with self.database.writing(alone=False) as db:
            return db.connection().execute(delete(SessionTable).where(over)).rowcount

    def _hash(self, session_id: str) -> str:
        return self.database.cipher.keyed_hash("session", session_id)
