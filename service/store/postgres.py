"""PostgreSQL: one database for the workers of many hosts, by psycopg.

Connect to the server itself or to a pool that pools sessions: what one transaction pools (pgbouncer's
`transaction` mode) loses the session's settings and the locks of `hold`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from psycopg.types.string import StrDumper
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, func, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from service.errors import StoreError
from service.store.failure import told_plainly
from service.store.place import BUSY_TIMEOUT_MS, LOG_NAME
from service.store.schema import is_current, migrate
from service.store.tables import DataKeyTable, KeyCheckTable

DRIVER = "postgresql+psycopg"
_LOCK_WAIT_MIGRATING_MS = 60_000
_DEFAULTS: dict[str, Any] = {
    "application_name": "epicrisis",
    "connect_timeout": 10,
    # A server that vanished without a word is noticed after a minute, not after Linux' quarter of an hour.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_SESSION = {
    "TimeZone": "UTC",
    "lock_timeout": str(BUSY_TIMEOUT_MS),
    # A worker that was stopped or cut off in the middle of a transaction holds its locks no longer than this;
    # the keepalives end the session, and with it the locks of `hold`, of a host that lost its power.
    "idle_in_transaction_session_timeout": "60000",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
_SET = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SESSION.items())
_PREPARE = (
    f"SELECT {_SET}, CASE WHEN current_setting('synchronous_commit') = 'off'"
    " THEN set_config('synchronous_commit', 'on', false) END"
)
"""What is stored is filed next: a commit must have reached the disk, whatever the server's default is."""


class HeldSession:
    """A lock of one session, until it is closed or its process ends."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self._number = number
        self._is_lost = False

    def is_held(self) -> bool:
        """Tell whether the session lives: the server's end, or a cut connection, ends the lock with it."""
        try:
            self._is_lost = self._is_lost or self._connection.scalar(text("SELECT 1")) != 1
        except SQLAlchemyError:
            self._is_lost = True  # asked again, the connection would be a new one, without the lock
        return not self._is_lost

    def close(self) -> None:
        """Let the next one have it, at once; where the server is gone, so is the lock."""
        with suppress(SQLAlchemyError):
            self._connection.execute(select(func.pg_advisory_unlock(self._number)))
        with suppress(SQLAlchemyError):
            self._connection.close()


