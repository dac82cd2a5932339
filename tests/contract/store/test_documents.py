"""What every DocumentStore keeps of filed documents and stops."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.ports import DocumentState, FiledDocument, RunId, Stop, StopScope, StoredRun, Wanted
from service.store.database import open_cipher
from service.store.sql import SqlStore
from tests.conftest import CANARY
from tests.unit.writeback.charts import CREATED, make_run, varied

SERVER = "http://127.0.0.1:1/fhir"


def run_of(number: int, **inputs: Any) -> StoredRun:
    run = make_run(run_id=RunId(f"run-{number}"), created_at=CREATED + timedelta(days=number))
    return replace(run, inputs=replace(run.inputs, **inputs))


def document_of(number: int, **more: object) -> FiledDocument:
    given = FiledDocument(
        f"DocumentReference/{number}", SERVER, "1", RunId(f"run-{number}"), "Patient/77",
        DocumentState.DRAFT, CREATED, CREATED + timedelta(hours=72), reason=CANARY,
        dropped=("Device",),
    )  # fmt: skip
    return replace(given, **more)  # type: ignore[arg-type]


def test_a_document_comes_back_whole_and_the_last_that_is_known_of_it(store: SqlStore) -> None:
    store.put_document(document_of(1))
    assert store.get_document(SERVER, "DocumentReference/1") == document_of(1)
    attested = document_of(1, state=DocumentState.ATTESTED, attested_by="Practitioner/7", version="2")
    store.put_document(attested)
    assert store.get_document(SERVER, "DocumentReference/1") == attested
    assert store.documents_of("Patient/77") == [attested]
    assert store.get_document("http://127.0.0.1:2/fhir", "DocumentReference/1") is None


def test_documents_of_a_patient_are_newest_first_and_drafts_oldest_first(store: SqlStore) -> None:
    for number in (1, 2, 3):
        store.put_document(document_of(number))
    store.put_document(document_of(4, patient="Patient/7"))
    store.put_document(document_of(2, state=DocumentState.WITHDRAWN))
    assert [d.run_id for d in store.documents_of("Patient/77")] == ["run-3", "run-2", "run-1"]
    assert [d.run_id for d in store.drafts()] == ["run-1", "run-3", "run-4"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(model="f" * 64), [1, 3]),
        (Wanted(model="google/medgemma-1.5-4b-it"), [1, 2, 3]),
        (Wanted(prompt_id="history"), [1, 2, 3]),
        (Wanted(prompt_id="history", prompt_version="4"), [3]),
        (Wanted(source="Observation/a1c"), [1, 2]),
        (Wanted(source="Observation/a1c", source_version="3"), [1, 2]),
        (Wanted(source="Observation/a1c", source_version="2"), []),
        (Wanted(after=CREATED + timedelta(days=2)), [2, 3]),
        (Wanted(after=CREATED + timedelta(days=1), before=CREATED + timedelta(days=3)), [1, 2]),
    ],
)
def test_documents_are_found_by_what_their_runs_used(
    store: SqlStore, wanted: Wanted, found: list[int]
) -> None:
    runs = (run_of(1), run_of(2, model_digest="0" * 64), run_of(3, prompt_version="4"))
    for number, run in enumerate(runs, 1):
        store.save(varied(run, facts=(), sections=(), refused=()) if number == 3 else run)
        store.put_document(document_of(number))
    assert [int(d.run_id[4:]) for d in store.find_documents(wanted)] == found


def test_templates_are_found_by_name_and_version(store: SqlStore) -> None:
    store.save(run_of(1))
    store.save(run_of(2, prompt_version="4", template_digest="4" * 64))
    assert store.find_templates("history", "3") == ("b" * 64,)
    assert store.find_templates("history", "5") == ()


def test_a_stop_lasts_until_it_is_lifted(store: SqlStore) -> None:
    all_of_it = Stop(StopScope.ALL, "", CREATED, "system:cli", "test")
    ward = Stop(StopScope.WARD, f"Ward {CANARY}", CREATED, "system:cli")
    store.add_stop(all_of_it)
    store.add_stop(ward)
    assert store.stops() == (all_of_it, ward)
    assert store.lift_stop(StopScope.WARD, "elsewhere", "x", CREATED) == 0
    assert store.lift_stop(StopScope.WARD, ward.value, "x", CREATED) == 1
    assert store.stops() == (all_of_it,)


def test_nothing_of_a_document_or_ward_lies_open(store: SqlStore, tmp_path: Path) -> None:
    store.put_document(document_of(1))
    store.add_stop(Stop(StopScope.WARD, f"Ward {CANARY}", CREATED, "system:cli", CANARY))
    store.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("epicrisis.db*") if path.is_file())
    for word in (CANARY, "Patient/77", "DocumentReference/1"):
        assert word.encode() not in stored


def test_one_at_a_time_files_under_a_key(store: SqlStore) -> None:
    held = store.hold("a" * 64)
    assert held is not None
    assert store.hold("a" * 64) is None
    other = store.hold("b" * 64)
    assert other is not None
    other.close()
    held.close()
    again = store.hold("a" * 64)
    assert again is not None
    again.close()


def _hold_and_die(url: str, key_file: Path) -> None:
    import os
    import signal

    held = SqlStore(url, open_cipher(key_file, url)).hold("a" * 64)
    assert held is not None
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_leaves_no_lock_behind(store: SqlStore, url: str, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(url, tmp_path / "key"))
    process.start()
    process.join(60)
    assert process.exitcode == -9
    held = store.hold("a" * 64)
    assert held is not None
    held.close()
