"""The listener for the canary's name hears it wherever it must not be said, and nowhere else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.canary import CANARY
from tests.conftest import ROOT

HEAD, TAIL = CANARY[:4], CANARY[4:]
"""Apart, so that no program text and no command line holds the name."""
TRIED = f"""
import asyncio, logging, subprocess, sys
import httpx

NAME = "{HEAD}" + "{TAIL}"
SAYS = [sys.executable, "-c", "import sys; sys.stderr.write('{HEAD}' + '{TAIL.upper()}')"]
SHOWS = [sys.executable, "-c", "print('{HEAD}' + '{TAIL}')"]

def test_loud_process_that_is_run():
    subprocess.run(SAYS, capture_output=True)

def test_loud_process_whose_errors_go_with_its_output():
    subprocess.run(SAYS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

def test_loud_process_whose_errors_are_read_by_lines():
    with subprocess.Popen(SAYS, stderr=subprocess.PIPE, text=True) as process:
        process.stderr.readline()

def test_loud_process_whose_errors_are_read_whole():
    with subprocess.Popen(SAYS, stderr=subprocess.PIPE) as process:
        process.stderr.read()

def test_loud_process_whose_errors_are_ours():
    subprocess.run(SAYS)

def test_loud_process_whose_log_is_gone(tmp_path):
    with (tmp_path / "said").open("wb") as log:
        subprocess.run(SAYS, stdout=log, stderr=subprocess.STDOUT)
    (tmp_path / "said").unlink()

def test_loud_process_that_is_awaited():
    async def run():
        pipe = asyncio.subprocess.PIPE
        await (await asyncio.create_subprocess_exec(*SAYS, stdout=pipe, stderr=pipe)).communicate()
    asyncio.run(run())

def test_loud_log_record():
    logging.getLogger("epicrisis").warning(NAME)

def test_loud_error_output():
    sys.stderr.write(NAME.upper())

def test_loud_address():
    try:
        httpx.get("http://127.0.0.1:1/Patient?family=" + NAME)
    except httpx.ConnectError:
        pass

def test_quiet_output():
    print(NAME)
    subprocess.run(SHOWS, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with open("shown", "wb") as shown:
        subprocess.run(SHOWS, stdout=shown)

def test_quiet_nothing():
    subprocess.run([sys.executable, "-c", ""], capture_output=True)
"""
AT_THE_END = {
    "an engine's log": (
        f"def test_it(tmp_path):\n    (tmp_path / 'engine.log.1').write_text('{HEAD}' + '{TAIL}')\n"
    ),
    "a server that ends with the run": (
        "import pytest, subprocess\n"
        "@pytest.fixture(scope='session')\n"
        "def server(tmp_path_factory):\n"
        "    with (tmp_path_factory.mktemp('server') / 'log').open('wb') as log:\n"
        "        pipe, merged = subprocess.PIPE, subprocess.STDOUT\n"
        "        process = subprocess.Popen(['cat'], stdin=pipe, stdout=log, stderr=merged)\n"
        "    yield\n"
        f"    process.communicate(b'{HEAD}' + b'{TAIL}')\n"
        "def test_it(server):\n"
        "    pass\n"
    ),
}


def outcome(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a file under the listener, apart from this run's own."""
    folder.mkdir(exist_ok=True)
    (folder / "test_tried.py").write_text(text)
    command = (
        sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", str(folder), "-p", "tests.canary",
        "-p", "no:cacheprovider", "--basetemp", str(folder / "temp"), "-q", "--tb=short", "-rA",
        "test_tried.py",
    )  # fmt: skip
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    shutil.rmtree(folder)  # else this run's own listener would find it, too
    return done


def test_the_name_is_heard_wherever_it_must_not_be_said(tmp_path: Path) -> None:
    done = outcome(tmp_path, TRIED)
    assert done.returncode == 1, done.stdout
    heard = set(re.findall(r"^ERROR test_tried.py::test_(\w+)", done.stdout, re.MULTILINE))
    assert heard == set(re.findall(r"def test_(loud\w+)", TRIED))
    passed = set(re.findall(r"^PASSED test_tried.py::test_(\w+)", done.stdout, re.MULTILINE))
    assert passed >= set(re.findall(r"def test_(quiet\w+)", TRIED))


def test_a_name_that_is_heard_last_fails_the_run(tmp_path: Path) -> None:
    for number, (who, text) in enumerate(AT_THE_END.items()):
        done = outcome(tmp_path / str(number), text)
        assert done.returncode == 1, who
        assert "A patient's name was said by" in done.stdout
