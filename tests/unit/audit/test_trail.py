"""A trail that was changed in any way is found out, and one that was not is never accused."""

from __future__ import annotations

import random
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from service.audit.chain import (
    Anchors,
    Kind,
    Link,
    Report,
    Row,
    TrailKeys,
    check_trail,
    digest_of,
    key_id_of,
    make_genesis,
    make_link,
    sealed_bytes,
)
from service.store.cipher import Cipher
from service.store.database import open_cipher
from service.store.trail import _TYPES, SqlAuditLog, _rows, keys_of
from tests.unit.audit.trails import Destructible, Ticking, entry_of, fill, open_log

ENTRY, LINK = "epicrisis_audit_entry", "epicrisis_audit_link"
OPEN_TEXTS = ("action", "actor", "outcome", "run_id", "patient_hash", "server")
SEALED = ("patient", "target", "on_behalf")


@dataclass
class Bench:
    """A log that four writers filled, and its file without the triggers, as an intruder has it."""

    log: SqlAuditLog
    cipher: Cipher
    keys: Destructible
    raw: sqlite3.Connection
    anchors: Anchors
    last: int

    @property
    def last_anchored(self) -> int:
        return max(self.anchors.hashes)

    def check(self) -> Report:
        return self.log.verify()

    def restore(self) -> None:
        """Undo what the intruder did."""
        for table in (ENTRY, LINK):
            self.raw.execute(f"DELETE FROM {table}")
            self.raw.execute(f"INSERT INTO {table} SELECT * FROM saved.{table}")

    def one(self, statement: str, *values: object) -> tuple[object, ...]:
        found: tuple[object, ...] = self.raw.execute(statement, values).fetchone()
        return found

    def text(self, column: str, sealed: bytes) -> str | None:
        with self.log.database.reading() as session:
            return _TYPES[column].process_result_value(sealed, session.connection().dialect)

    def entry(self, number: int) -> int:
        (found,) = self.one(f"SELECT entry FROM {LINK} WHERE number = ?", number)
        assert isinstance(found, int)
        return found


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("trail")
    url = f"sqlite:///{folder}/e.db"
    cipher = open_cipher(folder / "key", url)
    keys, anchors = Destructible(), folder / "anchors"
    log = open_log(url, cipher, anchors, Ticking(), keys)
    fill(log, 12)
    raw = sqlite3.connect(folder / "e.db", isolation_level=None)
    for name in ("synchronous=OFF", "busy_timeout=10000"):
        raw.execute(f"PRAGMA {name}").close()
    for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        raw.execute(f"DROP TRIGGER {name}")
    raw.execute("DROP INDEX ix_epicrisis_audit_link_entry")
    raw.execute("ATTACH ':memory:' AS saved")
    for table in (ENTRY, LINK):
        raw.execute(f"CREATE TABLE saved.{table} AS SELECT * FROM main.{table}")
    (last,) = raw.execute(f"SELECT max(number) FROM {LINK}").fetchone()
    read = log._anchors
    assert read is not None
    yield Bench(log, cipher, keys, raw, read.read(), last)
    log.close()
    raw.close()


Act = Callable[[Bench, random.Random], str]


def _somewhere(bench: Bench, dice: random.Random) -> int:
    return dice.randint(1, bench.last)


def edit_open(bench: Bench, dice: random.Random) -> str:
    number, column = _somewhere(bench, dice), dice.choice(OPEN_TEXTS)
    value = dice.choice(
        ["", "nobody", 0, b"ok", "read\0", bench.one(f"SELECT {column} || 'x' FROM {ENTRY}")[0]]
    )
    before = bench.one(f"SELECT {column} FROM {ENTRY} WHERE id = ?", bench.entry(number))[0]
    if value == before:
        value = f"{before}!"
    bench.raw.execute(f"UPDATE {ENTRY} SET {column} = ? WHERE id = ?", (value, bench.entry(number)))
    return f"{column} of {number}"


