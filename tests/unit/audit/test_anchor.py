"""The head of the chain in a second place: when it is written, and what is read of it."""

from __future__ import annotations

import json
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from service.audit.anchor import AnchorFile
from service.audit.chain import Kind
from service.errors import StoreError
from service.ports import Action
from service.store.cipher import Cipher
from service.store.database import open_cipher
from service.store.trail import SqlAuditLog
from tests.unit.audit.trails import Ticking, entry_of, open_log
from tests.unit.writeback.charts import CREATED

KEY = b"k" * 32
HEAD = "ab" * 32


def anchors_in(path: Path, seconds: float = 7) -> AnchorFile:
    return AnchorFile(path, Ticking(seconds), KEY)


class Hands:
    """A clock that somebody sets."""

    def __init__(self) -> None:
        self.now = CREATED

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/e.db"


@pytest.fixture
def cipher(tmp_path: Path, url: str) -> Cipher:
    return open_cipher(tmp_path / "key", url)


def lines(path: Path) -> list[int]:
    """How many entries each line speaks of."""
    return [json.loads(line)["entries"] for line in path.read_text().splitlines()]


def test_an_anchor_comes_back_and_its_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "worm" / "anchors"
    anchors = anchors_in(path)
    assert anchors.is_empty()
    anchors.write(3, HEAD)
    anchors.write(4, "cd" * 32)
    read = anchors_in(path).read()
    assert read.hashes == {3: {HEAD}, 4: {"cd" * 32}}
    assert read.newest is not None
    assert (read.newest.number, read.edited, read.torn) == (4, (), 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_one_is_due_once_a_minute_also_for_who_opens_the_file_later_and_after_a_clock_set_back(
    tmp_path: Path,
) -> None:
    path, hands = tmp_path / "anchors", Hands()
    anchors = AnchorFile(path, hands, KEY)
    assert anchors.is_due()
    anchors.write(1, HEAD)
    for seconds, is_due in ((0, False), (59.9, False), (60, True), (-1, True)):
        hands.now = CREATED + timedelta(seconds=seconds)
        later = AnchorFile(path, hands, KEY)
        assert (anchors.is_due(), later.is_due()) == (is_due, is_due), seconds


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_last_line_is_passed_over_and_told_and_the_next_one_is_whole(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "anchors"
    anchors_in(path).write(1, HEAD)
    anchors_in(path).write(2, HEAD)
    path.write_bytes(path.read_bytes()[:-cut])
    read = anchors_in(path).read()
    assert (read.torn, read.edited, set(read.hashes)) == (1, (), {1})
    anchors_in(path).write(3, HEAD)
    read = anchors_in(path).read()
    assert set(read.hashes) >= {1, 3}
    assert read.edited == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [("entries", 1), ("head", "00" * 32), ("at", "2020-01-01T00:00:00Z"), ("mac", "00" * 32), ("mac", "ü")],
)
def test_a_line_that_somebody_else_wrote_is_told_by_its_number(
    tmp_path: Path, name: str, value: object
) -> None:
    path = tmp_path / "anchors"
    anchors = anchors_in(path)
    for number in (1, 2, 3):
        anchors.write(number, HEAD)
    found = path.read_text().splitlines()
    found[1] = json.dumps(json.loads(found[1]) | {name: value if name != "entries" else 9})
    path.write_text("\n".join(found) + "\n")
    read = anchors.read()
    assert set(read.hashes) == {1, 3}
    assert read.edited == (2,) or (value == "ü" and read.torn == 1)


def test_lines_of_many_at_once_are_all_whole(tmp_path: Path) -> None:
    path, together = tmp_path / "anchors", threading.Barrier(4)

    def write(writer: int) -> None:
        anchors = anchors_in(path)
        together.wait(10)
        for number in range(25):
            anchors.write(writer * 25 + number, HEAD)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    read = anchors_in(path).read()
    assert (set(read.hashes), read.torn, read.edited) == (set(range(100)), 0, ())


def test_a_place_that_cannot_be_written_is_a_store_error_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a file, and no folder")
    anchors = anchors_in(tmp_path / "secret" / "anchors")
    for act in (lambda: anchors.write(1, HEAD), anchors.read, anchors.is_empty):
        with pytest.raises(StoreError) as caught:
            act()
        assert "EPICRISIS_AUDIT_ANCHORS" in caught.value.advice
        assert "secret" not in f"{caught.value.message} {caught.value.advice}"


def test_the_head_is_anchored_at_the_beginning_each_minute_at_each_attestation_and_at_the_end(
    tmp_path: Path, url: str, cipher: Cipher
) -> None:
    hands, path = Hands(), tmp_path / "anchors"
    log = SqlAuditLog(url, cipher, partial(AnchorFile, path, hands))
    log.append(entry_of(0))
    assert lines(path) == [0]
    hands.now += timedelta(seconds=61)
    log.append(entry_of(1))
    assert lines(path) == [0, 2]
    log.append(entry_of(2))
    attested = entry_of(3)
    log.append(type(attested)(Action.ATTEST, "user:local", "Patient/77", CREATED))
    assert lines(path) == [0, 2, 4]
    log.close()
    assert lines(path) == [0, 2, 4]
    log = SqlAuditLog(url, cipher, partial(AnchorFile, path, hands))
    log.append(entry_of(4))
    log.close()
    log.close()
    assert lines(path) == [0, 2, 4, 5]


def test_an_entry_that_cannot_be_anchored_is_no_act_and_what_was_written_stays_intact(
    tmp_path: Path, url: str, cipher: Cipher, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "place" / "anchors"
    log = open_log(url, cipher, path, Ticking(61))
    log.append(entry_of(0))
    path.rename(tmp_path / "kept")
    path.parent.rmdir()
    path.parent.write_text("in the way")
    with pytest.raises(StoreError, match="anchors cannot be used"):
        log.append(entry_of(1))
    path.parent.unlink()
    path.parent.mkdir()
    (tmp_path / "kept").rename(path)
    log.append(entry_of(2))
    assert log.verify().is_intact
    assert log.verify().entries == 3
    log.close()
    assert caplog.text == ""


def test_anchors_that_are_gone_or_edited_are_faults_and_a_torn_one_is_told(
    tmp_path: Path, url: str, cipher: Cipher
) -> None:
    path = tmp_path / "anchors"
    log = open_log(url, cipher, path, Ticking(61))
    assert log.verify().is_intact  # nothing was recorded yet
    log.append(entry_of(0))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"at": "2026')
    assert (log.verify().is_intact, log.verify().torn) == (True, 1)
    path.write_bytes(whole.replace(b'"entries":1', b'"entries":0'))
    assert [fault.kind for fault in log.verify().faults] == [Kind.ANCHOR_EDITED]
    path.unlink()
    assert [fault.kind for fault in log.verify().faults] == [Kind.ANCHORS_MISSING]
    log.close()


def test_nothing_in_the_anchors_speaks_of_a_patient(tmp_path: Path, url: str, cipher: Cipher) -> None:
    log = open_log(url, cipher, tmp_path / "anchors", Ticking(61))
    log.append(entry_of(0))
    log.close()
    told = (tmp_path / "anchors").read_text()
    assert set(json.loads(told.splitlines()[0])) == {"at", "entries", "head", "mac"}
    assert "Patient" not in told
    assert cipher.keyed_hash("patient", "Patient/77") not in told
