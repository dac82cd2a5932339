"""Which stored run a page shows: the newest of this chart that nobody took back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.errors import ShreddedError
from service.ports import DocumentState, FiledDocument, FilingStore, RunId, RunState, StoredRun
from service.store.cipher import Cipher
from service.store.database import open_cipher
from service.store.keys import KeyRoom
from service.store.sql import SqlStore
from tests.unit.api.in_memory import InMemoryStore
from tests.unit.writeback.charts import CREATED, make_run

SERVER = make_run().inputs.server
PATIENT = "Patient/77"


def run_of(number: int, **inputs: Any) -> StoredRun:
    run = make_run(run_id=RunId(f"run-{number}"), created_at=CREATED + timedelta(minutes=number))
    return replace(run, inputs=replace(run.inputs, **inputs))


def document_of(number: int, state: DocumentState, name: str = "") -> FiledDocument:
    return FiledDocument(
        f"DocumentReference/{name or number}", SERVER, "1", RunId(f"run-{number}"), PATIENT, state, CREATED
    )


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FilingStore]:
    """The store in either database, and the double that other tests take for one."""
    if request.param == "memory":
        yield InMemoryStore()
        return
    url = f"sqlite:///{tmp_path}/epicrisis.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").ready_database()
    opened = SqlStore(url, open_cipher(tmp_path / "key", url))
    yield opened
    opened.close()


def shown(store: FilingStore, encounter: str = "", reader: str = "", **other: str) -> str | None:
    asked = {"server": SERVER, "patient": PATIENT, "kind": "history"} | other
    run = store.newest(asked["server"], asked["patient"], asked["kind"], encounter, reader)
    return None if run is None else run.run_id


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)])
def test_the_newest_run_is_shown_whatever_the_order_of_saving(
    kept: FilingStore, order: tuple[int, ...]
) -> None:
    for number in order:
        kept.save(run_of(number))
    assert kept.newest(SERVER, PATIENT, "history") == run_of(3)


def test_of_another_server_patient_or_kind_none_is_shown(kept: FilingStore) -> None:
    kept.save(run_of(1))
    assert shown(kept) == "run-1"
    assert shown(kept, server="http://127.0.0.1:2/fhir") is None
    assert shown(kept, patient="Patient/7") is None
    assert shown(kept, kind="handover") is None


def test_the_same_id_on_another_server_hides_nothing(kept: FilingStore) -> None:
    kept.save(run_of(1))
    kept.save(run_of(2, server="http://127.0.0.1:2/fhir"))
    assert shown(kept) == "run-1"


@pytest.mark.parametrize("state", [state for state in RunState if state is not RunState.FAILED])
def test_a_run_is_shown_however_it_ended_but_for_one_that_failed(kept: FilingStore, state: RunState) -> None:
    for number in (1, 2, 3):
        kept.save(run_of(number))
    kept.finish(RunId("run-2"), state)
    kept.finish(RunId("run-3"), RunState.FAILED, error="engine")
    assert shown(kept) == "run-2"


def test_a_withdrawn_run_is_not_shown_and_the_one_before_it_is(kept: FilingStore) -> None:
    for number in (1, 2):
        kept.save(run_of(number))
        kept.put_document(document_of(number, DocumentState.DRAFT))
    assert shown(kept) == "run-2"
    kept.put_document(document_of(2, DocumentState.WITHDRAWN))
    assert shown(kept) == "run-1"
    kept.put_document(document_of(1, DocumentState.WITHDRAWN))
    assert shown(kept) is None


def test_an_attested_run_is_shown_until_its_text_is_withdrawn(kept: FilingStore) -> None:
    kept.save(run_of(1))
    kept.put_document(document_of(1, DocumentState.SUPERSEDED))
    kept.put_document(document_of(1, DocumentState.ATTESTED, "final"))
    assert shown(kept) == "run-1"
    kept.put_document(document_of(1, DocumentState.WITHDRAWN, "final"))
    assert shown(kept) is None


def test_a_run_is_of_its_encounter_or_of_none(kept: FilingStore) -> None:
    kept.save(run_of(1))
    kept.save(run_of(2, encounter="Encounter/9"))
    kept.save(run_of(3, encounter="Encounter/8"))
    found = {at: shown(kept, at) for at in ("", "Encounter/9", "Encounter/8", "Encounter/7")}
    assert found == {"": "run-3", "Encounter/9": "run-2", "Encounter/8": "run-3", "Encounter/7": "run-1"}


def test_what_another_user_read_is_shown_to_nobody_else(kept: FilingStore) -> None:
    kept.save(run_of(1, access_profile="system:smart:epicrisis"))
    kept.save(run_of(2, access_profile="user:aa"))
    kept.save(run_of(3, access_profile="user:bb"))
    found = {reader: shown(kept, reader=reader) for reader in ("", "user:aa", "user:bb", "user:cc")}
    assert found == {"": "run-1", "user:aa": "run-2", "user:bb": "run-3", "user:cc": "run-1"}


def test_of_a_shredded_patient_nothing_is_shown_and_after_readmission_what_is_new(
    store: SqlStore, cipher: Cipher, tmp_path: Path
) -> None:
    store.save(run_of(1))
    store.save(run_of(2, patient="Patient/8"))
    keys = KeyRoom(store.database, lambda: CREATED, tmp_path / "key")
    keys.shred(PATIENT, "asked for")
    with pytest.raises(ShreddedError):
        shown(store)
    assert shown(store, patient="Patient/8") == "run-2"
    keys.readmit(PATIENT)
    assert shown(store) is None
    store.save(run_of(3))
    assert shown(store) == "run-3"


def test_a_missing_run_is_none(kept: FilingStore) -> None:
    assert shown(kept) is None