def edit_time_or_counts(bench: Bench, dice: random.Random) -> str:
    number = _somewhere(bench, dice)
    column, value = dice.choice(
        [
            ("at", "2026-01-01 00:00:00.000001"), ("at", "yesterday"), ("at", 12),
            ("counts", '{"claims": 4}'), ("counts", "{"), ("counts", "[" * 5000),
            ("counts", '{"claims": 3, "resources": 1e400}'), ("counts", b"{}"),
        ]
    )  # fmt: skip
    bench.raw.execute(f"UPDATE {ENTRY} SET {column} = ? WHERE id = ?", (value, bench.entry(number)))
    return f"{column} of {number}"


def edit_sealed(bench: Bench, dice: random.Random) -> str:
    """Flip a bit, take what another row or column has, or seal a text of one's own with the right key."""
    number, column, how = _somewhere(bench, dice), dice.choice(SEALED), dice.randrange(4)
    row = bench.entry(number)
    (value,) = bench.one(f"SELECT {column} FROM {ENTRY} WHERE id = ?", row)
    assert value is None or isinstance(value, bytes)
    if how == 0 or value is None:
        changed = bytearray(value or b"none")
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        value = bytes(changed)
    elif how == 1:
        (value,) = bench.one(f"SELECT {'target' if column == 'patient' else 'patient'} FROM {ENTRY}")
    elif how == 2:
        others = bench.raw.execute(f"SELECT {column} FROM {ENTRY} WHERE {column} IS NOT NULL").fetchall()
        told = bench.text(column, value)
        value = dice.choice([other for (other,) in others if bench.text(column, other) != told] or [b""])
    else:
        value = bench.cipher.seal(zlib.compress(b"Patient/other"), f"{ENTRY}.{column}")
    bench.raw.execute(f"UPDATE {ENTRY} SET {column} = ? WHERE id = ?", (value, row))
    return f"{column} of {number}, {how}"


def edit_link(bench: Bench, dice: random.Random) -> str:
    number, column = dice.randint(0, bench.last), dice.choice(["key_id", "mac", "hash", "entry"])
    value = (
        dice.choice(["", "0" * 64, "00" * 8, 0, b"x"]) if column != "entry" else dice.choice([0, 999, "x"])
    )
    if number == 0 and column == "entry":
        value = 999
    bench.raw.execute(f"UPDATE {LINK} SET {column} = ? WHERE number = ?", (value, number))
    return f"{column} of link {number}"


def move_row(bench: Bench, dice: random.Random) -> str:
    number = _somewhere(bench, dice)
    bench.raw.execute(f"UPDATE {ENTRY} SET id = id + 5000 WHERE id = ?", (bench.entry(number),))
    return f"row of {number}"


def delete(bench: Bench, dice: random.Random) -> str:
    """Take entries out, with their links or without, and close the gap or not. The end is `truncate`'s."""
    number, how = dice.randint(1, bench.last - 4), dice.randrange(4)
    upto = number + dice.randrange(3)
    rows = [bench.entry(n) for n in range(number, upto + 1)]
    if how != 1:
        bench.raw.executemany(f"DELETE FROM {ENTRY} WHERE id = ?", [(row,) for row in rows])
    if how != 0:
        bench.raw.execute(f"DELETE FROM {LINK} WHERE number BETWEEN ? AND ?", (number, upto))
    if how == 3:
        gap = upto - number + 1
        bench.raw.execute(f"UPDATE {LINK} SET number = -number WHERE number > ?", (upto,))
        bench.raw.execute(f"UPDATE {LINK} SET number = -number - ? WHERE number < 0", (gap,))
    return f"{number} to {upto}, {how}"


