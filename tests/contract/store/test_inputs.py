"""The inputs of runs, kept alike in SQLite and in PostgreSQL: shared, forgotten, pruned and destroyed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlmodel import col

from connectors.fhir.codec import decode, encode
from connectors.fhir.packed import Packed
from connectors.fhir.pull import Gap, GapReason
from fixtures.charts import canary_resources
from fixtures.facts import NOW
from service.context.templates import load, rebuild
from service.engine.scripted import SCRIPTED_PROFILE
from service.errors import ShreddedError
from service.ports import RunId, StoredRun
from service.ports.inputs import Decided, KeptClaim, KeptDigest, Made
from service.record.assemble import Policy
from service.record.facts import Extracted, FactId
from service.store.cipher import Cipher
from service.store.inputs import InputPartTable, RunInputTable, SqlInputs, TemplateTable
from service.store.sql import SqlStore
from tests.conftest import CANARY
from tests.contract.store.test_patient_keys import ONE, OTHER, House, open_house, run_of

MANY = 300


@pytest.fixture
def house(url: str, tmp_path: Path) -> Iterator[House]:
    made = open_house(url, tmp_path / "key")
    yield made
    made.close()


def chart(more: int = 0) -> list[dict[str, Any]]:
    values = [
        {"resourceType": "Observation", "id": f"o{n}", "valueQuantity": {"value": n}}
        for n in range(MANY + more)
    ]
    chart: list[dict[str, Any]] = decode(encode([*canary_resources("1"), *values]))
    return chart


def made(resources: list[dict[str, Any]]) -> Made:
    decided = Decided(
        patient_id="1",
        gaps=(Gap("Observation", GapReason.TIMED_OUT, "slow"),),
        read_at=NOW,
        base_url="http://127.0.0.1:1/fhir",
        policy=Policy(time_zone="Europe/Berlin", note_types=frozenset({("a", "b")})),
        profile=replace(SCRIPTED_PROFILE, strip=("x",)),
        seed=3,
        counts={"0123456789abcdef": 812},
        digests=(KeptDigest("2019", (KeptClaim(f"Said of {CANARY}", (FactId("Observation/o1"),)),)),),
        earlier="run-0",
        software="1",
        code="abc",
    )
    binaries = {"http://x/Binary/1": b"%PDF " + CANARY.encode() * 9, "http://x/Binary/2": b""}
    texts = {"k1": Extracted(f"Note about {CANARY}"), "k2": Extracted("", "text not read")}
    return Made(decided, Packed(resources), binaries, texts, load("history").sources)


def in_order(resources: Packed) -> list[Any]:
    return sorted(resources, key=lambda one: (one["resourceType"], one["id"]))


def run(number: int, patient: str = ONE) -> StoredRun:
    at = NOW + timedelta(days=number)
    return replace(run_of(patient), run_id=RunId(f"made-{number}"), created_at=at)


def count(store: SqlStore, table: Any) -> int:
    with store.database.reading() as session:
        return int(session.execute(select(func.count()).select_from(table)).scalar_one())


def test_what_goes_in_comes_out(house: House) -> None:
    inputs, given = SqlInputs(house.store), made(chart())
    assert inputs.save(run(1), given)
    found = inputs.inputs_of(run(1))
    assert found is not None
    assert found.decided == given.decided
    assert (found.binaries, found.texts) == (given.binaries, given.texts)
    assert in_order(found.resources) == in_order(given.resources)
    assert rebuild(found.templates).digest == load("history").digest
    assert house.store.get(RunId("made-1")) is not None
    assert inputs.inputs_of(run(2)) is None


def test_a_second_run_of_a_chart_with_one_new_resource_keeps_little_more(house: House) -> None:
    inputs = SqlInputs(house.store)
    inputs.save(run(1), made(chart()))
    first = count(house.store, InputPartTable)
    inputs.save(run(2), made(list(reversed(chart()))))
    assert count(house.store, InputPartTable) == first
    inputs.save(run(3), made(chart(more=1)))
    assert count(house.store, InputPartTable) == first + 1
    inputs.save(run(4, OTHER), made(chart()))  # nobody shares with another patient
    assert count(house.store, InputPartTable) == first * 2 + 1
    assert count(house.store, TemplateTable) == 1
    found = inputs.inputs_of(run(3))
    assert found is not None
    assert len(found.resources) == len(chart(more=1))


def test_forgetting_the_inputs_of_a_run_leaves_the_run_and_what_others_share(house: House) -> None:
    inputs = SqlInputs(house.store)
    inputs.save(run(1), made(chart()))
    first = count(house.store, InputPartTable)
    inputs.save(run(2), made(chart(more=1)))
    inputs.forget(RunId("made-2"))
    inputs.forget(RunId("made-2"))
    assert count(house.store, InputPartTable) == first
    assert inputs.inputs_of(run(2)) is None
    assert inputs.inputs_of(run(1)) is not None
    assert house.store.get(RunId("made-2")) is not None


def test_what_is_old_goes_and_what_a_newer_run_shares_stays(house: House) -> None:
    inputs = SqlInputs(house.store)
    inputs.save(run(2), made(chart()))
    inputs.save(run(1), made(chart(more=1)))  # made before, stored after: it makes nothing look older
    assert inputs.prune(NOW + timedelta(days=2)) == 1
    found = inputs.inputs_of(run(2))
    assert found is not None
    assert len(found.resources) == len(chart())
    assert inputs.inputs_of(run(1)) is None
    assert inputs.prune(NOW + timedelta(days=3)) == 1
    assert [count(house.store, one) for one in (RunInputTable, InputPartTable, TemplateTable)] == [0, 0, 0]
    assert house.store.get(RunId("made-1")) is not None


def test_of_a_shredded_patient_nothing_is_left_and_of_others_all(house: House) -> None:
    inputs = SqlInputs(house.store)
    inputs.save(run(1), made(chart()))
    inputs.save(run(2, OTHER), made(chart()))
    rest = count(house.store, InputPartTable) // 2
    house.keys.shred(ONE, "asked for", leave_drafts=True)
    assert (count(house.store, RunInputTable), count(house.store, InputPartTable)) == (1, rest)
    assert inputs.inputs_of(run(2, OTHER)) is not None
    with pytest.raises(ShreddedError):
        inputs.save(run(3), made(chart()))


def test_parts_and_lists_are_sealed_and_their_names_say_nothing(house: House) -> None:
    inputs = SqlInputs(house.store)
    inputs.save(run(1), made(chart()))
    with house.store.database.reading() as session:
        rows = session.execute(select(InputPartTable.__table__)).all()  # type: ignore[attr-defined]
        hashed = house.store.database.hash_of(ONE)
        key_id = house.store.database.envelope._last(hashed).id  # type: ignore[union-attr]
        lists = session.execute(select(func.hex(col(RunInputTable.content)))) if _is_sqlite(house) else None
        listed = lists.scalar_one() if lists is not None else f"02{key_id}"
    assert rows
    assert all(row.content[:9] == b"\x02" + bytes.fromhex(key_id) for row in rows)
    assert listed.lower().startswith(f"02{key_id}")
    assert not any(CANARY.encode() in row.content for row in rows)


def _is_sqlite(house: House) -> bool:
    return house.store.database.engine.dialect.name == "sqlite"


def test_a_run_that_cannot_keep_its_inputs_is_stored(house: House, cipher: Cipher) -> None:
    inputs = SqlInputs(house.store)
    endless = made(chart())
    assert not inputs.save(run(1), replace(endless, binaries={"http://x": "no bytes"}))  # type: ignore[dict-item]
    assert house.store.get(RunId("made-1")) is not None
    assert inputs.inputs_of(run(1)) is None
