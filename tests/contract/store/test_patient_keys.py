"""One data key a patient: what is sealed under it, and what is left once it was destroyed."""

from __future__ import annotations

import base64
import re
import secrets
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlmodel import SQLModel

from connectors.fhir.packed import Packed
from service.engine.scripted import SCRIPTED_PROFILE
from service.errors import ShreddedError, StoreError
from service.ports import (
    SHREDDED,
    Action,
    Admission,
    AuditEntry,
    DocumentState,
    FiledDocument,
    RunId,
    RunState,
    Standing,
    StoredRun,
    Wanted,
)
from service.ports.inputs import Decided, KeptClaim, KeptDigest, Made
from service.record.assemble import Policy
from service.store.cipher import Cipher, read_keys
from service.store.columns import Encrypted
from service.store.database import Database, open_cipher, place_of
from service.store.inputs import SqlInputs
from service.store.keys import KeyRoom
from service.store.sql import SqlStore
from service.store.sweeps import SqlAdmissions
from service.store.trail import SqlAuditLog
from service.store.vault import SqlVault
from tests.conftest import CANARY
from tests.unit.writeback.charts import CREATED, make_run

SERVER = "http://127.0.0.1:1/fhir"
ONE, OTHER = "Patient/77", "Patient/78"
CHART = f"chart of {CANARY}, ".encode() * 50
SECRETS = (CANARY, "Patient/77", "MRN-4711", "Penicillin", "Diabetes", "secret-77", "Encounter/77")
"""Surname, reference, number, claims, documents and stays of the patient to be shredded."""


@dataclass
class House:
    """Everything that stores something about patients, on one database."""

    url: str
    key_file: Path
    cipher: Cipher
    store: SqlStore
    audit: SqlAuditLog
    vault: SqlVault
    admissions: SqlAdmissions

    @property
    def keys(self) -> KeyRoom:
        return KeyRoom(self.store.database, lambda: CREATED, self.key_file)

    def close(self) -> None:
        for edge in (self.store, self.audit, self.vault, self.admissions):
            edge.close()

    def fill(self, patient: str) -> None:
        """Store something about a patient everywhere."""
        number = patient.rpartition("/")[2]
        assert SqlInputs(self.store).save(run_of(patient), made_of(patient))
        self.store.finish(
            run_of(patient).run_id, RunState.FILED, f"DocumentReference/secret-{number}/_history/1"
        )
        self.store.put_document(document_of(patient))
        self.audit.append(
            AuditEntry(
                Action.READ, "system:cli", patient, CREATED, target=f"DocumentReference/secret-{number}"
            )
        )
        self.vault.put("snapshot", f"{SERVER} system:none {patient}", CHART)
        self.vault.put("digest", f"{'d' * 64} {patient}", CHART)
        self.admissions.put_admission(admission_of(patient))
        heard = f'{{"of": "{patient}", "stay": "Encounter/{number}"}}'.encode()
        self.admissions.hear([(f"a {patient}", heard)], f"poll {number}", heard)
        self.admissions.heed(self.admissions.unheeded()[-1].id)
        self.admissions.hear([(f"b {patient}", heard)])


def run_of(patient: str) -> StoredRun:
    number = patient.rpartition("/")[2]
    run = make_run(run_id=RunId(f"run-{number}"), key=number.rjust(64, "0"), patient=patient)
    identity = replace(run.summary.identity, reference=patient)
    return replace(
        run, inputs=replace(run.inputs, server=SERVER), summary=replace(run.summary, identity=identity)
    )


def made_of(patient: str) -> Made:
    """What a run was made of: a list and parts that name the patient."""
    number = patient.rpartition("/")[2]
    decided = Decided(
        number, (), CREATED, SERVER, Policy(), SCRIPTED_PROFILE, 0, {},
        (KeptDigest(CANARY, (KeptClaim(f"Encounter/{number}", ()),)),),
    )  # fmt: skip
    chart = Packed([{"resourceType": "Patient", "id": number, "name": [{"family": CANARY}]}])
    return Made(decided, chart, {patient: CHART}, {}, (("history", {"task.j2": "Write."}),))


