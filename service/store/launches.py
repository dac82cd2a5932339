"""Launches in the database: the browser's secret as a keyed hash, the patient and the tokens sealed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, TypeVar

import msgspec
from sqlalchemy import Column, Index, delete, select, update
from sqlmodel import Field, SQLModel, col, or_

from service.errors import StoreError
from service.ports.held import Closes
from service.ports.launches import Attempt, Launch, Seen, Tokens
from service.store.cipher import Cipher
from service.store.columns import Encrypted, UtcInstant
from service.store.database import Database

T = TypeVar("T")
ATTEMPT_LASTS: Final = timedelta(minutes=10)
"""How long somebody may take to sign in at the EHR."""
MOST_ATTEMPTS: Final = 20_000
"""Of more the oldest are forgotten: whoever has no account could otherwise fill the database."""
LOCKS: Final = 64


class LaunchAttemptTable(SQLModel, table=True):
    """One launch under way. The sealed content repeats the hash: moved to another row, it opens nothing."""

    __tablename__ = "epicrisis_launch_attempt"
    __table_args__ = (Index("ix_epicrisis_launch_attempt_began", "began_at"),)

    state_hash: str = Field(primary_key=True)
    began_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_launch_attempt.content"), nullable=False))


class LaunchTable(SQLModel, table=True):
    """One launch, sealed under the key of its patient."""

    __tablename__ = "epicrisis_launch"
    __table_args__ = (
        Index("ix_epicrisis_launch_browser", "browser_hash", "began_at"),
        Index("ix_epicrisis_launch_patient", "patient_hash"),
        Index("ix_epicrisis_launch_used", "used_at"),
    )

    visit: str = Field(primary_key=True)
    browser_hash: str
    patient_hash: str
    began_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    used_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_launch.content"), nullable=False))
    tokens: str = Field(sa_column=Column(Encrypted("epicrisis_launch.tokens"), nullable=False))


class _Attempt(msgspec.Struct, frozen=True):
    state_hash: str
    browser_hash: str
    ehr: str
    nonce: str
    verifier: str
    redirect_uri: str
    scope: str
    began_at: datetime


class _Content(msgspec.Struct, frozen=True):
    visit: str
    browser_hash: str
    ehr: str
    server: str
    patient: str
    encounter: str
    actor: str
    fhir_user: str
    needs_banner: bool
    context: Mapping[str, str]
    messaging: tuple[str, str]


class _Tokens(msgspec.Struct, frozen=True):
    visit: str
    access: str
    refresh: str
    expires_at: datetime
    renew_at: datetime | None
    scope: str
    access_profile: str


class SqlLaunches:
    """The LaunchStore in a database, which may be the store's."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        self.database = Database(url, cipher)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def put_attempt(self, state: str, browser: str, attempt: Attempt) -> None:
        """Keep what an answer will be held against. Raises StoreError."""
        hashed = self._hash("launch state", state)
        content = _Attempt(
            hashed, self._of_browser(browser), attempt.ehr, attempt.nonce, attempt.verifier,
            attempt.redirect_uri, attempt.scope, attempt.began_at,
        )  # fmt: skip
        began = col(LaunchAttemptTable.began_at)
        old = began < attempt.began_at - ATTEMPT_LASTS
        with self.database.writing(alone=False) as db:
            db.connection().execute(delete(LaunchAttemptTable).where(old))
            db.add(
                LaunchAttemptTable(state_hash=hashed, began_at=attempt.began_at, content=_written(content))
            )
            db.flush()
            newest = select(began).order_by(began.desc()).offset(MOST_ATTEMPTS).limit(1).scalar_subquery()
            db.connection().execute(delete(LaunchAttemptTable).where(began <= newest))

    def take_attempt(self, state: str, browser: str) -> Attempt | None:
        """Return an attempt of this browser, once. Raises StoreError.

        That of another browser stays: who has no part in it cannot end it.
        """
        hashed = self._hash("launch state", state)
        with self.database.writing() as db:
            row = db.get(LaunchAttemptTable, hashed)
            if row is None:
                return None
            said = _read(row.content, _Attempt)
            if said.state_hash != hashed:
                raise StoreError("A launch in the store was changed.")
            if said.browser_hash != self._of_browser(browser):
                return None
            db.delete(row)
        return Attempt(said.ehr, said.nonce, said.verifier, said.redirect_uri, said.scope, said.began_at)

    def put_launch(self, browser: str, launch: Launch, at: datetime) -> None:
        """Keep a new launch. Raises StoreError, and ShreddedError."""
        hashed = self._of_browser(browser)
        content = _Content(
            launch.visit, hashed, launch.ehr, launch.server, launch.patient, launch.encounter, launch.actor,
            launch.fhir_user, launch.needs_banner, launch.context, launch.messaging,
        )  # fmt: skip
        with self.database.writing(alone=False, about=launch.patient) as db:
            db.add(
                LaunchTable(
                    visit=launch.visit,
                    browser_hash=hashed,
                    patient_hash=self.database.hash_of(launch.patient),
                    began_at=at,
                    used_at=at,
                    content=_written(content),
                    tokens=_written(
                        _sealed(launch.visit, launch.tokens, launch.scope, launch.access_profile)
                    ),
                )
            )

    def get_launch(self, visit: str, *, began_after: datetime, used_after: datetime) -> Launch | None:
        """Return a launch that is not over, or None. Raises StoreError, for one that others changed too."""
        seen = self.look_at(visit, "", began_after=began_after, used_after=used_after)
        return seen.launch if seen is not None else None

    def look_at(
        self, visit: str, browser: str, *, began_after: datetime, used_after: datetime
    ) -> Seen | None:
        """Return the same, as a browser sees it. Raises StoreError."""
        with self.database.reading() as db:
            row = db.get(LaunchTable, visit)
            if row is None or row.began_at <= began_after or row.used_at <= used_after or not row.content:
                return None
            browser_hash, content, sealed, used_at = row.browser_hash, row.content, row.tokens, row.used_at
        said, tokens = _read(content, _Content), _read(sealed, _Tokens)
        if (said.visit, said.browser_hash, tokens.visit) != (visit, browser_hash, visit):
            raise StoreError("A launch in the store was changed.")
        launch = Launch(
            visit=visit,
            ehr=said.ehr,
            server=said.server,
            patient=said.patient,
            encounter=said.encounter,
            actor=said.actor,
            fhir_user=said.fhir_user,
            scope=tokens.scope,
            access_profile=tokens.access_profile,
            needs_banner=said.needs_banner,
            context=said.context,
            messaging=said.messaging,
            tokens=Tokens(tokens.access, tokens.refresh, tokens.expires_at, tokens.renew_at),
        )
        return Seen(launch, browser_hash == self._of_browser(browser), used_at)

    def visits_of(self, browser: str) -> tuple[str, ...]:
        """Return the launches of a browser, the newest first. Raises StoreError."""
        mine = col(LaunchTable.browser_hash) == self._of_browser(browser)
        newest = col(LaunchTable.began_at).desc(), col(LaunchTable.visit)
        with self.database.reading() as db:
            return tuple(db.scalars(select(col(LaunchTable.visit)).where(mine).order_by(*newest)).all())

    def use_launch(self, visit: str, at: datetime) -> None:
        """Note that it is in use. Raises StoreError."""
        here = col(LaunchTable.visit) == visit
        with self.database.writing(alone=False) as db:
            db.connection().execute(update(LaunchTable).where(here).values(used_at=at))

    def renew_launch(self, visit: str, tokens: Tokens, scope: str, access_profile: str) -> bool:
        """Keep new tokens; False where the launch has ended. Raises StoreError."""
        with self.database.writing() as db:
            row = db.get(LaunchTable, visit)
            if row is None or not row.content:
                return False
            with self.database.sealing_for(_read(row.content, _Content).patient):
                row.tokens = _written(_sealed(visit, tokens, scope, access_profile))
        return True

    def end_launch(self, visit: str) -> None:
        """Delete it. Raises StoreError."""
        with self.database.writing(alone=False) as db:
            db.connection().execute(delete(LaunchTable).where(col(LaunchTable.visit) == visit))

    def forget_launches(self, began_before: datetime, used_before: datetime) -> int:
        """Delete what is over, and return how many. Raises StoreError."""
        over = or_(col(LaunchTable.began_at) < began_before, col(LaunchTable.used_at) < used_before)
        with self.database.writing(alone=False) as db:
            return db.connection().execute(delete(LaunchTable).where(over)).rowcount

    def hold(self, visit: str) -> Closes | None:
        """Return the right to renew a launch's tokens, or None where another has it. Raises StoreError.

        Several launches share a lock: a file is left behind for each name that was ever held.
        """
        return self.database.hold(f"launch {zlib.crc32(visit.encode()) % LOCKS}")

    def _of_browser(self, browser: str) -> str:
        return self._hash("browser", browser)

    def _hash(self, purpose: str, value: str) -> str:
        return self.database.cipher.keyed_hash(purpose, value)


def _sealed(visit: str, tokens: Tokens, scope: str, access_profile: str) -> _Tokens:
    return _Tokens(
        visit, tokens.access, tokens.refresh, tokens.expires_at, tokens.renew_at, scope, access_profile
    )


def _written(content: msgspec.Struct) -> str:
    return msgspec.json.encode(content).decode()


def _read(content: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, ValueError):
        raise StoreError("A launch in the store is damaged.") from None
