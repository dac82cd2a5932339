"""What somebody with the files, the backups and the key file can still read of a patient who was shredded."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import subprocess
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from fixtures.postgres import PostgresServer
from service.errors import StoreError
from service.store.cipher import KEY_BYTES, Cipher
from service.store.database import Database, open_cipher
from service.store.envelope import DataKey
from tests.acceptance.test_keys import run_keys, start
from tests.contract.store.test_patient_keys import ONE, OTHER, SECRETS, open_house, sealed_values

WRAPPED_BYTES = 1 + 4 + 12 + KEY_BYTES + 16
BEGINNING = 500
"""PostgreSQL cuts long values into pieces, and a piece can be read without the rest."""
LOG_PAGE, LOG_PAGE_HEAD = 8192, 24
"""Of PostgreSQL's log of writes: a record that passes the end of a page goes on after the next one's head."""
_HEX = re.compile(rb"\\x([0-9a-f]{2,})")


@dataclass(frozen=True)
class Thief:
    """Somebody who knows what to look for: a patient's values as they were, their key, and its place."""

    key_file: Path
    key_id: bytes
    place: str
    """Where the sealed data key stood."""
    secret: bytes
    """The data key in the open, which must be nowhere."""
    values: tuple[tuple[str, bytes], ...]
    """Sealed values under it, with their places."""

    @classmethod
    def of(cls, url: str, key_file: Path, patient: str) -> Thief:
        """Note everything about a patient while it is there."""
        database = Database(url, open_cipher(key_file, url))
        with closing(database), database.writing() as session:
            hashed = database.hash_of(patient)
            key = database.envelope.live_key(hashed)
            assert session.is_active
        values = tuple((place, value) for place, value in sealed_values(url) if value[1:9] == key.id)
        place = f"epicrisis_patient_key.wrapped {key.id.hex()} {hashed}"
        return cls(key_file, key.id, place, key.secret, values)

    def reads(self, found: Iterable[bytes]) -> set[str]:
        """Say what of the patient can be read in some files with the master keys that are left."""
        files = list(found)
        told = {secret for secret in SECRETS for data in files if _is_in(secret.encode(), data)}
        spelled = (self.secret, self.secret.hex().encode(), base64.b64encode(self.secret))
        if any(spelling in data for spelling in spelled for data in files):
            told.add("the key")
        opened = {secret for data in files for secret in self._keys_in(data)}
        for secret in opened:
            told.add("the key, unsealed")
            told |= {known for text in self._texts(secret, files) for known in SECRETS if known in text}
        return told

    def _keys_in(self, data: bytes) -> Iterator[bytes]:
        """Open whatever looks like a key that a master key sealed, and was this patient's."""
        masters = json.loads(self.key_file.read_text())["keys"]
        cipher = Cipher.from_file(self.key_file, create=False)
        for master in masters:
            for found in re.finditer(re.escape(b"\x01" + bytes.fromhex(master)), data):
                try:
                    yield cipher.unseal(data[found.start() : found.start() + WRAPPED_BYTES], self.place)
                except StoreError:
                    continue

    def _texts(self, secret: bytes, files: list[bytes]) -> Iterator[str]:
        key = DataKey.of(self.key_id, secret)
        for place, value in self.values:
            if any(value[:BEGINNING] in data for data in files):
                plain = key.unseal(value, place)
                yield (plain if place.startswith("epicrisis_kept") else zlib.decompress(plain)).decode()


def _is_in(secret: bytes, data: bytes) -> bool:
    return any(
        re.search(re.escape(spelling) + rb"(?![0-9])", data)
        for spelling in (secret, secret.decode().encode("utf-16-le"), secret.hex().encode())
    )


def files_under(folder: Path) -> list[bytes]:
    """Every file of a folder, and PostgreSQL's log of writes without the heads of its pages too."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.append(path.read_bytes())
            if path.parent.name == "pg_wal":
                pages = range(0, len(found[-1]), LOG_PAGE)
                found.append(b"".join(found[-1][at + LOG_PAGE_HEAD : at + LOG_PAGE] for at in pages))
    return found


def dumped(server: PostgresServer, database: str) -> list[bytes]:
    """A dump of a database, and its binary values."""
    dump = server.program("pg_dump", "--dbname", database)
    return [dump, b"\n".join(bytes.fromhex(found.decode()) for found in _HEX.findall(dump))]


def copied(server: PostgresServer) -> list[bytes]:
    """A backup of the server's files, with the log that it needs."""
    packed = server.program("pg_basebackup", "-D", "-", "-Ft", "-X", "fetch", "--checkpoint=fast")
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        return [
            opened.read()
            for one in archive
            if one.isfile() and (opened := archive.extractfile(one)) is not None
        ]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer({"wal_level": "replica", "max_wal_senders": "2"}) as started:
        yield started


