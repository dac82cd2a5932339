"""Our own engine process: started when first needed, watched, started again after a crash, ended with us.

It must never outlive us (see `leash`), never start in a loop without end, and never put a prompt in its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import httpx

from service.engine import leash
from service.errors import EngineError

START_TIMEOUT_S = 900.0
"""27B weights from a slow disk take minutes; the small model 30 s."""
LOOK_S = 0.25
TELL_S = 5.0
END_S = 2 * leash.GRACE_S + 5.0
CRASHES = 3
CRASH_WINDOW_S = 600.0
PORT_TRIES = 3
TAIL_BYTES = 8192
PORT_TAKEN = b"ddress already in use"

Command = Callable[[int], Sequence[str]]
"""The command line of a server on a port."""
Say = Callable[[str], None]


def free_port() -> int:
    """Return a loopback port that is free now; another process may still be faster."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EngineServer:
    """One supervised server process on loopback, and the log of all its starts.

    Bound to no event loop: it may be used from several, one after the other.
    """

    def __init__(
        self,
        command: Command,
        environment: Mapping[str, str],
        log_path: Path,
        *,
        on_progress: Say,
        start_timeout_s: float = START_TIMEOUT_S,
        pick_port: Callable[[], int] = free_port,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = command
        self._environment = dict(environment)
        self._log_path = log_path
        self._on_progress = on_progress
        self._start_timeout_s = start_timeout_s
        self._pick_port = pick_port
        self._sleep = sleep
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""
        self._starting: asyncio.Task[str] | None = None
        self._crashes: deque[float] = deque(maxlen=CRASHES)
        self._closed = False
        self.starts = 0
        """How many processes were started in all."""

    @property
    def process_id(self) -> int | None:
        """Id of the running process group, or None."""
        return self._process.pid if self._is_alive() and self._process else None

    async def ready(self) -> str:
        """Return the base URL of a server that is up, starting it first where it is not.

        However many ask at once, one server is started. Raises EngineError where it does not start,
        or crashed too often.
        """
        if self._closed:
            raise EngineError("The engine has been stopped.")
        if self._url and self._is_alive():
            return self._url
        if self._starting is None or self._starting.done() or not _is_of_this_loop(self._starting):
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(_look_at_result)
        return await asyncio.shield(self._starting)

    async def aclose(self) -> None:
        """End the server and its children; returns when they are gone. It cannot be started again."""
        self._closed = True
        if self._starting is not None and not self._starting.done() and _is_of_this_loop(self._starting):
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._end()

    def close(self) -> None:
        """End the server, blocking until it is gone: for where no event loop runs any more."""
        self._closed = True
        process, self._process = self._process, None
        if process is not None:
            _close_stdin(process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            _kill_group(process)

    async def _start(self) -> str:
        try:
            for _ in range(PORT_TRIES):
                await self._end()
                self._refuse_crash_loop()
                if await self._start_once(self._pick_port()):
                    return self._url
            raise EngineError("No free port was found for the engine.", "Try again.")
        except BaseException:
            self._let_go()
            raise

    async def _start_once(self, port: int) -> bool:
        """Start one process and wait until it serves; False where its port was taken meanwhile."""
        self._on_progress("Starting the engine")
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        log_start = self._log_path.stat().st_size if self._log_path.exists() else 0
        self._spawn(port)
        url = f"http://127.0.0.1:{port}"
        if await self._wait_until_up(url):
            self._url = url
            self._on_progress("The engine is ready")
            return True
        if self._log_says(PORT_TAKEN, log_start):
            return False
        self._crashes.append(self._clock())
        raise EngineError(
            "The engine ended while it was starting.", f"See the end of {self._log_path} for the reason."
        )

    def _spawn(self, port: int) -> None:
        """Start the leash, which starts the server; our end of its standard input keeps both alive."""
        command = [sys.executable, leash.__file__, str(self._log_path), *self._command(port)]
        self._process = subprocess.Popen(  # noqa: S603 - our own command line
            command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for us; we end the engine ourselves
        )
        self.starts += 1

    async def _wait_until_up(self, url: str) -> bool:
        """Wait for /health; False where the process ended first. Raises EngineError after the timeout."""
        started = told = self._clock()
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            while self._is_alive():
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{url}/health")).status_code == 200 and self._is_alive():
                        return True
                now = self._clock()
                if now - started > self._start_timeout_s:
                    raise EngineError(
                        f"The engine was not ready after {self._start_timeout_s:.0f} s.",
                        f"See the end of {self._log_path}; a large model may need a longer start timeout.",
                    )
                if now - told >= TELL_S:
                    told = now
                    self._on_progress(f"Starting the engine ({now - started:.0f} s)")
                await self._sleep(LOOK_S)
        return False

    def _refuse_crash_loop(self) -> None:
        """Raise EngineError where the last crashes lie too close together."""
        full = len(self._crashes) == CRASHES
        if full and self._clock() - self._crashes[0] < CRASH_WINDOW_S:
            raise EngineError(
                f"The engine crashed {CRASHES} times within {CRASH_WINDOW_S / 60:.0f} minutes.",
                f"See the end of {self._log_path} for the reason. It may lack memory.",
            )

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def _end(self) -> None:
        """End what is left of the last process; note a crash where it had been serving and ended itself."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._url and process.poll() is not None and not self._closed:
            self._crashes.append(self._clock())
            self._on_progress("The engine crashed; starting it again")
        self._url = ""
        _close_stdin(process)
        until = time.monotonic() + END_S
        try:
            while process.poll() is None and time.monotonic() < until:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.05)
        finally:
            _kill_group(process)

    def _let_go(self) -> None:
        """Have the leash end the server, without waiting for it."""
        self._url = ""
        if self._process is not None:
            _close_stdin(self._process)

    def _log_says(self, words: bytes, start: int) -> bool:
        """Look for words in what this start wrote to the log."""
        try:
            with self._log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(start if start <= size else 0, size - TAIL_BYTES))
                return words in log.read()
        except OSError:
            return False


def _is_of_this_loop(task: asyncio.Task[str]) -> bool:
    return task.get_loop() is asyncio.get_running_loop()


def _look_at_result(task: asyncio.Task[str]) -> None:
    """A start that failed while nobody waited any more is no news."""
    if not task.cancelled():
        task.exception()


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill whoever of the process group is left, and take the exit code so that no zombie stays."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
