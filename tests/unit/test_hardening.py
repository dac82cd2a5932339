"""What a crash leaves behind: no memory on a disk, no words of an exception on a screen."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.engine.server import EngineServer
from service.hardening import PlainTraces, describe, keep_short
from service.texts.frames import Limits
from service.texts.process import Process
from tests.conftest import CANARY, ROOT

NO_CORE = re.compile(r"Max core file size\s+0\s+0\s")
WAITING = "import sys; sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.read()"


def in_a_process(code: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60,
        cwd=cwd or ROOT, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@contextmanager
def waiting(before: str) -> Iterator[int]:
    """A process that did this first, and waits."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{before}; {WAITING}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield child.pid
        child.kill()


def limits_of(pid: int) -> str:
    return Path(f"/proc/{pid}/limits").read_text()


def test_a_hardened_process_and_what_it_starts_write_no_core() -> None:
    with waiting("from service.hardening import keep_memory_private; keep_memory_private()") as pid:
        assert NO_CORE.search(limits_of(pid))
        if os.geteuid() == 0:
            assert int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16) == 0
    started = in_a_process(
        "from service.hardening import keep_memory_private; keep_memory_private();"
        "import subprocess; subprocess.run(['cat', '/proc/self/limits', '/proc/self/coredump_filter'])"
    )
    assert NO_CORE.search(started.stdout)
    assert started.stdout.endswith("00000000\n")


def test_nobody_but_root_may_read_the_memory_of_a_hardened_process() -> None:
    asked = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    assert in_a_process(asked).stdout == "1\n"
    hardened = f"from service.hardening import keep_memory_private; keep_memory_private(); {asked}"
    assert in_a_process(hardened).stdout == "0\n"


@pytest.mark.parametrize(
    "start",
    [
        "from service import cli; import sys; sys.argv = ['epicrisis', '--version']",
        "from service.engine import scripted_server; import sys; sys.argv = ['x', '--help']",
    ],
)
def test_every_command_is_hardened_before_it_does_anything(start: str) -> None:
    module = "cli" if "cli" in start else "scripted_server"
    code = (
        f"{start}\ntry:\n    {module}.main()\nexcept SystemExit:\n    pass\n"
        "import ctypes; print(open('/proc/self/limits').read(), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    ended = in_a_process(code)
    assert NO_CORE.search(ended.stdout), ended.stderr
    assert ended.stdout.endswith(" 0\n")


def test_the_process_that_reads_texts_writes_no_core() -> None:
    process = Process("service.texts.formats:text_of", Limits())
    try:
        process.wait_until_ready()
        assert NO_CORE.search(limits_of(process.pid))
    finally:
        process.close()


async def test_the_engine_and_its_children_write_no_core(tmp_path: Path) -> None:
    """Started by a process that has no limits of its own."""
    said = tmp_path / "limits"
    code = (
        "import http.server, pathlib, sys\n"
        f"pathlib.Path({str(said)!r}).write_text(open('/proc/self/limits').read())\n"
        "class Up(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers()\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Up).serve_forever()\n"
    )
    server = EngineServer(
        lambda port: [sys.executable, "-c", code, str(port)], {"PATH": "/usr/bin:/bin"},
        tmp_path / "engine.log", on_progress=lambda _: None,
    )  # fmt: skip
    try:
        await server.ready()
        assert server.process_id is not None
        assert NO_CORE.search(limits_of(server.process_id))
        assert NO_CORE.search(said.read_text())
    finally:
        await server.aclose()


def test_an_abort_leaves_no_core(tmp_path: Path) -> None:
    allowed = "import os, resource; most = resource.getrlimit(resource.RLIMIT_CORE)[1]"
    code = (
        f"{allowed}; resource.setrlimit(resource.RLIMIT_CORE, (most, most)); secret = '{CANARY}'\n"
        "from service.hardening import keep_memory_private; keep_memory_private()\n"
        "os.abort()"
    )
    ended = in_a_process(code, tmp_path)
    assert ended.returncode == -signal.SIGABRT
    assert list(tmp_path.iterdir()) == []


CRASHES = {
    "in the main thread": f"raise ValueError('{CANARY}')",
    "in another thread": "import threading\n"
    f"def work():\n    raise ValueError('{CANARY}')\n"
    "thread = threading.Thread(target=work); thread.start(); thread.join()",
    "where nobody can catch it": "class Odd:\n"
    f"    def __del__(self):\n        raise ValueError('{CANARY}')\n"
    "odd = Odd()\ndel odd",
}


@pytest.mark.parametrize("crash", CRASHES.values(), ids=CRASHES)
def test_an_exception_that_nobody_caught_is_told_without_its_text(crash: str) -> None:
    assert CANARY in in_a_process(crash).stderr
    ended = in_a_process(f"from service.hardening import silence_crashes; silence_crashes()\n{crash}")
    assert CANARY not in ended.stderr + ended.stdout
    assert "builtins.ValueError" in ended.stderr
    assert "line" not in ended.stderr.replace("<string>:", "")


def test_a_task_that_fails_unseen_is_told_without_its_text() -> None:
    code = f"""
import asyncio, gc
from service.terminal import set_up_logging

async def fail(text):
    raise ValueError(text)

async def main():
    task = asyncio.create_task(fail("{CANARY}"))
    await asyncio.sleep(0.01)
    del task
    gc.collect()
    asyncio.get_running_loop().call_soon(lambda text: 1 / 0, "{CANARY}")
    await asyncio.sleep(0.01)

set_up_logging("debug")
asyncio.run(main())
"""
    ended = in_a_process(code)
    assert CANARY not in ended.stderr + ended.stdout
    assert "Task exception was never retrieved" in ended.stderr
    assert "builtins.ValueError" in ended.stderr
    assert "builtins.ZeroDivisionError" in ended.stderr


def test_a_log_record_tells_of_an_exception_its_kind_and_place_alone() -> None:
    try:
        raise ValueError(CANARY)
    except ValueError:
        info = sys.exc_info()
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "It failed.", (), info)
    logging.Formatter().format(record)
    text = PlainTraces("%(message)s").format(record)
    assert CANARY not in text
    assert text.startswith("It failed.\n")
    assert text.endswith("builtins.ValueError")
    assert "test_hardening.py" in text


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        (
            f"Task exception was never retrieved\nfuture: <Task {CANARY}>",
            "Task exception was never retrieved",
        ),
        (f"Exception in callback work('{CANARY}')", "Exception in callback work"),
        (f"<Task {CANARY}> took 0.2 seconds", ""),
        (f"poll took 1 ms: {CANARY}", "poll took 1 ms"),
    ],
)
def test_of_what_asyncio_says_the_sentence_is_kept(message: str, kept: str) -> None:
    record = logging.LogRecord("asyncio", logging.ERROR, __file__, 1, "%s", (message,), None)
    assert keep_short(record)
    assert record.getMessage() == kept


def test_what_is_described_is_where_it_happened() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        text = describe(type(error), error.__traceback__)
    assert text.splitlines()[-1] == "json.decoder.JSONDecodeError"
    assert re.search(r"test_hardening\.py:\d+ in test_what_is_described", text)