def test_of_a_shredded_patient_no_file_of_postgresql_and_no_backup_tells_anything(
    server: PostgresServer, tmp_path: Path
) -> None:
    """Its log of writes keeps the sealed key: a rotation of the master key is what ends that."""
    url, key = server.new_database(), tmp_path / "home" / "key"
    key.parent.mkdir()
    house = open_house(url, key)
    house.fill(ONE)
    house.fill(OTHER)
    server.admin("CHECKPOINT")
    database, on = url.rpartition("/")[2], {"EPICRISIS_DATABASE_URL": url}
    thief, other = Thief.of(url, key, ONE), Thief.of(url, key, OTHER)
    before = {"the key, unsealed", *SECRETS} - {"Patient/77"}
    for files in (files_under(server.data), dumped(server, database), copied(server)):
        assert thief.reads(files) >= before

    done = run_keys(key.parent, "shred", ONE, "--reason", "asked for", **on)
    assert done.returncode == 0, done.stderr
    assert "keys rotate" in done.stdout
    server.admin("CHECKPOINT")
    for files in (files_under(server.data / "base"), dumped(server, database), copied(server)):
        assert thief.reads(files) == set()
        assert other.reads(files) >= {"the key, unsealed", "Penicillin"}
    assert "the key, unsealed" in thief.reads(files_under(server.data))
    assert json.loads(run_keys(key.parent, "state", "--json", **on).stdout)["exposed"] == 1

    assert run_keys(key.parent, "rotate", **on).returncode == 0
    for files in (files_under(server.data), dumped(server, database), copied(server)):
        assert thief.reads(files) == set()
        assert other.reads(files) >= {"the key, unsealed", "Penicillin"}
    assert json.loads(run_keys(key.parent, "state", "--json", **on).stdout)["exposed"] == 0
    assert house.audit.verify().is_intact
    house.close()


def test_of_a_shredded_patient_no_file_of_sqlite_and_no_backup_tells_anything(tmp_path: Path) -> None:
    """Not in the database, its log and its shared memory, with others at work in it."""
    home, kept = tmp_path / "home", tmp_path / "backups"
    for folder in (home, kept):
        folder.mkdir()
    url, key = f"sqlite:///{home}/epicrisis.db", home / "key"
    house = open_house(url, key)
    house.fill(ONE)
    house.fill(OTHER)
    thief, other = Thief.of(url, key, ONE), Thief.of(url, key, OTHER)
    assert thief.reads(files_of_sqlite(home, kept)) >= {"the key, unsealed", "Penicillin"}
    assert {path.name for path in home.glob("epicrisis.db*")} >= {
        "epicrisis.db", "epicrisis.db-wal", "epicrisis.db-shm",
    }  # fmt: skip
    done = run_keys(home, "shred", ONE, "--reason", "asked for")
    assert done.returncode == 0, done.stderr
    files = files_of_sqlite(home, kept)
    assert thief.reads(files) == set()
    assert other.reads(files) >= {"the key, unsealed", "Penicillin"}
    assert house.audit.verify().is_intact
    house.close()
    assert thief.reads(files_of_sqlite(home, kept)) == set()


def as_they_lie(home: Path) -> list[bytes]:
    """The database's files, read by another process.

    Whoever opens and closes them beside SQLite ends the locks of this one, and its log is then removed by the
    next process that leaves (sqlite.org/howtocorrupt.html, 2.2): it would be gone without our doing.
    """
    files = [str(path) for path in sorted(home.glob("epicrisis.db*")) if path.is_file()]
    return [subprocess.run(["cat", path], capture_output=True, check=True).stdout for path in files]


def files_of_sqlite(home: Path, kept: Path) -> list[bytes]:
    """The database's files as they lie there, a backup made now, and a copy that was written anew."""
    found = as_they_lie(home)
    with (
        closing(sqlite3.connect(home / "epicrisis.db")) as source,
        closing(sqlite3.connect(kept / "backup.db")) as target,
    ):
        source.backup(target)
        (kept / "copy.db").unlink(missing_ok=True)
        source.execute("VACUUM INTO ?", (str(kept / "copy.db"),))
    return found + [(kept / name).read_bytes() for name in ("backup.db", "copy.db")]


CUT_OFF = """
import sys, time
from pathlib import Path
from datetime import UTC, datetime
from service.store.database import Database, open_cipher
from service.store.keys import KeyRoom
url, key = sys.argv[1], Path(sys.argv[2])
database = Database(url, open_cipher(key, url))

def stall():
    print("before the files", flush=True)
    time.sleep(600)

database.scrub = stall
KeyRoom(database, lambda: datetime.now(UTC), key).shred("Patient/77", "asked for")
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_shredding_killed_before_the_files_were_cleaned_is_finished_by_the_next(
    server: PostgresServer, tmp_path: Path, kind: str
) -> None:
    home, kept = tmp_path / "home", tmp_path / "backups"
    for folder in (home, kept):
        folder.mkdir()
    url = f"sqlite:///{home}/epicrisis.db" if kind == "sqlite" else server.new_database()
    house = open_house(url, home / "key")
    house.fill(ONE)
    thief = Thief.of(url, home / "key", ONE)

    def files() -> list[bytes]:
        if kind == "sqlite":
            return as_they_lie(home)
        server.admin("CHECKPOINT")
        return files_under(server.data / "base")

    process = start(CUT_OFF, url, home / "key")
    assert process.stdout is not None
    assert process.stdout.readline() == "before the files\n"
    process.kill()
    process.communicate()
    assert "the key, unsealed" in thief.reads(files())
    assert house.keys.shred(ONE, "asked for").again
    assert thief.reads(files()) == set()
    assert house.audit.verify().is_intact
    house.close()
