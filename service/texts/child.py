"""The process in which contents of strangers are parsed. Started by `process`, never imported by it.

    python -m service.texts.child ENTRY PARENT SECONDS MEMORY CHARACTERS

How it bounds itself is told in `service.apart.child`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from service.apart.child import Answer, serve
from service.apart.frames import TOO_LARGE, TOO_MUCH_MEMORY, Said
from service.texts.unreadable import Partial, Unreadable

Entry = Callable[[bytes, str, str], str]


def main(entry: str, parent: int, seconds: float, memory_bytes: int, max_characters: int) -> None:
    """Bound this process, then answer requests until there are no more."""
    serve(parent, seconds, memory_bytes, lambda: _reading(entry, max_characters))


def _reading(entry: str, max_characters: int) -> Answer:
    module, _, name = entry.partition(":")
    read: Entry = getattr(importlib.import_module(module), name)

    def answer(content: bytes, media_type: str, declared: str) -> tuple[Said, bytes]:
        said, text = _answer(read, (content, media_type, declared), max_characters)
        return said, text.encode("utf-8", "replace")

    return answer


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


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