def document_of(patient: str, state: DocumentState = DocumentState.SUPERSEDED) -> FiledDocument:
    number = patient.rpartition("/")[2]
    return FiledDocument(
        f"DocumentReference/secret-{number}", SERVER, "1", RunId(f"run-{number}"), patient, state, CREATED
    )


def admission_of(patient: str) -> Admission:
    number = patient.rpartition("/")[2]
    return Admission(
        number.rjust(16, "0"), SERVER, patient, f"Encounter/{number}", location=f"Ward of {CANARY}",
        standing=Standing.FRESH, since=CREATED,
    )  # fmt: skip


@pytest.fixture
def house(url: str, tmp_path: Path) -> Iterator[House]:
    opened = open_house(url, tmp_path / "key")
    yield opened
    opened.close()


def open_house(url: str, key_file: Path, cipher: Cipher | None = None) -> House:
    cipher = cipher or open_cipher(key_file, url)
    return House(
        url, key_file, cipher, SqlStore(url, cipher), SqlAuditLog(url, cipher),
        SqlVault(url, cipher, lambda: CREATED), SqlAdmissions(url, cipher, lambda: CREATED),
    )  # fmt: skip


def sealed_values(url: str) -> list[tuple[str, bytes]]:
    """Return every sealed value in the database with its place, as bytes."""
    engine = place_of(url).engine()
    found: list[tuple[str, bytes]] = []
    with engine.connect() as connection:
        plain = MetaData()
        plain.reflect(connection, only=lambda name, _: name.startswith("epicrisis_"))
        for table in SQLModel.metadata.sorted_tables:
            sealed = [one.name for one in table.columns if isinstance(one.type, Encrypted)]
            rows = connection.execute(plain.tables[_full(plain, table.name)].select()).mappings().all()
            for row in rows:
                found += [(f"{table.name}.{name}", bytes(row[name])) for name in sealed if row[name]]
                if table.name == "epicrisis_kept":
                    place = f"{table.name}.content {row['area']} {row['key_hash']}"
                    found.append((place, bytes(row["content"])))
    engine.dispose()
    return found


def _full(metadata: MetaData, name: str) -> str:
    return next(full for full in metadata.tables if full.rpartition(".")[2] == name)


def readable(url: str, cipher: Cipher) -> list[bytes]:
    """Open all that is stored with all keys that there are."""
    database = Database(url, cipher)
    opened: list[bytes] = []
    values = sealed_values(url)
    with database.reading():
        for place, sealed in values:
            try:
                plain = database.envelope.unseal(sealed, place)
            except ShreddedError:
                continue
            opened.append(plain if place.startswith("epicrisis_kept") else zlib.decompress(plain))
    database.close()
    return opened


def versions(url: str) -> set[int]:
    return {sealed[0] for _, sealed in sealed_values(url)}


def is_told(secret: str, texts: list[bytes]) -> bool:
    return any(re.search(re.escape(secret.encode()) + rb"(?![0-9])", text) for text in texts)


def files_of(url: str, folder: Path) -> list[bytes]:
    """Return the bytes of the database's files, or of a dump of it with every value in hex, as bytes."""
    if url.startswith("sqlite"):
        return [path.read_bytes() for path in folder.glob("epicrisis.db*") if path.is_file()]
    return [repr(sealed_values(url)).encode()]


def test_what_is_about_a_patient_is_sealed_under_their_key_and_the_rest_under_the_houses(
    house: House,
) -> None:
    house.fill(ONE)
    house.fill(OTHER)
    with house.store.database.reading():
        house_id = house.store.database.envelope.of_house().id
    ids: dict[str, set[bytes]] = {}
    for place, sealed in sealed_values(house.url):
        assert sealed[0] == 2
        ids.setdefault(place.split(" ")[0], set()).add(sealed[1:9])
    for place, found in ids.items():
        of_house = place.partition(".")[0] in ("epicrisis_key_check", "epicrisis_heard", "epicrisis_source")
        assert (found == {house_id}) if of_house else (house_id not in found and len(found) == 2), place
    patients = set().union(*ids.values()) - {house_id}
    assert len(patients) == 2
    assert {
        bytes.fromhex(house.cipher.keyed_hash("patient", one))[:8] for one in (ONE, OTHER)
    } & patients == set()


