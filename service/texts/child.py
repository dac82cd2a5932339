"""The process in which contents of strangers are parsed. Started by `process`, never imported by it.

    python -m service.texts.child ENTRY PARENT SECONDS MEMORY CHARACTERS

It reads requests on standard input and answers on standard output, until its input ends. It bounds itself:
memory, no core dump, no file grows, an alarm for each text, and the death of its parent ends it at once.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from service.hardening import keep_memory_private
from service.texts.frames import REPLY, REQUEST, TOO_LARGE, TOO_MUCH_MEMORY, Said
from service.texts.unreadable import Partial, Unreadable

PR_SET_PDEATHSIG = 1
GRACE_S = 2
"""The parent's clock strikes first; the alarm is for a child without a parent."""

Entry = Callable[[bytes, str, str], str]


def main(entry: str, parent: int, seconds: float, memory_bytes: int, max_characters: int) -> None:
    """Bound this process, then answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _die_with(parent)
    _bound(memory_bytes)
    answers = _private_output()
    module, _, name = entry.partition(":")
    read: Entry = getattr(importlib.import_module(module), name)
    _say(answers, Said.READY, "")
    while (request := _next_request(sys.stdin.buffer)) is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_S)
        _say(answers, *_answer(read, request, max_characters))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(read: Entry, request: tuple[bytes, str, str], max_characters: int) -> tuple[Said, str]:
    try:
        text = read(*request)
        said, reply = Said.TEXT, text
    except Partial as partly:
        text, said, reply = partly.text, Said.PARTLY, f"{partly.reason}\n{partly.text}"
    except Unreadable as error:
        return Said.UNREADABLE, error.reason
    except MemoryError:
        return Said.UNREADABLE, TOO_MUCH_MEMORY
    return (said, reply) if len(text) <= max_characters else (Said.UNREADABLE, TOO_LARGE)


def _next_request(requests: BinaryIO) -> tuple[bytes, str, str] | None:
    header = requests.read(REQUEST.size)
    if len(header) < REQUEST.size:
        return None
    media, declared, content = (requests.read(size) for size in REQUEST.unpack(header))
    return content, media.decode(), declared.decode()


def _say(answers: BinaryIO, said: Said, text: str) -> None:
    data = text.encode("utf-8", "replace")
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


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
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


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
