"""What PostgreSQL adds: a server that dies, refuses, or is set up otherwise, and what is then said."""

from __future__ import annotations

import logging
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from fixtures.postgres import PASSWORD, USER, PostgresServer
from service.errors import StoreError
from service.ports import RunId, RunState
from service.store.cipher import Cipher
from service.store.columns import UtcInstant
from service.store.database import Database, open_cipher, upgrade
from service.store.failure import store_error
from service.store.sql import SqlStore
from service.store.tables import RunTable
from service.store.trail import SqlAuditLog
from service.store.vault import SqlVault
from tests.conftest import CANARY, ROOT
from tests.unit.store.test_contents import ENTRY, SECRETS
from tests.unit.writeback.charts import CREATED, east, make_run, varied

KEYS = {b"\0\0\0\1": b"1" * 32}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that tests may kill; each leaves it running."""
    with PostgresServer({"max_connections": "30"}) as started:
        yield started


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.new_database()


@pytest.fixture
def cipher() -> Cipher:
    return Cipher(KEYS, b"\0\0\0\1", b"l" * 32)


def told(act: Callable[[], object]) -> str:
    """Return what a person is told; it holds no secret, no statement and no address."""
    with pytest.raises(StoreError) as caught:
        act()
    error = caught.value
    assert error.__suppress_context__ or error.__context__ is None
    said = f"{error.message} {error.advice}"
    for secret in (CANARY, "Patient/77", "INSERT", "SELECT", PASSWORD, "p%40ss", USER + ":", "127.0.0.1"):
        assert secret not in said
    return said


def start_writer(url: str, key: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.unit.store.writer", url, str(key), *args]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("table", ["epicrisis_run", "epicrisis_claim", "epicrisis_citation"])
def test_a_server_killed_in_the_middle_of_a_save_keeps_nothing_of_it_and_is_used_again_after_its_restart(
    server: PostgresServer, store: SqlStore, table: str
) -> None:
    store.save(make_run())
    killed: list[str] = []

    @event.listens_for(store.database.engine, "after_cursor_execute")
    def kill(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith(f"INSERT INTO {table}") and not killed:
            killed.append(table)
            server.kill()

    run = make_run(run_id=RunId("killed"))
    assert "whole or not at all" in told(lambda: store.save(run))
    assert killed
    assert "does not answer" in told(store.rows)
    server.start()
    assert [row.run_id for row in store.rows()[0]] == ["run-1"]
    store.save(run)
    assert store.get(run.run_id) == run


def test_whatever_was_acknowledged_survives_kills_at_any_moment_and_the_rest_is_whole_or_absent(
    server: PostgresServer, url: str, cipher: Cipher
) -> None:
    chance = random.Random(7)
    acknowledged: list[str] = []
    tried: list[str] = []
    is_over = threading.Event()
    SqlStore(url, cipher).close()

    def write() -> None:
        store = SqlStore(url, cipher)
        while not is_over.is_set():
            name = f"run-{len(tried)}"
            tried.append(name)
            try:
                store.save(make_run(run_id=RunId(name)))
            except StoreError:
                is_over.wait(0.01)
            else:
                acknowledged.append(name)
        store.close()

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(6):
        enough = len(acknowledged) + 1
        while len(acknowledged) < enough and writer.is_alive():
            is_over.wait(0.005)
        is_over.wait(chance.uniform(0, 0.1))
        server.kill()
        server.start()
    is_over.set()
    writer.join(60)
    store = SqlStore(url, cipher)
    kept = [row.run_id for row in store.rows(10_000)[0]]
    assert set(acknowledged) <= set(kept) <= set(tried)
    assert len(kept) == len(set(kept))
    for name in kept:
        assert store.get(RunId(name)) == make_run(run_id=RunId(name))
    counts = "SELECT count(*) FROM epicrisis_{} GROUP BY run"
    with store.database.engine.connect() as connection:
        for table, rows in (("claim", 5), ("citation", 6)):
            assert set(connection.execute(text(counts.format(table))).scalars()) == {rows}
    assert len(acknowledged) >= 6
    store.close()


def test_who_holds_a_key_learns_that_it_was_lost_with_the_server(
    server: PostgresServer, store: SqlStore
) -> None:
    held = store.database.hold("long")
    assert held is not None
    assert held.is_held()
    server.kill()
    assert not held.is_held()
    server.start()
    assert not held.is_held(), "a new connection has no lock"
    again = store.database.hold("long")
    assert again is not None
    assert again.is_held()
    held.close()
    assert store.database.hold("long") is None
    again.close()


def test_a_held_key_is_free_after_its_holder_or_its_server_was_killed(
    server: PostgresServer, store: SqlStore
) -> None:
    held = store.hold("a" * 64)
    assert held is not None
    server.kill()
    server.start()
    again = store.hold("a" * 64)
    assert again is not None
    held.close()  # it is gone, and takes nothing of the new one with it
    assert store.hold("a" * 64) is None
    again.close()


def test_more_keys_are_held_than_the_pool_has_connections(store: SqlStore) -> None:
    held = [store.hold(f"{number}") for number in range(17)]
    assert all(held)
    assert store.rows() == ((), 0)
    for one in held:
        assert one is not None
        one.close()


def test_a_session_that_an_administrator_ends_is_told_plainly_and_replaced(
    server: PostgresServer, store: SqlStore
) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'epicrisis'"
    ended: list[int] = []

    @event.listens_for(store.database.engine, "after_cursor_execute")
    def cut(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("INSERT INTO epicrisis_claim") and not ended:
            ended.append(len(server.admin(end)))

    assert "whole or not at all" in told(lambda: store.save(make_run()))
    assert store.rows() == ((), 0)
    server.admin(end)
    store.save(make_run())  # the idle connection was tried first
    assert store.rows()[1] == 1


def test_a_writer_waits_for_another_and_then_says_who_holds_the_database(
    store: SqlStore, url: str, cipher: Cipher
) -> None:
    store.save(make_run())
    store.close()

    @event.listens_for(store.database.engine, "connect")
    def impatient(connection: Any, _record: object) -> None:
        connection.execute("SET lock_timeout = 50").close()
        connection.commit()

    def finish() -> None:
        store.finish(make_run().run_id, RunState.FILED)

    other = SqlStore(url, cipher)
    with other.database.writing():
        assert "Another process holds the database" in told(finish)
        store.save(make_run(run_id=RunId("beside")))  # what only inserts waits for nobody
    finish()
    other.close()


def test_a_change_that_waited_for_another_writer_is_made_and_not_refused(
    store: SqlStore, url: str, cipher: Cipher
) -> None:
    store.save(make_run())
    other = SqlStore(url, cipher)
    waiting = threading.Thread(
        target=lambda: store.finish(make_run().run_id, RunState.GENERATED, seconds={"second": 2.0})
    )
    with other.database.writing() as session:
        row = session.exec(select(RunTable)).one()
        row.seconds = {**row.seconds, "first": 1.0}
        session.flush()
        waiting.start()
        until = time.monotonic() + 20
        while not _is_waiting(url) and time.monotonic() < until:
            threading.Event().wait(0.01)
    waiting.join(20)
    found = store.get(make_run().run_id)
    assert found is not None
    assert {"first", "second"} <= set(found.seconds)
    other.close()


def _is_waiting(url: str) -> bool:
    engine = create_engine(url)
    with engine.connect() as connection:
        waits = connection.scalar(
            text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        )
    engine.dispose()
    return bool(waits)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace("p%40ss", "wrong"), "does not let us in"),
        (lambda url: url.replace("/test_", "/none_"), "does not let us in"),
        (lambda url: url.replace(f"{USER}:", "nobody:"), "does not let us in"),
        (lambda url: f"{url.rpartition(':')[0]}:1/x", "does not answer"),
        (lambda url: f"{url}?sslmode=require", "TLS"),
        (lambda url: f"{url}?sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "TLS"),
        (lambda url: f"{url}?sslmode=sometimes", "EPICRISIS_DATABASE_URL"),
        (lambda url: f"{url}?no_such_option=1", "EPICRISIS_DATABASE_URL"),
        (lambda url: f"{url}?options=-cno_such_setting%3D1", "EPICRISIS_DATABASE_URL"),
        (lambda url: url.rpartition("/")[0], "names no database"),
    ],
    ids="password database user port tls authority mode option setting nothing".split(),
)
def test_what_keeps_us_out_is_told_plainly(
    url: str, cipher: Cipher, tmp_path: Path, change: Callable[[str], str], said: str
) -> None:
    wrong = change(url)
    assert wrong != url
    for act in (
        lambda: Database(wrong, cipher),
        lambda: open_cipher(tmp_path / "key", wrong),
        lambda: upgrade(wrong),
    ):
        assert said in told(act)
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql", "postgres"])
def test_the_forms_of_the_setting_that_other_tools_write_mean_the_same(
    url: str, cipher: Cipher, scheme: str
) -> None:
    store = SqlStore(url.replace("postgresql+psycopg", scheme), cipher)
    store.save(make_run())
    assert store.get(make_run().run_id) == make_run()
    store.close()


def test_a_server_without_a_connection_left_is_told_plainly(
    server: PostgresServer, store: SqlStore, url: str
) -> None:
    store.close()
    plain = url.replace("+psycopg", "")
    taken: list[psycopg.Connection[Any]] = []
    with suppress(psycopg.OperationalError):
        while len(taken) < 100:
            taken.append(psycopg.connect(plain))
    try:
        assert len(taken) < 100
        assert "no connection left" in told(store.rows)
    finally:
        for connection in taken:
            connection.close()
    until = time.monotonic() + 10
    while time.monotonic() < until:  # the server counts them down a moment later
        try:
            assert store.rows() == ((), 0)
            return
        except StoreError:
            threading.Event().wait(0.02)
    pytest.fail("the connections were not given back")


def test_a_standby_or_read_only_server_is_told_plainly(
    server: PostgresServer, store: SqlStore, url: str
) -> None:
    store.close()
    server.admin(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    assert "name the primary" in told(lambda: store.save(make_run()))
    assert store.rows() == ((), 0)


def test_a_user_without_the_right_to_make_tables_is_told_plainly(
    server: PostgresServer, url: str, cipher: Cipher
) -> None:
    server.admin(
        "DO $$ BEGIN CREATE ROLE guest LOGIN PASSWORD 'guest'; EXCEPTION WHEN OTHERS THEN NULL; END $$"
    )
    name = url.rpartition("/")[2]
    assert "lacks a right" in told(lambda: upgrade(server.url(name, "guest", "guest")))


def test_a_user_who_may_only_use_the_tables_works_once_the_owner_has_upgraded(
    server: PostgresServer, url: str, cipher: Cipher
) -> None:
    SqlStore(url, cipher).close()
    name = url.rpartition("/")[2]
    server.admin(
        "DO $$ BEGIN CREATE ROLE worker LOGIN PASSWORD 'worker'; EXCEPTION WHEN OTHERS THEN NULL; END $$"
    )
    for what in ("TABLES", "SEQUENCES"):
        server.admin(f"GRANT ALL ON ALL {what} IN SCHEMA public TO worker", name)
    store = SqlStore(server.url(name, "worker", "worker"), cipher)
    store.save(make_run())
    assert store.get(make_run().run_id) == make_run()
    store.close()


def test_a_database_in_another_encoding_is_refused(server: PostgresServer) -> None:
    latin = server.new_database("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    assert "another encoding than UTF8" in told(lambda: upgrade(latin))


def test_a_missing_table_is_a_clear_error(store: SqlStore) -> None:
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE epicrisis_citation")
    assert "The database refused (UndefinedTable)" in told(lambda: store.save(make_run()))
    assert store.rows() == ((), 0)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (psycopg.errors.DiskFull, "disk is full"),
        (psycopg.errors.IoError, "disk failed"),
        (psycopg.errors.DeadlockDetected, "changed the same rows"),
        (psycopg.errors.SerializationFailure, "changed the same rows"),
        (psycopg.errors.DataCorrupted, "is damaged"),
        (psycopg.errors.IndexCorrupted, "is damaged"),
        (psycopg.errors.ProgramLimitExceeded, "so large"),
        (psycopg.errors.CrashShutdown, "whole or not at all"),
        (psycopg.errors.CannotConnectNow, "starting or stopping"),
        (psycopg.errors.IdleInTransactionSessionTimeout, "whole or not at all"),
        (psycopg.errors.QueryCanceled, "refused (QueryCanceled)"),
        (psycopg.errors.NotNullViolation, "refused (NotNullViolation)"),
        (psycopg.ProgrammingError, "refused (ProgrammingError)"),
    ],
)
def test_each_refusal_of_the_server_has_plain_words(kind: type[psycopg.Error], said: str) -> None:
    error = store_error(kind(CANARY))
    assert said in error.message
    assert error.advice
    assert CANARY not in f"{error.message} {error.advice}"


@contextmanager
def tls_before(port: int, authority: trustme.CA) -> Iterator[int]:
    """Speak TLS in front of a server that was built without it, as PostgreSQL negotiates it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError, ValueError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
            asked = client.recv(8)
            assert asked[4:] == (80877103).to_bytes(4)  # SSLRequest, PostgreSQL 18, 54.7
            client.sendall(b"S")
            with context.wrap_socket(client, server_side=True) as encrypted:
                answers = threading.Thread(target=carry, args=(server, encrypted))
                answers.start()
                carry(encrypted, server)
                answers.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],)).start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield int(listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    accepting.join()


def test_not_even_an_error_of_the_engine_itself_shows_values(store: SqlStore) -> None:
    twice = text("INSERT INTO epicrisis_key_check VALUES (1, :canary, '')")
    with store.database.engine.connect() as connection, pytest.raises(IntegrityError) as caught:
        connection.execute(twice, {"canary": CANARY})
    assert CANARY not in str(caught.value)


def test_tls_is_used_as_the_setting_asks_for_it_and_another_authority_is_refused(
    server: PostgresServer, url: str, tmp_path: Path, cipher: Cipher
) -> None:
    authorities = {name: trustme.CA() for name in ("trusted", "other")}
    for name, authority in authorities.items():
        authority.cert_pem.write_to_path(tmp_path / name)
    with tls_before(server.port, authorities["trusted"]) as port:
        there = url.replace(f":{server.port}/", f":{port}/")
        checked = f"{there}?sslmode=verify-full&sslrootcert={tmp_path}/"
        store = SqlStore(f"{checked}trusted", cipher)
        assert store.database.describe().endswith(", TLS")
        held = store.hold("key")
        assert held is not None
        held.close()
        store.close()
        assert "the server's certificate" in told(lambda: SqlStore(f"{checked}other", cipher))


def test_the_database_is_described_without_user_or_password(
    server: PostgresServer, store: SqlStore, url: str
) -> None:
    name = url.rpartition("/")[2]
    said = store.database.describe()
    assert said.startswith("PostgreSQL 18")
    assert said.endswith(f" on 127.0.0.1:{server.port}, {name}, no TLS")


def test_every_session_is_set_up_alike_whatever_the_servers_defaults_are(
    server: PostgresServer, store: SqlStore, url: str
) -> None:
    store.close()
    name = url.rpartition("/")[2]
    for setting in (
        "TimeZone = 'Asia/Tokyo'", "synchronous_commit = off", "lock_timeout = 0",
        "default_transaction_isolation = 'serializable'",
    ):  # fmt: skip
        server.admin(f"ALTER DATABASE {name} SET {setting}")

    def shown(setting: str) -> object:
        with store.database.writing() as session:
            return session.connection().scalar(text(f"SHOW {setting}"))

    assert shown("TimeZone") == "UTC"
    assert shown("synchronous_commit") == "on"
    assert shown("lock_timeout") == "10s"
    assert shown("idle_in_transaction_session_timeout") == "1min"
    assert shown("tcp_keepalives_idle") == "30"
    assert shown("transaction_isolation") == "read committed"
    assert shown("application_name") == "epicrisis"
    with store.database.reading() as session:
        connection = session.connection()
        assert connection.scalar(text("SHOW transaction_isolation")) == "repeatable read"
        assert connection.scalar(text("SHOW transaction_read_only")) == "on"


def test_what_the_setting_says_of_a_connection_comes_before_our_defaults(url: str, cipher: Cipher) -> None:
    store = SqlStore(f"{url}?application_name=ward&connect_timeout=3", cipher)
    with store.database.reading() as session:
        assert session.connection().scalar(text("SHOW application_name")) == "ward"
    store.close()


def test_no_statement_stays_prepared_which_a_later_migration_would_break(store: SqlStore) -> None:
    for number in range(10):  # committed one by one: the driver forgets its statements at a rollback
        store.save(make_run(run_id=RunId(f"run-{number}")))
    with store.database.reading() as session:
        assert session.connection().scalar(text("SELECT count(*) FROM pg_prepared_statements")) == 0


def test_an_instant_told_in_another_zone_is_the_same_in_utc() -> None:
    dialect: Any = None
    told_there = datetime(2026, 1, 1, 9, tzinfo=east(9))
    read = UtcInstant().process_result_value(told_there, dialect)
    assert read == told_there
    assert read is not None
    assert read.tzinfo is UTC


def test_a_nul_and_an_endless_version_from_a_hostile_server_do_not_keep_a_run_out(
    store: SqlStore, audit: SqlAuditLog
) -> None:
    endless = "".join(random.Random(1).choices("0123456789abcdef", k=20_000)) + "\0"
    run = make_run()
    facts = tuple(
        _with_version(fact, endless) if number == 0 else fact for number, fact in enumerate(run.summary.facts)
    )
    hostile = varied(run, facts=facts)
    hostile = replace(hostile, inputs=replace(run.inputs, kind="hist\0ory"))
    store.save(hostile)
    assert store.get(run.run_id) == hostile
    store.finish(run.run_id, RunState.FILED)
    assert store.find_latest("Patient/77", "hist\0ory") is not None
    reference = facts[0].sources[0].reference
    assert store.find_by_source(reference, endless) == (run.run_id,)
    assert store.find_by_source(reference, "other") == ()


def _with_version(fact: Any, version: str) -> Any:
    return replace(fact, source=replace(fact.source, version=version))


def test_no_file_of_the_server_and_no_log_ever_holds_patient_text_or_the_password(
    cipher: Cipher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("sqlalchemy", "psycopg"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        with PostgresServer({"log_min_error_statement": "error", "log_error_verbosity": "verbose"}) as server:
            url = server.new_database()
            store, audit = SqlStore(url, cipher), SqlAuditLog(url, cipher)
            vault = SqlVault(url, cipher, lambda: CREATED)
            store.save(make_run())
            store.finish(make_run().run_id, RunState.FILED, "DocumentReference/secret-9/_history/1")
            audit.append(ENTRY)
            vault.put("snapshot", f"Patient/{CANARY}", f"chart of {CANARY}".encode())
            told(lambda: store.save(make_run()))
            store.rows()
            server.admin("CHECKPOINT")
            server.kill()
            told(store.rows)
            for edge in (store, audit, vault):
                edge.close()
            files = [
                path.read_bytes()
                for path in server.folder.rglob("*")
                if path.is_file() and path.name != "password" and "programs" not in path.parts
            ]
    finally:
        for name in ("sqlalchemy", "psycopg"):
            logging.getLogger(name).setLevel(logging.NOTSET)
    stored = b"\0".join(files)
    assert b"epicrisis_run" in stored
    assert b"duplicate key" in stored
    assert "Connection" in caplog.text
    for secret in (*(one for one in SECRETS if one != "6.10"), PASSWORD, "p%40ss"):
        assert secret.encode() not in stored, secret
        assert secret not in caplog.text, secret


def test_lists_are_read_along_an_index(store: SqlStore) -> None:
    def plan(statement: str) -> str:
        with store.database.engine.connect() as connection:
            connection.exec_driver_sql("SET enable_seqscan = off")
            return str(connection.exec_driver_sql(f"EXPLAIN {statement}").fetchall())

    latest = plan(
        "SELECT content FROM epicrisis_run WHERE patient_hash = 'x' AND kind = 'history' AND state = 'filed' "
        "ORDER BY created_at DESC, id DESC LIMIT 1"
    )
    page = plan("SELECT run_id FROM epicrisis_run ORDER BY created_at DESC, id DESC LIMIT 50")
    by_source = plan("SELECT run FROM epicrisis_citation WHERE source_hash = 'x' AND version = '1'")
    pruned = plan("DELETE FROM epicrisis_kept WHERE area = 'x' AND used_at < now()")
    assert "ix_epicrisis_run_newest" in page
    assert "ix_epicrisis_run_patient" in latest
    assert "Sort" not in page + latest
    assert "ix_epicrisis_citation_source" in by_source
    assert "ix_epicrisis_kept_used" in pruned