def test_after_shredding_nothing_about_the_patient_is_left_and_the_others_are_whole(
    house: House, tmp_path: Path
) -> None:
    house.fill(ONE)
    house.fill(OTHER)
    assert all(is_told(secret, readable(house.url, house.cipher)) for secret in SECRETS)
    done = house.keys.shred(ONE, "asked for")
    assert (done.runs, done.documents, done.snapshots, done.again) == (1, 1, 2, False)
    opened = readable(house.url, house.cipher)
    for secret in SECRETS:
        of_both = secret in (CANARY, "MRN-4711", "Penicillin", "Diabetes")
        assert is_told(secret, opened) == of_both, secret
    assert sum(CANARY.encode() in text for text in opened) > 3
    house.store.save(replace(run_of(OTHER), run_id=RunId("run-more")))
    assert house.store.get(RunId("run-78")) is not None
    assert house.vault.get("snapshot", f"{SERVER} system:none {OTHER}") == CHART
    assert house.admissions.find_admission(SERVER, "Encounter/78") == admission_of(OTHER)
    assert [one.patient for one in house.store.documents_of(OTHER)] == [OTHER]
    assert house.audit.entries(patient=OTHER)[0].patient == OTHER


def test_with_the_only_patient_shredded_no_text_is_left_that_any_key_opens(
    house: House, tmp_path: Path
) -> None:
    house.fill(ONE)
    before = sealed_values(house.url)
    house.keys.shred(ONE, "asked for")
    opened = readable(house.url, house.cipher)
    assert not [secret for secret in SECRETS if is_told(secret, opened)]
    wrapped = [bytes(row) for row in _wrapped(house.url)]
    assert b"" in wrapped
    masters = Cipher.from_file(house.key_file, create=False)
    for place, sealed in before:  # a copy of what was sealed does not open either
        with pytest.raises(StoreError):
            masters.unseal(sealed, place)
    assert not [secret for secret in SECRETS if is_told(secret, files_of(house.url, tmp_path))]


def _wrapped(url: str) -> list[Any]:
    engine = place_of(url).engine()
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT wrapped FROM epicrisis_patient_key").scalars().all()
    engine.dispose()
    return list(rows)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_no_byte_of_a_destroyed_key_stays_in_sqlites_files(house: House, tmp_path: Path) -> None:
    house.fill(ONE)
    hashed = house.cipher.keyed_hash("patient", ONE)
    raw = sqlite3.connect(tmp_path / "epicrisis.db")
    ((wrapped,),) = raw.execute(
        "SELECT wrapped FROM epicrisis_patient_key WHERE patient_hash = ?", (hashed,)
    ).fetchall()
    ((content,),) = raw.execute("SELECT content FROM epicrisis_run").fetchall()
    raw.close()
    assert any(wrapped in found for found in files_of(house.url, tmp_path))
    house.keys.shred(ONE, "asked for")
    backup = tmp_path / "epicrisis.db.backup"
    with sqlite3.connect(tmp_path / "epicrisis.db") as source, sqlite3.connect(backup) as target:
        source.backup(target)
    source.close()
    target.close()
    house.close()
    files = files_of(house.url, tmp_path)
    assert len(files) >= 2
    for gone in (wrapped, wrapped[17:33], content[21:60]):
        assert not any(gone in found for found in files)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_dump_made_afterwards_holds_nothing_that_opens(house: House) -> None:
    house.fill(ONE)
    (wrapped,) = (bytes(one) for one in _wrapped_of(house, ONE))
    house.keys.shred(ONE, "asked for")
    assert wrapped not in [bytes(one) for one in _wrapped(house.url)]
    assert [bytes(one) for one in _wrapped_of(house, ONE)] == [b""]


def _wrapped_of(house: House, patient: str) -> list[Any]:
    engine = place_of(house.url).engine()
    hashed = house.cipher.keyed_hash("patient", patient)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT wrapped FROM epicrisis_patient_key WHERE patient_hash = '{hashed}'"
        )
        found = rows.scalars().all()
    engine.dispose()
    return list(found)


