"""An encoder's process that does as its folder says: it dies while there are files to take, then answers.

It is given the arguments of `service.imaging.siglip`. `sleep`, `short` and `stillborn` are folders whose name
says what the process does.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import time
from pathlib import Path

import msgspec

from service.apart.child import serve
from service.apart.frames import Said
from service.imaging.siglip import ABOUT, HEAD

SIZE = 4


def _answer(content: bytes, what: str, _: str) -> tuple[Said, bytes]:
    folder = Path(sys.argv[3])
    if what == ABOUT:
        return Said.TEXT, HEAD.pack(0, SIZE, 10.0, -1.0) + b"cpu"
    for token in sorted(folder.glob("death-*")):
        token.unlink()
        os.kill(os.getpid(), signal.SIGSEGV)
    if folder.name == "sleep":
        time.sleep(600)
    items = msgspec.msgpack.decode(content)
    count = len(items) - (folder.name == "short")
    vectors = struct.pack("<4f", 1.0, 0.0, 0.0, 0.0) * count
    return Said.TEXT, HEAD.pack(count, SIZE, 10.0, -1.0) + vectors


if __name__ == "__main__":
    if Path(sys.argv[3]).name == "stillborn":
        sys.exit(1)
    serve(int(sys.argv[1]), float(sys.argv[2]), 2**40, lambda: _answer)
