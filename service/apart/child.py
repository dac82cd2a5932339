"""The process in which contents of strangers are parsed: what every such child does around its reading.

It reads requests on standard input and answers on standard output, until its input ends. It bounds itself:
memory, no core dump, no file grows, an alarm for each content, and the death of its parent ends it at once.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from service.apart.frames import REPLY, REQUEST, Said
from service.hardening import keep_memory_private

PR_SET_PDEATHSIG = 1
GRACE_S = 2
"""The parent's clock strikes first; the alarm is for a child without a parent."""

Answer = Callable[[bytes, str, str], tuple[Said, bytes]]
"""Content and its two words → what is said. It raises nothing that it can catch."""


def serve(parent: int, seconds: float, memory_bytes: int, start: Callable[[], Answer]) -> None:
    """Bound this process, import what `start` needs, then answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    die_with(parent)
    _bound(memory_bytes)
    answers = _private_output()
    answer = start()
    _say(answers, Said.READY, b"")
    while (request := _next_request(sys.stdin.buffer)) is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_S)
        _say(answers, *answer(*request))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _next_request(requests: BinaryIO) -> tuple[bytes, str, str] | None:
    header = requests.read(REQUEST.size)
    if len(header) < REQUEST.size:
        return None
    first, second, content = (requests.read(size) for size in REQUEST.unpack(header))
    return content, first.decode(), second.decode()


def _say(answers: BinaryIO, said: Said, data: bytes) -> None:
    answers.write(REPLY.pack(said, len(data)))
    answers.write(data)
    answers.flush()


def _private_output() -> BinaryIO:
    """Keep standard output to ourselves: a library that prints must not speak in our place."""
    answers = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.close(silence)
    return answers


def die_with(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel end this process when its parent ends, and end at once where that is so already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        sys.exit()


def _bound(memory_bytes: int) -> None:
    """Set limits that the parsers cannot lift. Not every system knows every limit."""
    keep_memory_private()
    for limit, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
    ):
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, (most, most))