class PostgresDatabase:
    """The Place that is a database of a PostgreSQL server."""

    def __init__(self, url: URL) -> None:
        """Raises StoreError where the URL names no database."""
        if not url.database:
            raise StoreError(
                "The database URL names no database.",
                "For example postgresql+psycopg://user:password@host/epicrisis",
            )
        self._url = url.set(drivername=DRIVER)

    def is_new(self) -> bool:
        """Tell whether no key was ever used there. Raises StoreError where the server does not answer."""
        engine = self._engine(poolclass=NullPool)
        with told_plainly(), engine.connect() as connection:
            if not inspect(connection).has_table(str(KeyCheckTable.__tablename__)):
                return True
            return not connection.scalar(select(func.count()).select_from(KeyCheckTable))

    def engine(self) -> Engine:
        """Return the connections to it; each is tried before use, so that a restart of the server passes."""
        return self._engine(pool_pre_ping=True)

    def prepare(self, engine: Engine) -> None:
        """Migrate where that is needed: one process at a time, with the rights of the database's owner."""
        with engine.connect() as connection:
            if connection.scalar(text("SHOW server_encoding")) != "UTF8":
                raise StoreError(
                    "The PostgreSQL database has another encoding than UTF8.",
                    "Make a new one: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0.",
                )
            if is_current(connection):
                return
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_WAIT_MIGRATING_MS}")
            connection.execute(_exclusive())
            migrate(connection)
            connection.commit()

    def reader(self, engine: Engine) -> Engine:
        """Return the engine of reading transactions: all their statements see one state."""
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def writer(self, engine: Engine) -> Engine:
        """Return the engine of writing transactions: each statement sees what was committed before it.

        A transaction that waited for another must see what that one wrote, so none keeps an older state.
        """
        return engine.execution_options(isolation_level="READ COMMITTED")

    def exclude_writers(self, session: Session) -> None:
        """Take the one lock that stands for SQLite's."""
        session.execute(_exclusive())

    def hold(self, key: str) -> HeldSession | None:
        """Take a lock on a connection of its own: long holds must not use up those of the transactions."""
        engine = self._engine(poolclass=NullPool, isolation_level="AUTOCOMMIT")
        connection, number = engine.connect(), _number(f"hold {key}")
        try:
            if connection.scalar(select(func.pg_try_advisory_lock(number))):
                return HeldSession(connection, number)
        except BaseException:
            connection.close()
            raise
        connection.close()
        return None

    def scrub(self, engine: Engine) -> None:
        """Write the table of keys anew: a plain VACUUM leaves the bytes of old rows in its pages.

        The server's log holds them until it is written over, and its archive for as long as that is kept.
        """
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"VACUUM FULL {DataKeyTable.__tablename__}")

    def compact(self, engine: Engine) -> None:
        """Write the tables that hold sealed values anew, one after the other; each is locked meanwhile."""
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for name in sorted(inspect(connection).get_table_names()):
                if name.startswith("epicrisis_"):
                    connection.exec_driver_sql(f'VACUUM FULL "{name}"')

    def drop_triggers(self, session: Session, table: str) -> Sequence[str]:
        """Disable them: whoever reads goes on reading, and others who write wait."""
        connection = session.connection()
        wanted = text(
            "SELECT tgname, tgenabled::text FROM pg_trigger"
            " WHERE tgrelid = to_regclass(:table) AND NOT tgisinternal AND tgenabled <> 'D'"
        )
        found = connection.execute(wanted, {"table": table}).all()
        for name, _ in found:
            connection.exec_driver_sql(f'ALTER TABLE "{table}" DISABLE TRIGGER "{name}"')
        kinds = {"A": "ENABLE ALWAYS", "R": "ENABLE REPLICA", "O": "ENABLE"}
        return [f'ALTER TABLE "{table}" {kinds[how]} TRIGGER "{name}"' for name, how in found]

    def describe(self, engine: Engine) -> str:
        """Name the server's version, its address, the database, and whether the connection is encrypted."""
        with told_plainly(), engine.connect() as connection:
            version = connection.scalar(text("SHOW server_version"))
            driver: Any = connection.connection.dbapi_connection
            said = driver.info
            tls = "TLS" if driver.pgconn.ssl_in_use else "no TLS"
            return f"PostgreSQL {str(version).split()[0]} on {said.host}:{said.port}, {said.dbname}, {tls}"

    def _engine(self, **options: Any) -> Engine:
        given = {name: value for name, value in _DEFAULTS.items() if name not in self._url.query}
        engine = create_engine(
            self._url,
            hide_parameters=True,
            logging_name=LOG_NAME,
            # A prepared statement outlives a migration by another process, and then fails.
            connect_args={**given, "prepare_threshold": None},
            **options,
        )
        event.listen(engine, "connect", _prepare_connection)
        return engine


class _TextDumper(StrDumper):
    """PostgreSQL's text holds no NUL; a hostile chart does. What is sealed keeps it, the rest does not."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\ufffd"))


def _prepare_connection(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.adapters.register_dumper(str, _TextDumper)
    dbapi_connection.execute(_PREPARE).close()
    dbapi_connection.commit()


def _exclusive() -> Any:
    return select(func.pg_advisory_xact_lock(_number("writer")))


def _number(name: str) -> int:
    """Advisory locks have 64-bit numbers, and others may use them in the same database."""
    return int.from_bytes(hashlib.sha256(f"epicrisis {name}".encode()).digest()[:8], signed=True)