def test_everything_goes_on_and_says_shredded(house: House) -> None:
    house.fill(ONE)
    house.fill(OTHER)
    house.keys.shred(ONE, "asked for")
    rows, total = house.store.rows()
    assert total == 2
    assert {row.run_id: (row.patient_name == "Shredded", row.patient) for row in rows} == {
        "run-77": (True, ""),
        "run-78": (False, OTHER),
    }
    assert house.store.names([RunId("run-77")]) == {RunId("run-77"): "Shredded"}
    with pytest.raises(ShreddedError):
        house.store.get(RunId("run-77"))
    with pytest.raises(ShreddedError):
        house.store.find_latest(ONE, run_of(ONE).inputs.kind)
    assert house.store.find_by_key(run_of(ONE).inputs.key) is None
    assert house.store.documents_of(ONE) == []
    assert house.store.drafts() == []
    assert [one.run_id for one in house.store.find_documents(Wanted(model=run_of(ONE).inputs.model))] == [
        "run-78"
    ]
    assert house.store.find_by_source("Condition/1") == (RunId("run-78"),)
    house.store.finish(RunId("run-77"), RunState.FAILED, "DocumentReference/secret-77/_history/2", "timeout")
    assert house.store.rows()[0][-1].document in ("", "DocumentReference/secret-78/_history/1")
    house.store.put_document(replace(document_of(ONE), state=DocumentState.WITHDRAWN))
    assert house.vault.get("snapshot", f"{SERVER} system:none {ONE}") is None
    assert [one.patient for one in house.admissions.admissions(SERVER, is_open=False)] == ["", OTHER]
    assert [one.patient for one in house.admissions.admissions(SERVER)] == [OTHER]
    assert [one.content for one in house.admissions.unheeded()] != []
    assert house.admissions.cursor("poll 77") is None
    assert house.admissions.cursor("poll 78") is not None
    entries = house.audit.entries()
    assert [entry.patient for entry in entries] == [OTHER, ""]
    report = house.audit.verify()
    assert (report.is_intact, report.entries, report.shredded) == (True, 2, 1)
    house.admissions.forget_before(CREATED + timedelta(days=1))


def test_nothing_new_is_stored_about_a_shredded_patient_until_they_are_readmitted(house: House) -> None:
    house.fill(ONE)
    house.keys.shred(ONE, "asked for")
    again = replace(run_of(ONE), run_id=RunId("run-again"))
    acts: tuple[Callable[[], object], ...] = (
        lambda: house.store.save(again),
        lambda: house.vault.put("snapshot", f"{SERVER} system:none {ONE}", CHART),
        lambda: house.audit.append(AuditEntry(Action.READ, "system:cli", ONE, CREATED)),
    )
    for act in acts:
        with pytest.raises(ShreddedError):
            act()
    house.audit.append(AuditEntry(Action.WITHDRAW, "system:cli", ONE, CREATED, target="DocumentReference/5"))
    assert house.audit.entries()[0] == AuditEntry(
        Action.WITHDRAW, "system:cli", "", CREATED, target="DocumentReference/5"
    )
    house.admissions.put_admission(admission_of(ONE))
    kept = house.admissions.find_admission(SERVER, "Encounter/77")
    assert kept is not None
    assert (kept.patient, kept.encounter, kept.location, kept.reason) == ("", "", "", SHREDDED)
    assert not kept.is_open
    after = house.admissions.change_admission(
        kept.id, lambda one: replace(one, patient=ONE, standing=Standing.STALE)
    )
    assert after == kept
    assert not is_told(ONE, readable(house.url, house.cipher))
    assert house.keys.readmit(ONE)
    assert not house.keys.readmit(OTHER)
    house.store.save(again)
    assert house.store.get(RunId("run-again")) == again
    with pytest.raises(ShreddedError):
        house.store.get(RunId("run-77"))
    house.admissions.put_admission(admission_of(ONE))
    assert house.admissions.find_admission(SERVER, "Encounter/77") == admission_of(ONE)
    house.audit.append(AuditEntry(Action.READ, "system:cli", ONE, CREATED))
    report = house.audit.verify()
    assert (report.is_intact, report.shredded) == (True, 1)


def test_another_process_that_had_opened_the_key_reads_and_writes_nothing_any_more(house: House) -> None:
    house.fill(ONE)
    other = open_house(house.url, house.key_file)
    assert other.store.get(RunId("run-77")) == replace(
        run_of(ONE), state=RunState.FILED, document="DocumentReference/secret-77/_history/1"
    )
    house.keys.shred(ONE, "asked for")
    with pytest.raises(ShreddedError):
        other.store.get(RunId("run-77"))
    with pytest.raises(ShreddedError):
        other.store.save(replace(run_of(ONE), run_id=RunId("run-again")))
    assert other.vault.get("snapshot", f"{SERVER} system:none {ONE}") is None
    other.close()


