"""A file that a person gives is read within a bound, whatever it claims or unfolds to."""

from __future__ import annotations

import gzip
import io
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import BrokenJson
from connectors.limits import MIB
from service import cli
from service.errors import SettingsError
from service.given import read_file

BOMB = gzip.compress(bytes(200 * MIB), 1)
"""A megabyte that unfolds to two hundred."""


@given(parts=st.lists(st.binary(max_size=100), min_size=1, max_size=3), packed=st.booleans())
def test_a_file_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], packed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "given"
    content = b"{" + b"".join(parts)
    path.write_bytes(b"".join(map(gzip.compress, (b"{", *parts))) if packed else content)
    assert read_file(path) == content


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(BOMB)
    tracemalloc.start()
    try:
        with pytest.raises(SettingsError, match="unfolds to more"):
            read_file(path, max_bytes=8 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()


def test_a_bomb_in_many_members_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(MIB)) * 20)
    with pytest.raises(SettingsError, match="unfolds to more"):
        read_file(path, max_bytes=8 * MIB)
    assert len(read_file(path, max_bytes=20 * MIB)) == 20 * MIB


def test_what_never_ends_is_given_up() -> None:
    with pytest.raises(SettingsError, match="larger than"):
        read_file("/dev/zero", max_bytes=8 * MIB)


def test_stdin_is_bounded_as_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(gzip.compress(b"x" * 100))

    monkeypatch.setattr("sys.stdin", Stdin)
    with pytest.raises(SettingsError):
        read_file("-", max_bytes=99)
    Stdin.buffer.seek(0)
    assert read_file("-", max_bytes=100) == b"x" * 100


@pytest.mark.parametrize("cut", [2, 10, 30, -1])
def test_a_damaged_gzip_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(os.urandom(100))[:cut])
    with pytest.raises(BrokenJson):
        read_file(path)


def test_a_file_that_is_not_there_is_named_by_its_error_alone(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read_file(tmp_path / "Zzyzxcanary.json", "Give another.")
    assert caught.value.message == "The file cannot be read (ENOENT)."
    assert caught.value.advice == "Give another."


@pytest.mark.parametrize("command", ["assemble", "check", "context", "verify", "amend"])
def test_every_command_that_is_given_a_file_refuses_a_bomb(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(BOMB)
    monkeypatch.setenv("EPICRISIS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("service.given.read_file.__defaults__", ("", 8 * MIB))
    more = {"check": [str(path)], "context": ["--budget", "4000"]}.get(command, [])
    given = ["DocumentReference/1", "--by", "Practitioner/1", "--text"] if command == "amend" else []
    monkeypatch.setattr("sys.argv", ["epicrisis", command, *given, str(path), *more, "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 3
    assert "unfolds to more" in capsys.readouterr().out
