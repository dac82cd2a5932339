"""The process between us and our engine: however we end, the engine ends too.

    python leash.py LOG COMMAND...

It runs COMMAND in its own process group and keeps its output in LOG (rotated). When standard input
ends, because we closed it or were killed, or when COMMAND ends by itself, the whole group is ended:
vLLM has child processes that would stay. None of them leaves a core dump. It imports nothing of ours, so
that it starts in 50 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

LOG_BYTES = 4 * 1024 * 1024
GRACE_S = 5.0
LOOK_S = 0.2
BLOCK_BYTES = 65_536
PR_SET_PDEATHSIG = 1


class Log:
    """A file that is kept under `LOG_BYTES`; the one before it is kept beside it. Owner's eyes only."""

    def __init__(self, path: Path, limit_bytes: int = LOG_BYTES) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._file = self._open()

    def write(self, block: bytes) -> None:
        """Append; a full disk does not stop the engine."""
        with contextlib.suppress(OSError):
            if self._file.tell() + len(block) > self._limit_bytes:
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._open()
            self._file.write(block)

    def _open(self) -> BinaryIO:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)


def hold(log: Log, command: list[str]) -> int:
    """Run the command until it or standard input ends, then end the group. Returns its exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, ValueError):  # a core of the engine would hold charts
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    child = subprocess.Popen(  # noqa: S603 - the command is our parent's
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=_prepare_child,  # noqa: PLW1509 - one thread only
    )
    assert child.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        selector.register(child.stdout.fileno(), selectors.EVENT_READ, log)
        while child.poll() is None and _relay(selector):
            pass
        _end_group(child, selector)
    return child.returncode if child.returncode is not None else 1


def _prepare_child() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _relay(selector: selectors.BaseSelector) -> bool:
    """Pass on what was said; False once standard input has ended."""
    for key, _ in selector.select(LOOK_S):
        block = os.read(key.fd, BLOCK_BYTES)
        if isinstance(key.data, Log):
            if block:
                key.data.write(block)
            else:
                selector.unregister(key.fd)
        elif not block:
            selector.unregister(key.fd)
            return False
    return True


def _end_group(child: subprocess.Popen[bytes], selector: selectors.BaseSelector) -> None:
    """Ask the command, then its group, to end, and after a while make it. This process goes last.

    In this order vLLM's workers unlink their shared memory; ended all at once, they leave it in
    /dev/shm. Whoever of the group lives holds the output open, so its end shows that all are gone.
    """
    output = child.stdout
    assert output is not None
    if child.poll() is None:
        child.terminate()
        _relay_until(selector, lambda: child.poll() is not None)
    os.killpg(0, signal.SIGTERM)
    _relay_until(selector, lambda: output.fileno() not in selector.get_map())
    os.killpg(0, signal.SIGKILL)


def _relay_until(selector: selectors.BaseSelector, is_over: Callable[[], bool]) -> None:
    until = time.monotonic() + GRACE_S
    while not is_over() and time.monotonic() < until:
        _relay(selector)


if __name__ == "__main__":
    sys.exit(hold(Log(Path(sys.argv[1])), sys.argv[2:]))