def test_drafts_that_stand_are_to_be_withdrawn_first(house: House) -> None:
    house.fill(ONE)
    house.store.put_document(document_of(ONE, DocumentState.DRAFT))
    with pytest.raises(StoreError, match="1 drafts about this patient stand") as caught:
        house.keys.shred(ONE, "asked for")
    assert "--leave-drafts" in caught.value.advice
    assert house.store.get(RunId("run-77")) is not None
    house.keys.shred(ONE, "asked for", leave_drafts=True)
    assert house.store.drafts() == []


@pytest.mark.parametrize("patient", ["Patient/none", "", "Patient/", f"{CANARY} x", "Practitioner/7"])
def test_who_is_not_stored_is_not_shredded(house: House, patient: str) -> None:
    house.fill(ONE)
    with pytest.raises(StoreError) as caught:
        house.keys.shred(patient, "asked for")
    assert CANARY not in f"{caught.value.message} {caught.value.advice}"
    assert house.keys.state().shredded == 0


def test_shredding_again_removes_what_is_left(house: House) -> None:
    house.fill(ONE)
    assert not house.keys.shred(ONE, "asked for").again
    assert house.keys.shred("77", "asked for").again
    assert house.keys.state().shredded == 1


def test_a_list_of_fifty_patients_opens_each_key_once(house: House) -> None:
    for number in range(50):
        run = run_of(f"Patient/{number}")
        house.store.save(run)
    other = open_house(house.url, house.key_file)
    envelope = other.store.database.envelope
    before = envelope.unwrapped
    for _ in range(3):
        assert len(other.store.rows(50)[0]) == 50
    assert envelope.unwrapped - before == 50
    house.keys.shred("Patient/7", "asked for")
    assert [row.patient_name for row in other.store.rows(50)[0]].count("Shredded") == 1
    other.close()


def test_a_rotated_master_key_opens_everything_and_the_one_before_is_forgotten(house: House) -> None:
    house.fill(ONE)
    before = house.keys.state()
    old = house.key_file.read_bytes()
    running = open_house(house.url, house.key_file)
    assert house.keys.rotate() == 3 + 0  # the house's two, and one patient's
    after = house.keys.state()
    assert (after.behind, after.master == after.next, after.master != before.master) == (0, True, True)
    assert before.master not in house.key_file.read_text()
    running.fill(OTHER)  # a worker that knew the old key alone
    assert running.store.get(RunId("run-77")) is not None
    fresh = open_house(house.url, house.key_file)
    assert fresh.store.get(RunId("run-78")) is not None
    assert fresh.keys.state().behind == 0
    for edge in (running, fresh):
        edge.close()
    house.key_file.write_bytes(old)
    with pytest.raises(StoreError, match="key file does not hold the key"):
        open_house(house.url, house.key_file)


def test_a_rotation_waits_for_who_is_making_a_key_under_the_master_key_of_before(house: House) -> None:
    """The old master key is forgotten at the end: what is still being sealed by it would never open again."""
    rotation = threading.Thread(target=house.keys.rotate)
    with house.store.database.writing(alone=False, about=ONE) as session:
        house.store.database.envelope.seal(b"in the middle", "a place")
        session.flush()
        rotation.start()
        rotation.join(timeout=1)
        assert rotation.is_alive()
    rotation.join(timeout=10)
    state = house.keys.state()
    assert (state.behind, state.patients, state.master == state.next) == (0, 1, True)
    house.fill(ONE)
    fresh = open_house(house.url, house.key_file)
    assert fresh.store.get(RunId("run-77")) is not None
    fresh.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_shredding_waits_for_who_writes_about_the_patient(house: House) -> None:
    """Else what they store would be sealed under a key that nobody has any more."""
    house.fill(ONE)
    again = replace(run_of(ONE), run_id=RunId("run-again"))
    shredding = threading.Thread(target=house.keys.shred, args=(ONE, "asked for"))
    with house.store.database.writing(alone=False, about=ONE):
        shredding.start()
        shredding.join(timeout=2)
        assert house.keys.state().shredded == 0
    shredding.join(timeout=20)
    assert not shredding.is_alive()
    with pytest.raises(ShreddedError):
        house.store.save(again)