def swap(bench: Bench, dice: random.Random) -> str:
    first, second = dice.sample(range(1, bench.last + 1), 2)
    one, other = bench.entry(first), bench.entry(second)
    how = dice.randrange(4)
    if how == 0:  # the entries' rows
        for old, new in ((one, -1), (other, one), (-1, other)):
            bench.raw.execute(f"UPDATE {ENTRY} SET id = ? WHERE id = ?", (new, old))
    elif how == 1:  # the links' places
        for old, new in ((first, -1), (second, first), (-1, second)):
            bench.raw.execute(f"UPDATE {LINK} SET number = ? WHERE number = ?", (new, old))
    elif how == 2:  # which entry a link has
        bench.raw.execute(f"UPDATE {LINK} SET entry = ? WHERE number = ?", (other, first))
        bench.raw.execute(f"UPDATE {LINK} SET entry = ? WHERE number = ?", (one, second))
    else:  # entry and link both
        for old, new in ((first, -1), (second, first), (-1, second)):
            bench.raw.execute(f"UPDATE {LINK} SET number = ? WHERE number = ?", (new, old))
        for old, new in ((one, -1), (other, one), (-1, other)):
            bench.raw.execute(f"UPDATE {ENTRY} SET id = ? WHERE id = ?", (new, old))
        bench.raw.execute(f"UPDATE {LINK} SET entry = ? WHERE number = ?", (one, first))
        bench.raw.execute(f"UPDATE {LINK} SET entry = ? WHERE number = ?", (other, second))
    return f"{first} and {second}, {how}"


def truncate(bench: Bench, dice: random.Random) -> str:
    """Cut the end off, at least the last anchored entry, with the links or without, or everything."""
    number, how = dice.randint(0, bench.last_anchored - 1), dice.randrange(3)
    first = bench.entry(number + 1)
    if how != 1:
        bench.raw.execute(f"DELETE FROM {ENTRY} WHERE id >= ?", (first,))
    if how != 0:
        bench.raw.execute(f"DELETE FROM {LINK} WHERE number > ?", (number if number else -1,))
    return f"after {number}, {how}"


def insert(bench: Bench, dice: random.Random) -> str:
    """Copy an entry to the end, alone or with a link that is as good as one can be made without the key."""
    number = _somewhere(bench, dice)
    (row,) = bench.one(f"SELECT max(id) + 1 FROM {ENTRY}")
    columns = "at, action, actor, outcome, run_id, patient_hash, patient, target, counts, server, on_behalf"
    bench.raw.execute(
        f"INSERT INTO {ENTRY} (id, {columns}) SELECT ?, {columns} FROM {ENTRY} WHERE id = ?",
        (row, bench.entry(number)),
    )
    if dice.randrange(2):
        bench.raw.execute(
            f"INSERT INTO {LINK} SELECT ?, ?, key_id, mac, hash FROM {LINK} WHERE number = ?",
            (bench.last + 1, row, number),
        )
    return f"{number} again"


