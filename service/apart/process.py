"""One child process: started, asked with a deadline, killed. It knows nothing of what it reads.

Ended            the child is gone, or said what it never says
└── TookTooLong  the deadline came first
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

from service.apart.frames import REPLY, REQUEST, Bounds, Said

_ROOT = Path(__file__).resolve().parents[2]
_BLOCK_BYTES = 1024 * 1024
T = TypeVar("T")


class Ended(Exception):
    """The child can no longer be used."""


class TookTooLong(Ended):
    """The child did not answer in time."""


class Process:
    """A child that reads one content at a time. Whoever makes one closes it, from the same thread.

    `module` is run with `arguments`, and sees of our surroundings nothing but `environment`. Linux ends a
    child with the thread that started it.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        bounds: Bounds,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._bounds = bounds
        self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-s", "-B", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**_environment(), **(environment or {})},
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._requests: IO[bytes] = self._child.stdin
        self._answers: IO[bytes] = self._child.stdout
        os.set_blocking(self._requests.fileno(), False)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid

    def wait_until_ready(self) -> None:
        """Wait until the libraries are imported."""
        said, _ = self._reply(time.monotonic() + self._bounds.seconds_to_start)
        if said is not Said.READY:
            raise Ended

    def ask_bytes(self, content: bytes, first: str, second: str = "") -> tuple[Said, bytes]:
        """Send one content with its two words, and return what the child made of it."""
        until = time.monotonic() + self._bounds.seconds
        words = first.encode("utf-8", "replace"), second.encode("utf-8", "replace")
        self._send(REQUEST.pack(*map(len, words), len(content)) + b"".join(words), until)
        self._send(content, until)
        return self._reply(until)

    def close(self) -> None:
        """End the child, whatever it does, and wait for it."""
        self._child.kill()
        self._requests.close()
        self._answers.close()
        self._child.wait()

    def _send(self, data: bytes, until: float) -> None:
        left = memoryview(data)
        while left:
            self._await(self._requests, selectors.EVENT_WRITE, until)
            sent = _try(lambda: os.write(self._requests.fileno(), left[:_BLOCK_BYTES]))  # noqa: B023
            left = left[sent:]

    def _reply(self, until: float) -> tuple[Said, bytes]:
        said, size = REPLY.unpack(self._receive(REPLY.size, until))
        if said not in set(Said) or size > self._bounds.max_reply_bytes:
            raise Ended
        return Said(said), self._receive(size, until)

    def _receive(self, size: int, until: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._await(self._answers, selectors.EVENT_READ, until)
            block = _try(lambda: os.read(self._answers.fileno(), min(size - len(data), _BLOCK_BYTES)))  # noqa: B023
            if not block:
                raise Ended
            data += block
        return bytes(data)

    def _await(self, stream: IO[bytes], event: int, until: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(stream, event)
            if not selector.select(max(0.0, until - time.monotonic())):
                raise TookTooLong


def _try(step: Callable[[], T]) -> T:
    try:
        return step()
    except OSError as error:
        raise Ended from error


def _environment() -> dict[str, str]:
    """Where Python finds what we found; nothing else of our surroundings: no tokens, no settings."""
    return {"PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)]), "PYTHONUTF8": "1"}