def test_a_prepared_key_is_used_by_the_next_rotation(house: House) -> None:
    house.fill(ONE)
    coming = house.keys.prepare()
    assert house.keys.prepare() == coming
    assert house.keys.state().next == coming != house.keys.state().master
    house.fill(OTHER)
    assert house.keys.state().behind == 0
    assert house.keys.rotate() == 4
    assert house.keys.state().master == coming


def test_two_do_not_change_the_keys_at_once(house: House) -> None:
    right = house.store.database.hold("keys")
    assert right is not None
    with pytest.raises(StoreError, match="Another process is changing the keys"):
        house.keys.rotate()
    right.close()
    assert house.keys.rotate() == 2


def old_database(url: str, key_file: Path) -> Cipher:
    """Make a database as it was before there were data keys, with everything about two patients in it."""
    opened = open_house(url, key_file)
    opened.fill(ONE)
    opened.fill(OTHER)
    database, cipher = opened.store.database, opened.cipher
    engine = place_of(url).engine()
    with database.reading(), engine.connect() as connection:
        plain = MetaData()
        plain.reflect(connection, only=lambda name, _: name.startswith("epicrisis_"))
        with engine.begin() as writing:
            _disarm(writing)
            for table in SQLModel.metadata.sorted_tables:
                sealed = [one.name for one in table.columns if isinstance(one.type, Encrypted)]
                rows = plain.tables[_full(plain, table.name)]
                (*keys,) = table.primary_key.columns
                for row in (
                    connection.execute(rows.select()).mappings().all()
                    if sealed and table.name != "epicrisis_patient_key"
                    else []
                ):
                    values = {
                        name: cipher.seal(
                            database.envelope.unseal(bytes(row[name]), f"{table.name}.{name}"),
                            f"{table.name}.{name}",
                        )
                        for name in sealed
                        if row[name] is not None
                    }
                    here = [rows.c[key.name] == row[key.name] for key in keys]
                    writing.execute(rows.update().where(*here).values(values))
            writing.execute(plain.tables[_full(plain, "epicrisis_patient_key")].delete())
            writing.execute(plain.tables[_full(plain, "epicrisis_kept")].delete())
            writing.execute(plain.tables[_full(plain, "epicrisis_key_check")].update().values(master=None))
            _arm(writing)
    engine.dispose()
    opened.close()
    return cipher


def _disarm(connection: Any) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ALTER TABLE epicrisis_audit_entry DISABLE TRIGGER ALL")
        return
    connection.exec_driver_sql("DROP TRIGGER epicrisis_audit_entry_no_update")


def _arm(connection: Any) -> None:
    if connection.dialect.name == "postgresql":
        for name in ("change", "truncate"):
            connection.exec_driver_sql(
                f"ALTER TABLE epicrisis_audit_entry ENABLE ALWAYS TRIGGER epicrisis_audit_entry_no_{name}"
            )
        return
    connection.exec_driver_sql(
        "CREATE TRIGGER epicrisis_audit_entry_no_update BEFORE UPDATE ON epicrisis_audit_entry"
        " BEGIN SELECT RAISE(ABORT, 'the audit log is append only'); END"
    )


def _is_append_only(url: str) -> bool:
    engine = place_of(url).engine()
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE epicrisis_audit_entry SET actor = 'x'")
    except Exception as error:
        return "append only" in str(error)
    finally:
        engine.dispose()
    return False


def test_a_database_from_before_the_data_keys_opens_and_is_sealed_anew(url: str, tmp_path: Path) -> None:
    cipher = old_database(url, tmp_path / "key")
    assert versions(url) == {1}
    house = open_house(url, tmp_path / "key")
    assert house.store.get(RunId("run-77")) is not None
    assert house.keys.state().old_values > 10
    before = readable(url, cipher)
    told: list[int] = []
    done = house.keys.reseal(told.append)
    assert done == told[-1] > 5
    assert versions(url) == {2}
    assert house.keys.state().old_values == 0
    assert sorted(readable(url, cipher)) == sorted(before)
    assert house.keys.reseal() == 0
    assert _is_append_only(url)
    house.keys.shred(ONE, "asked for")
    assert not is_told(ONE, readable(url, cipher))
    house.close()


