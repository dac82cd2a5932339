"""Readers that misbehave as their content says: what a child may be made to do by hostile input."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from service.texts.frames import REPLY, Said
from service.texts.unreadable import Unreadable
from tests.conftest import CANARY


def read(content: bytes, media_type: str, declared: str) -> str:
    """Do what the content says."""
    word, _, argument = content.decode().partition(" ")
    return _DEEDS[word](argument)


def _sleep(_: str) -> str:
    time.sleep(600)
    return "awake"


def _spin(_: str) -> str:
    while True:
        pass


def _allocate(_: str) -> str:
    return str(len(bytearray(10 * 1024**3)))


def _crash(_: str) -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return "alive"


def _exit(_: str) -> str:
    os._exit(0)


def _raise(_: str) -> str:
    raise RuntimeError(CANARY)


def _refuse(argument: str) -> str:
    raise Unreadable(argument)


def _print(argument: str) -> str:
    print("\0" * 64, flush=True)
    os.write(1, b"\1\0\0\0\3lie")
    sys.stderr.write(CANARY)
    return argument


def _lie(_: str) -> str:
    for descriptor in range(3, 16):
        with contextlib.suppress(OSError):
            os.write(descriptor, REPLY.pack(Said.TEXT, 2**32 - 1))
    return ""


def _environment(_: str) -> str:
    return " ".join(sorted(os.environ))  # noqa: TID251 - what a child may see


def _write(argument: str) -> str:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        Path(argument).write_text("leaked", encoding="utf-8")
    except OSError:
        return "refused"
    return "written"


def _pid(argument: str) -> str:
    if argument:
        Path(argument).touch()
    return str(os.getpid())


def _long(argument: str) -> str:
    return "é" * int(argument)


_DEEDS = {
    "sleep": _sleep, "spin": _spin, "allocate": _allocate, "crash": _crash, "exit": _exit, "raise": _raise,
    "refuse": _refuse, "print": _print, "environment": _environment, "write": _write, "pid": _pid,
    "long": _long, "lie": _lie,
}  # fmt: skip
