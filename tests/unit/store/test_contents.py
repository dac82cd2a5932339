"""What lies on the disk: nothing that names a patient, in no file, and private files."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from service.errors import StoreError
from service.ports import Action, AuditEntry, RunState
from service.store.cipher import Cipher
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from tests.conftest import CANARY
from tests.unit.writeback.charts import CREATED, make_run

ENTRY = AuditEntry(
    Action.WRITE,
    "system:cli",
    "Patient/77",
    CREATED,
    "ok",
    "run-1",
    "DocumentReference/secret-9",
    {"claims": 3},
)
SECRETS = (
    CANARY,
    "MRN-4711",
    "Patient/77",
    "1951-05-04",
    "Penicillin",
    "Condition/1",
    "secret-9",
    "metformin",
    "6.10",
)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_file_ever_holds_patient_text(
    store: SqlStore, audit: SqlAuditLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler = logging.FileHandler(tmp_path / "all.log")
    logging.getLogger().addHandler(handler)
    caplog.set_level(logging.DEBUG)
    logging.getLogger("sqlalchemy").setLevel(logging.DEBUG)
    try:
        store.save(make_run())
        store.finish(make_run().run_id, RunState.FILED, "DocumentReference/secret-9/_history/1")
        audit.append(ENTRY)
        with pytest.raises(StoreError):
            store.save(make_run())
        store.rows()
        before = _files(tmp_path)  # with the write-ahead log still open
        store.close()
        audit.close()
    finally:
        logging.getLogger("sqlalchemy").setLevel(logging.NOTSET)
        logging.getLogger().removeHandler(handler)
        handler.close()
    after = _files(tmp_path)
    assert {"epicrisis.db", "epicrisis.db-wal", "epicrisis.db-shm", "key", "all.log"} <= set(before)
    assert b"Connection" in before["all.log"]
    for secret in SECRETS:
        for name, content in (*before.items(), *after.items()):
            assert secret.encode() not in content, (secret, name)
        assert secret not in caplog.text


def test_files_are_private_and_so_is_their_folder(store: SqlStore, tmp_path: Path) -> None:
    store.save(make_run())
    folder = tmp_path / "data"
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert len(modes) == 4
    assert set(modes.values()) == {0o600}


def test_a_database_that_others_could_read_is_closed_to_them(url: str, cipher: Cipher) -> None:
    SqlStore(url, cipher).close()
    path = Path(url.removeprefix("sqlite:///"))
    path.chmod(0o644)
    SqlStore(url, cipher).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_value_moved_to_another_column_is_found(store: SqlStore, url: str) -> None:
    store.save(make_run())
    _raw(url, "UPDATE epicrisis_run SET patient_name = patient")
    with pytest.raises(StoreError, match="damaged or was changed"):
        store.rows()


def test_a_run_moved_to_another_row_is_found(store: SqlStore, url: str) -> None:
    store.save(make_run())
    store.save(make_run(run_id="run-2", patient="Patient/78"))
    _raw(url, "UPDATE epicrisis_run SET content = (SELECT content FROM epicrisis_run WHERE run_id = 'run-2')")
    with pytest.raises(StoreError, match="A stored run was changed"):
        store.get(make_run().run_id)


def test_the_rows_of_claims_and_citations_say_what_recall_needs(store: SqlStore, url: str) -> None:
    store.save(make_run())
    raw = sqlite3.connect(url.removeprefix("sqlite:///"))
    claims = raw.execute(
        "SELECT ordinal, section, origin, verdict, published FROM epicrisis_claim"
    ).fetchall()
    assert claims == [
        (0, "allergy", "record", "supported", 1),
        (1, "problem", "model", "supported", 1),
        (2, "problem", "model", "supported", 1),
        (3, "problem", "model", "unsupported", 0),
        (4, "problem", "model", "unsupported", 0),
    ]
    citations = raw.execute("SELECT claim, position, version, digest FROM epicrisis_citation").fetchall()
    assert citations == [
        (0, 0, "", "c" * 64),
        (1, 0, "2", f"{1:064x}"),
        (1, 1, "3", "a" * 64),
        (2, 0, "", "d" * 64),
        (3, 0, "3", "a" * 64),
        (4, 0, "", ""),
    ]
    raw.close()


def _raw(url: str, statement: str) -> None:
    raw = sqlite3.connect(url.removeprefix("sqlite:///"))
    raw.execute(statement)
    raw.commit()
    raw.close()