def test_a_patient_of_before_the_data_keys_is_shredded_whole(url: str, tmp_path: Path) -> None:
    cipher = old_database(url, tmp_path / "key")
    house = open_house(url, tmp_path / "key")
    house.keys.shred(ONE, "asked for")
    opened = readable(url, cipher)
    for secret in ("Patient/77", "secret-77", "Encounter/77"):
        assert not is_told(secret, opened)
    assert is_told("Patient/78", opened)
    assert _is_append_only(url)
    assert house.audit.entries(patient=OTHER)[0].patient == OTHER
    assert house.keys.reseal() > 0
    assert not is_told("Patient/77", readable(url, cipher))
    house.close()


def test_a_rotation_keeps_the_master_key_that_values_of_before_the_data_keys_need(
    url: str, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    cipher = old_database(url, key)
    before = sorted(readable(url, cipher))
    (first,) = read_keys(key).keys
    house = open_house(url, key)
    assert house.keys.rotate() > 0
    second = house.keys.state().master
    assert set(read_keys(key).keys) == {first, second}
    assert sorted(readable(url, Cipher.from_file(key, create=False))) == before
    house.keys.shred(ONE, "asked for")
    assert house.keys.reseal() > 0
    assert set(read_keys(key).keys) == {second}
    opened = readable(url, Cipher.from_file(key, create=False))
    assert is_told(OTHER, opened)
    assert not is_told(ONE, opened)
    house.close()


def test_destroyed_keys_are_counted_until_nothing_is_held_that_would_open_a_copy_of_them(
    house: House,
) -> None:
    for number in range(3):
        house.store.save(run_of(f"Patient/{number}"))
    assert house.keys.state().exposed == 0
    for number in range(2):
        house.keys.shred(f"Patient/{number}", "asked for")
    house.keys.shred("Patient/1", "asked for")
    assert (house.keys.state().shredded, house.keys.state().exposed) == (2, 2)
    house.keys.prepare()
    assert house.keys.state().exposed == 2
    house.keys.rotate()
    assert (house.keys.state().shredded, house.keys.state().exposed) == (2, 0)
    house.keys.shred("Patient/2", "asked for")
    assert (house.keys.state().shredded, house.keys.state().exposed) == (3, 1)


def test_with_master_keys_from_outside_a_destroyed_key_is_counted_until_the_old_one_is_given_no_more(
    url: str, tmp_path: Path
) -> None:
    old, new = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))

    def room(current: str, previous: str = "") -> KeyRoom:
        database = Database(url, open_cipher(tmp_path / "key", url, current, previous))
        return KeyRoom(database, lambda: CREATED)

    store = SqlStore(url, open_cipher(tmp_path / "key", url, old))
    store.save(run_of(ONE))
    store.close()
    first, second = room(old), room(new, old)
    first.shred(ONE, "asked for")
    assert first.state().exposed == 1
    second.rotate()
    assert second.state().exposed == 1
    last = room(new)
    assert last.state().exposed == 0
    for one in (first, second, last):
        one._database.close()


def test_the_keys_of_the_house_stand_under_names_that_other_versions_know(house: House) -> None:
    house.fill(ONE)
    engine = place_of(house.url).engine()
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT patient_hash, wrapped FROM epicrisis_patient_key").all()
    engine.dispose()
    names = {name for name, _ in rows}
    assert names == {"house", "lookup", house.cipher.keyed_hash("patient", ONE)}
    (master,) = read_keys(house.key_file).keys
    assert {bytes(wrapped)[:5].hex() for _, wrapped in rows} == {f"01{master}"}
    assert {len(wrapped) for _, wrapped in rows} == {1 + 4 + 12 + 32 + 16}


def test_another_key_is_refused_before_anything_is_written(house: House, tmp_path: Path) -> None:
    house.fill(ONE)
    house.close()
    before = sealed_values(house.url)
    other = Cipher.from_file(tmp_path / "other")
    with pytest.raises(StoreError, match="key file does not hold the key"):
        SqlStore(house.url, other)
    assert sealed_values(house.url) == before
