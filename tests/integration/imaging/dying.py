"""A child that does as its content says: what a decoder may be made to do by a hostile file."""

from __future__ import annotations

import os
import signal
import sys
import time

from service.apart.child import serve
from service.apart.frames import TOO_MUCH_MEMORY, Said
from service.imaging.order import pack


def _answer(content: bytes, _order: str, _second: str) -> tuple[Said, bytes]:
    word = content.decode()
    if word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "sleep":
        time.sleep(600)
    if word == "lie":
        return Said.TEXT, b"\0\0\xff\xff{}"
    if word == "flood":
        return Said.TEXT, b"\0" * (2 * 1024 * 1024)
    if word == "allocate":
        try:
            return Said.TEXT, bytes(10 * 1024**3)
        except MemoryError:
            return Said.UNREADABLE, TOO_MUCH_MEMORY.encode()
    return Said.TEXT, pack(text=str(os.getpid()))


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), lambda: _answer)