ACTS: tuple[Act, ...] = (
    edit_open, edit_time_or_counts, edit_sealed, edit_link, move_row, delete, delete, swap, swap, truncate,
    truncate, insert,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_of_a_thousand_edits_deletions_swaps_insertions_and_truncations_every_one_is_found(
    bench: Bench, seed: int
) -> None:
    dice = random.Random(seed)
    missed = []
    for turn in range(100):
        act = ACTS[turn % len(ACTS)]
        bench.raw.execute("BEGIN IMMEDIATE")
        done = act(bench, dice)
        bench.raw.execute("COMMIT")
        report = bench.check()
        if report.is_intact or not report.faults:
            missed.append(f"{act.__name__}: {done}")
        bench.raw.execute("BEGIN IMMEDIATE")
        bench.restore()
        bench.raw.execute("COMMIT")
    assert missed == []
    assert bench.check().is_intact


def test_of_a_thousand_intact_trails_of_every_length_none_is_accused(bench: Bench) -> None:
    with bench.log.database.reading() as session:
        rows = list(_rows(session.connection()))
    dice, keys = random.Random(7), keys_of(bench.cipher)
    accused = []
    for _ in range(1000):
        length = dice.randint(0, bench.last)
        kept = {
            n: h for n, h in bench.anchors.hashes.items() if n <= length and (n == 0 or dice.random() < 0.7)
        }
        anchors = replace(bench.anchors, hashes=kept)
        report = check_trail(rows[: length + 1], [], anchors, keys, bench.keys.mac_key)
        if not report.is_intact or (report.entries, report.head) != (length, rows[length].link.hash):
            accused.append((length, report.faults))
    assert accused == []


def faults(bench: Bench, *statements: str) -> list[tuple[Kind, int]]:
    """What is found after some statements, which are undone then."""
    bench.raw.execute("BEGIN IMMEDIATE")
    for statement in statements:
        bench.raw.execute(statement)
    bench.raw.execute("COMMIT")
    found = [tuple(fault) for fault in bench.check().faults]
    bench.raw.execute("BEGIN IMMEDIATE")
    bench.restore()
    bench.raw.execute("COMMIT")
    return found  # type: ignore[return-value]


def test_each_fault_is_told_by_its_name_and_place(bench: Bench) -> None:
    fifth, last = bench.entry(5), bench.last_anchored
    assert faults(bench, f"UPDATE {ENTRY} SET actor = 'x' WHERE id = {fifth}") == [(Kind.EDITED, 5)]
    assert faults(bench, f"DELETE FROM {ENTRY} WHERE id = {fifth}") == [(Kind.DELETED, 5)]
    assert faults(
        bench, f"DELETE FROM {ENTRY} WHERE id = {fifth}", f"DELETE FROM {LINK} WHERE number = 5"
    ) == [(Kind.DELETED, 5)]
    assert faults(bench, f"DELETE FROM {LINK} WHERE number >= {last}")[0] == (Kind.TRUNCATED, last)
    assert faults(bench, f"DELETE FROM {LINK}")[0] == (Kind.TRUNCATED, 0)
    assert faults(bench, f"DELETE FROM {LINK} WHERE number = 5") == [
        (Kind.DELETED, 5),
        (Kind.INSERTED, fifth),
    ]
    assert faults(bench, f"UPDATE {LINK} SET key_id = 'x' WHERE number = 0")[0] == (Kind.GENESIS, 0)
    swapped = faults(
        bench,
        f"UPDATE {LINK} SET number = -1 WHERE number = 5",
        f"UPDATE {LINK} SET number = 5 WHERE number = 6",
        f"UPDATE {LINK} SET number = 6 WHERE number = -1",
    )
    assert (Kind.REORDERED, 6) in swapped


def test_another_trail_from_some_entry_on_is_not_the_one_that_was_anchored(bench: Bench) -> None:
    """Whoever has the keys can write a chain that holds; the anchors say that it is another one."""
    cut = bench.last_anchored - 3
    bench.raw.execute("BEGIN IMMEDIATE")
    bench.raw.execute(f"DELETE FROM {ENTRY} WHERE id > ?", (bench.entry(cut),))
    bench.raw.execute(f"DELETE FROM {LINK} WHERE number > ?", (cut,))
    bench.raw.execute("COMMIT")
    forger = SqlAuditLog(str(bench.log.database.engine.url), bench.cipher, None, bench.keys)
    for number in range(5):
        forger.append(entry_of(number, "forged"))
    assert forger.verify().is_intact
    forger.close()
    report = bench.check()
    assert (Kind.FORKED, bench.last_anchored) in [tuple(fault) for fault in report.faults]
    bench.raw.execute("BEGIN IMMEDIATE")
    bench.restore()
    bench.raw.execute("COMMIT")


def branch(beginning: Link, names: str, keys: TrailKeys) -> list[Row]:
    """The rows of a chain, one for each name: as a database goes on, or a copy of it."""
    rows = [Row(beginning, beginning.mac.encode())]
    for number, name in enumerate(names, 1):
        told, hidden = name.encode(), sealed_bytes("", name, None)
        link = make_link(rows[-1].link, number, told, hidden, keys.own, keys.chain)
        rows.append(Row(link, told, hidden, keys.nobody))
    return rows


@pytest.mark.parametrize("place", [1, 2, 3, 4])
def test_an_entry_of_a_copy_that_went_on_for_itself_fits_nowhere_in_the_trail(
    bench: Bench, place: int
) -> None:
    keys = keys_of(bench.cipher)
    genesis = make_genesis(0, digest_of([])[1])
    ours, theirs = branch(genesis, "abcde", keys), branch(genesis, "vwxyz", keys)

    def found(rows: list[Row]) -> list[int]:
        return [
            fault.at for fault in check_trail(rows, [], Anchors(are_kept=False), keys, lambda _: None).faults
        ]

    assert found(ours) == found(theirs) == []
    assert found([*ours[:place], theirs[place], *ours[place + 1 :]]) in ([place, place + 1], [place + 1])
    assert found([*ours[:place], *theirs[place:]]) == ([] if place == 1 else [place])


def test_after_a_patients_key_was_destroyed_the_chain_holds_and_nothing_left_tests_a_guess(
    bench: Bench,
) -> None:
    shredded = bench.cipher.keyed_hash("patient", "Patient/77")
    rows, keys = _all_rows(bench), keys_of(bench.cipher)
    theirs = [row for row in rows if row.patient_hash == shredded]
    bench.keys.destroyed.add(shredded)
    try:
        report = bench.check()
        assert report.is_intact
        assert report.shredded == len(theirs) == 12
        row = bench.entry(theirs[0].link.number)
        assert faults(bench, f"UPDATE {ENTRY} SET actor = 'x' WHERE id = {row}") == [
            (Kind.EDITED, theirs[0].link.number)
        ]
        assert faults(bench, f"UPDATE {LINK} SET mac = 'x' WHERE entry = {row}") != []
        left = [keys.chain, keys.own, keys.anchors]
        left += [bench.keys.key(row.patient_hash) for row in rows if row.patient_hash != shredded]
        guess = [one._replace(patient_hash=keys.nobody) for one in theirs]  # all is known but the key
        for key in left:
            tried = replace(keys, own=key)
            alone = [one._replace(link=one.link._replace(key_id=key_id_of(key))) for one in guess]
            found = check_trail(alone, [], Anchors(are_kept=False), tried, lambda _: None)
            assert {fault.kind for fault in found.faults} >= {Kind.EDITED}
    finally:
        bench.keys.destroyed.clear()


def _all_rows(bench: Bench) -> list[Row]:
    with bench.log.database.reading() as session:
        return list(_rows(session.connection()))


def test_a_key_that_was_destroyed_and_made_anew_accuses_no_old_entry(
    tmp_path: Path, url_of: Callable[[str], tuple[str, Cipher]]
) -> None:
    url, cipher = url_of("e")
    keys = Destructible()
    log = open_log(url, cipher, tmp_path / "anchors", Ticking(), keys)
    log.append(entry_of(0))
    log.close()

    class Anew(Destructible):
        def key(self, patient_hash: str) -> bytes:
            return b"anew".ljust(32, b"\0")

    log = open_log(url, cipher, tmp_path / "anchors", Ticking(), Anew())
    log.append(entry_of(0))
    report = log.verify()
    assert (report.is_intact, report.entries, report.shredded) == (True, 2, 1)
    log.close()


@pytest.fixture
def url_of(tmp_path: Path) -> Callable[[str], tuple[str, Cipher]]:
    def make(name: str) -> tuple[str, Cipher]:
        url = f"sqlite:///{tmp_path}/{name}.db"
        return url, open_cipher(tmp_path / f"{name}.key", url)

    return make


def test_faults_have_the_names_that_programs_read() -> None:
    assert {kind.value for kind in Kind} == {
        "edited", "deleted", "inserted", "reordered", "forked", "truncated", "genesis", "anchor_edited",
        "anchors_missing",
    }  # fmt: skip
