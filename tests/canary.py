"""Listens to what every process of a test run says: the surname of the tests' patients must be in none of it.

Heard are the standard error of each process that a test starts, wherever it goes (of servers that are not
ours, too: their logs show which addresses were asked), the logs of engines, what this process logs and writes
to standard error, and the addresses that it asks. Standard output is what a command was asked for, and
databases are searched by tests of their own. A name that is heard fails the test meanwhile, or the run.
"""

from __future__ import annotations

import asyncio.subprocess
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import pytest

CANARY = "Zzyzxcanary"
"""Surname of every fixture patient: it must never reach a log, a metric, a URL or an error message."""
LOGS = "engine.log*"
"""Logs that no process of ours is the parent of: the engine's leash keeps them."""
_NAME = re.compile(CANARY.encode(), re.IGNORECASE)


class Listener:
    """Everything that was said so far, by whom; each finding is told once."""

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._files: list[tuple[str, BinaryIO, subprocess.Popen[Any]]] = []

    def hear(self, said: str | bytes | None, who: str) -> None:
        """Note who said the name."""
        data = said.encode(errors="replace") if isinstance(said, str) else said or b""
        if _NAME.search(data):
            self._heard.append(who)

    def follow(self, process: subprocess.Popen[Any], command: Any, options: dict[str, Any]) -> None:
        """Hear a process that was just started, where its standard error goes into a file or a pipe."""
        if _is_trial(command):
            return
        who = _named(command)
        target: Any = options.get("stderr")
        if target == subprocess.STDOUT:
            target = options.get("stdout")
        descriptor = target.fileno() if hasattr(target, "fileno") else target
        if isinstance(descriptor, int) and descriptor >= 0:
            # Opened now: a folder of temporary files may be gone when the process ends.
            file = Path(f"/proc/self/fd/{descriptor}").open("rb")  # noqa: SIM115 - `findings` closes it
            self._files.append((who, file, process))
        for name in ("stderr", *(["stdout"] if options.get("stderr") == subprocess.STDOUT else [])):
            pipe = getattr(process, name)
            if pipe is not None:
                setattr(process, name, HeardPipe(pipe, lambda said: self.hear(said, who)))

    def findings(self) -> list[str]:
        """Read what is new in the files, and return who said the name since this was last asked."""
        going_on = []
        for who, file, process in self._files:
            has_ended = process.poll() is not None
            self.hear(file.read(), who)
            if has_ended:
                file.close()
            else:
                going_on.append((who, file, process))
        self._files = going_on
        found, self._heard = sorted(set(self._heard)), []
        return found


class HeardPipe:
    """A pipe whose reader is not the only one who hears what it says."""

    def __init__(self, pipe: Any, hear: Callable[[str | bytes], None]) -> None:
        self._pipe = pipe
        self._hear = hear

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def __enter__(self) -> HeardPipe:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()

    def __iter__(self) -> Iterator[Any]:
        while line := self.readline():
            yield line

    def read(self, *size: int) -> Any:
        """Read, aloud."""
        return self._aloud(self._pipe.read(*size))

    def readline(self) -> Any:
        """Read a line, aloud."""
        return self._aloud(self._pipe.readline())

    def _aloud(self, said: Any) -> Any:
        self._hear(said)
        return said


LISTENER = Listener()


@pytest.fixture(scope="session", autouse=True)
def _everybody_is_heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Listen from the first test to the last server's end."""
    with pytest.MonkeyPatch.context() as patch:
        _hear_processes(patch)
        _hear_addresses(patch)
        yield
    for path in tmp_path_factory.getbasetemp().rglob(LOGS):
        LISTENER.hear(path.read_bytes(), path.name)
    _tell()


@pytest.fixture(autouse=True)
def _nobody_says_the_canarys_name() -> Iterator[None]:
    yield
    _tell()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Hear what this process logged and wrote to standard error."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    for name, said in report.sections:
        if "stdout" not in name and name.endswith(report.when or ""):
            LISTENER.hear(said, f"this process ({name})")
    return report  # type: ignore[return-value]


def _tell() -> None:
    if found := LISTENER.findings():
        pytest.fail(f"A patient's name was said by: {'; '.join(found)}", pytrace=False)


def _hear_processes(patch: pytest.MonkeyPatch) -> None:
    begin, communicate = subprocess.Popen.__init__, subprocess.Popen.communicate
    ask = asyncio.subprocess.Process.communicate

    def heard_begin(self: subprocess.Popen[Any], args: Any, *more: Any, **options: Any) -> None:
        begin(self, args, *more, **options)
        LISTENER.follow(self, args, options)

    def heard_communicate(self: subprocess.Popen[Any], *more: Any, **options: Any) -> tuple[Any, Any]:
        out, err = communicate(self, *more, **options)
        LISTENER.hear(err if isinstance(self.stderr, HeardPipe) else None, _named(self.args))
        LISTENER.hear(out if isinstance(self.stdout, HeardPipe) else None, _named(self.args))
        return out, err

    async def heard_ask(self: asyncio.subprocess.Process, *more: Any) -> tuple[bytes, bytes]:
        out, err = await ask(self, *more)
        LISTENER.hear(err, "a process that was waited for")
        return out, err

    patch.setattr(subprocess.Popen, "__init__", heard_begin)
    patch.setattr(subprocess.Popen, "communicate", heard_communicate)
    patch.setattr(asyncio.subprocess.Process, "communicate", heard_ask)


def _hear_addresses(patch: pytest.MonkeyPatch) -> None:
    send, send_async = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request

    def heard_send(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        LISTENER.hear(str(request.url), "an address that was asked")
        return send(self, request)

    async def heard_send_async(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        LISTENER.hear(str(request.url), "an address that was asked")
        return await send_async(self, request)

    patch.setattr(httpx.HTTPTransport, "handle_request", heard_send)
    patch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", heard_send_async)


def _is_trial(command: Any) -> bool:
    """Tell whether a test wrote the name into a program of its own, and looks itself at what that says."""
    words = _words(command)
    return "-c" in words and CANARY in words[words.index("-c") + 1]


def _named(command: Any) -> str:
    """Name a process by the beginning of its command line."""
    words = _words(command)
    return " ".join(word[:40].split("\n")[0] for word in words[:5])


def _words(command: Any) -> list[str]:
    alone = isinstance(command, str | bytes | os.PathLike)
    return [os.fsdecode(word) for word in ([command] if alone else command)]
