"""Generations and their logs in both databases: who makes one, what is told, what nobody adds later."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from service.errors import ShreddedError, StoreError
from service.ports.ondemand import (
    Asked,
    Generation,
    GenerationId,
    GenerationState,
    Maker,
    Told,
    ToldKind,
)
from service.store.cipher import Cipher
from service.store.database import open_cipher
from service.store.keys import KeyRoom
from service.store.ondemand import SqlGenerations
from tests.conftest import CANARY

NOW = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)
ASKED = Asked(
    "https://ehr.example/fhir", "Patient/77", "history", "Encounter/9", "user:abc", "user:1", "Practitioner/7"
)
TABLES = ("epicrisis_generation", "epicrisis_told", "epicrisis_answer")


def generation(number: int = 1, **asked: object) -> Generation:
    return Generation(
        GenerationId(f"{number:032x}"),
        replace(ASKED, **asked),  # type: ignore[arg-type]
        GenerationState.QUEUED,
        NOW + timedelta(minutes=number),
    )


def claim(seq: int, said: str = "Asthma") -> Told:
    return Told(seq, ToldKind.CLAIM, {"section": "problem", "text": said, "cites": ["Condition/1"]})


DONE = Told(3, ToldKind.DONE, {"run_id": "run-1"})


@pytest.fixture
def kept(url: str, cipher: Cipher) -> Iterator[SqlGenerations]:
    opened = SqlGenerations(url, cipher)
    yield opened
    opened.close()


def begun(kept: SqlGenerations, number: int = 1, maker: str = "a", **asked: object) -> Generation:
    one = generation(number, **asked)
    assert kept.join(one, Maker(maker, number)) == one
    assert kept.begin(one.id, maker)
    return one


def test_a_generation_comes_back_as_it_was_asked_for(kept: SqlGenerations) -> None:
    one = generation()
    assert kept.under_way(ASKED) is None
    assert kept.join(one, Maker("a", 3)) == one
    assert kept.get_generation(one.id) == one
    assert kept.under_way(ASKED) == one
    assert kept.maker_of(one.id) == Maker("a", 3)
    assert kept.begin(one.id, "a")
    assert kept.get_generation(one.id) == replace(one, state=GenerationState.RUNNING)
    assert kept.get_generation(GenerationId("0" * 32)) is None


def test_who_asks_for_the_same_joins_whoever_they_are(kept: SqlGenerations) -> None:
    one = begun(kept)
    again = generation(2, actor="user:2", by="Practitioner/8")
    assert kept.join(again, Maker("b", 2)).id == one.id
    assert kept.get_generation(again.id) is None


@pytest.mark.parametrize(
    "other",
    [
        {"server": "https://other.example/fhir"}, {"patient": "Patient/78"}, {"kind": "handover"},
        {"encounter": ""}, {"access_profile": "user:abd"}, {"attempt_wanted": True},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_who_asks_for_something_else_shares_nothing(kept: SqlGenerations, other: dict[str, object]) -> None:
    begun(kept)
    assert kept.under_way(replace(ASKED, **other)) is None  # type: ignore[arg-type]
    begun(kept, 2, "b", **other)


def test_one_that_has_ended_is_not_joined(kept: SqlGenerations) -> None:
    one = begun(kept)
    ended = replace(one, state=GenerationState.FAILED, error="engine")
    assert kept.end(ended, "a", Told(1, ToldKind.FAILED, {"error": "engine"}), NOW)
    assert kept.under_way(ASKED) is None
    assert kept.maker_of(one.id) is None
    assert kept.get_generation(one.id) == ended
    begun(kept, 2, "b")


def join_many(url: str, key: str, number: int) -> str:
    store = SqlGenerations(url, open_cipher(Path(key), url))
    try:
        with ThreadPoolExecutor(4) as threads:
            found = threads.map(
                lambda n: store.join(generation(n), Maker(f"{n}", n)).id,
                range(number * 4 + 1, number * 4 + 5),
            )
            return " ".join(sorted(set(found)))
    finally:
        store.close()


def test_of_many_processes_that_ask_at_once_one_makes_it(
    kept: SqlGenerations, url: str, tmp_path: Path
) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.starmap(join_many, [(url, str(tmp_path / "key"), number) for number in range(3)])
    assert len(set(found)) == 1
    assert " " not in found[0]


def test_what_is_told_is_read_from_any_number_on_in_order(kept: SqlGenerations) -> None:
    one = begun(kept)
    assert kept.told(one.id) == ((), GenerationState.RUNNING) or kept.told(one.id) == (
        [],
        GenerationState.RUNNING,
    )
    stage = Told(1, ToldKind.STAGE, {"stage": "fetch", "detail": "12 resources"})
    assert kept.tell(one.id, "a", [stage, claim(2)])
    assert list(kept.told(one.id)[0]) == [stage, claim(2)]
    assert list(kept.told(one.id, 1)[0]) == [claim(2)]
    found = kept.get_generation(one.id)
    assert found is not None
    assert found.stage == "fetch"
    done = replace(one, state=GenerationState.DONE, run_id="run-1")
    assert kept.end(done, "a", DONE, NOW)
    assert kept.told(one.id, 2) == ([DONE], GenerationState.DONE)
    assert kept.told(GenerationId("0" * 32)) == ((), None)


def test_what_has_ended_stays_as_it_ended(kept: SqlGenerations) -> None:
    one = begun(kept)
    assert kept.end(replace(one, state=GenerationState.CANCELLED), "a", replace(DONE, seq=1), NOW)
    assert not kept.tell(one.id, "a", [claim(2)])
    assert not kept.end(replace(one, state=GenerationState.DONE), "a", replace(DONE, seq=2), NOW)
    assert not kept.begin(one.id, "a")
    assert len(kept.told(one.id)[0]) == 1


def test_one_whose_maker_is_gone_is_taken_over_once_and_the_former_maker_adds_nothing(
    kept: SqlGenerations,
) -> None:
    one = begun(kept)
    kept.tell(one.id, "a", [claim(1), claim(2, "Gout")])
    taken = kept.take_over(one.id, Maker("a", 1), Maker("b", 1))
    assert taken is not None
    assert (taken.generation.id, taken.last, taken.makers) == (one.id, 2, 2)
    assert taken.claims == {("problem", "Asthma"), ("problem", "Gout")}
    assert kept.take_over(one.id, Maker("a", 1), Maker("c", 1)) is None
    assert not kept.tell(one.id, "a", [claim(3)])
    assert kept.beats(one.id, "a") is None
    assert not kept.end(replace(one, state=GenerationState.DONE), "a", DONE, NOW)
    assert kept.tell(one.id, "b", [claim(3, "Migraine")])


def test_a_lock_that_was_taken_by_another_says_that_the_former_maker_is_gone(kept: SqlGenerations) -> None:
    one = begun(kept)
    kept.join(generation(2, kind="handover"), Maker("b", 1))
    assert kept.maker_of(one.id) == Maker("a", -1)
    third = begun(kept, 3, "c", kind="problems")
    kept.take_over(one.id, Maker("a", -1), Maker("d", 3))
    assert kept.maker_of(third.id) == Maker("c", -1)
    assert kept.maker_of(one.id) == Maker("d", 3)


def test_signs_of_life_are_counted_until_it_ends(kept: SqlGenerations) -> None:
    one = begun(kept)
    assert kept.beats(one.id, "a") == (0, True)
    kept.beat(one.id)
    kept.beat(one.id)
    assert kept.beats(one.id, "a") == (2, True)
    kept.stop(one.id)
    assert kept.beats(one.id, "a") == (2, False)
    assert not kept.begin(one.id, "a")
    kept.beat(GenerationId("0" * 32))
    assert kept.beats(GenerationId("0" * 32), "a") is None


def test_a_readers_generations_are_listed_page_by_page(kept: SqlGenerations) -> None:
    kinds = ["history", "handover", "problems", "admission", "other"]
    for number, kind in enumerate(kinds, 1):
        begun(kept, number, str(number), kind=kind)
    begun(kept, 6, "6", access_profile="user:other")
    begun(kept, 7, "7", patient="Patient/78")
    seen: list[str] = []
    cursor: int | None = None
    for _ in range(3):
        page, cursor = kept.generations_about(ASKED.server, "Patient/77", "user:abc", 2, cursor)
        seen += [one.asked.kind for one in page]
    assert seen == kinds[::-1]
    assert cursor is None


def test_what_ended_long_ago_is_forgotten_and_what_never_ended_too(kept: SqlGenerations) -> None:
    old, new, stuck = begun(kept), begun(kept, 2, "b", kind="handover"), begun(kept, 3, "c", kind="problems")
    for one, maker, at in ((old, "a", NOW), (new, "b", NOW + timedelta(hours=2))):
        kept.tell(one.id, maker, [claim(1)])
        kept.end(replace(one, state=GenerationState.DONE), maker, replace(DONE, seq=2), at)
    kept.put_answer("key", "body", "{}", "Patient/77", NOW)
    assert kept.forget_generations(NOW + timedelta(hours=1)) == 2
    assert kept.get_generation(old.id) is None
    assert kept.get_generation(stuck.id) is None
    assert kept.told(old.id) == ((), None)
    assert len(kept.told(new.id)[0]) == 2
    with kept.database.reading() as session:
        assert session.execute(text("SELECT count(*) FROM epicrisis_told")).scalar_one() == 2
        assert session.execute(text("SELECT count(*) FROM epicrisis_answer")).scalar_one() == 0


def test_the_first_answer_to_a_key_stays_for_its_time(kept: SqlGenerations) -> None:
    kept.put_answer("user:1\nkey", "body", '{"id": 1}', "Patient/77", NOW)
    kept.put_answer("user:1\nkey", "other", '{"id": 2}', "Patient/77", NOW)
    assert kept.get_answer("user:1\nkey", NOW - timedelta(seconds=1)) == ("body", '{"id": 1}')
    assert kept.get_answer("user:2\nkey", NOW - timedelta(seconds=1)) is None
    assert kept.get_answer("user:1\nkey", NOW) is None
    kept.put_answer("user:1\nkey", "other", '{"id": 2}', "Patient/77", NOW)
    assert kept.get_answer("user:1\nkey", NOW - timedelta(seconds=1)) == ("other", '{"id": 2}')


def cells(kept: SqlGenerations) -> bytes:
    """Everything that lies in the three tables, as bytes."""
    with kept.database.reading() as session:
        rows = [row for name in TABLES for row in session.execute(text(f"SELECT * FROM {name}"))]
    return b" ".join(
        value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row
    )


def fill(kept: SqlGenerations) -> Generation:
    one = begun(kept, encounter="Encounter/9")
    kept.tell(one.id, "a", [claim(1, f"{CANARY} has asthma")])
    kept.put_answer("user:1\nkey", "body", f'{{"patient": "{CANARY}"}}', "Patient/77", NOW)
    return one


def test_nothing_of_a_patient_or_of_who_asked_lies_in_the_open(kept: SqlGenerations) -> None:
    fill(kept)
    found = cells(kept)
    assert b"history" not in found
    for said in (CANARY, "Patient/77", "Encounter/9", "user:", "Practitioner", "ehr.example"):
        assert said.encode() not in found


def test_shredding_a_patient_leaves_nothing_and_ends_what_is_under_way(
    kept: SqlGenerations, tmp_path: Path
) -> None:
    one, other = fill(kept), begun(kept, 2, "b", patient="Patient/78")
    KeyRoom(kept.database, lambda: NOW, tmp_path / "key").shred("Patient/77", "asked for")
    assert kept.get_generation(one.id) is None
    assert kept.told(one.id) == ((), None)
    assert kept.beats(one.id, "a") is None
    assert not kept.tell(one.id, "a", [claim(2)])
    assert kept.get_answer("user:1\nkey", NOW - timedelta(hours=1)) is None
    assert kept.get_generation(other.id) is not None
    with pytest.raises(ShreddedError):
        kept.join(generation(3), Maker("c", 3))


def test_an_event_that_was_moved_to_another_log_is_refused(kept: SqlGenerations) -> None:
    one, other = fill(kept), begun(kept, 2, "b", kind="handover")
    kept.tell(other.id, "b", [claim(1, "Gout")])
    with kept.database.writing() as session:
        session.execute(
            text(
                "UPDATE epicrisis_told SET content = (SELECT content FROM epicrisis_told"
                " WHERE generation_id = :other) WHERE generation_id = :one"
            ),
            {"one": one.id, "other": other.id},
        )
    with pytest.raises(StoreError, match="changed"):
        kept.told(one.id)


def test_text_that_is_no_text_is_refused_and_hostile_text_comes_back(kept: SqlGenerations) -> None:
    one = begun(kept)
    hostile = "\n\ndata: {}\r\nevent: done\x00\u2028</script>\u202e'; DROP TABLE"
    assert kept.tell(one.id, "a", [claim(1, hostile)])
    assert kept.told(one.id)[0][0].data["text"] == hostile
    with pytest.raises(StoreError):
        kept.tell(one.id, "a", [claim(2, "\ud800")])
    assert len(kept.told(one.id)[0]) == 1


HOLDER = """
    import sys, time
    from pathlib import Path
    from service.store.cipher import Cipher
    from service.store.ondemand import SqlGenerations

    store = SqlGenerations(sys.argv[1], Cipher.from_file(Path(sys.argv[2]), create=False))
    right = store.hold_slot(7)
    print("held" if right else "not held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_maker_ends_with_its_process(kept: SqlGenerations, url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), url, str(tmp_path / "key")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert kept.hold_slot(7) is None
        other = kept.hold_slot(8)
        assert other is not None
        other.close()
        process.kill()
        process.wait()
    for _ in range(200):  # PostgreSQL notices a moment later
        right = kept.hold_slot(7)
        if right is not None:
            break
    assert right is not None
    right.close()
