"""Which code makes prompts and verdicts: a digest of it, so that a replay can name a difference in code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

ROOMS = ("record", "context", "grounding")
MODULES = ("digest", "edition", "entailment", "readings", "repair", "summarize", "verify")
_SUFFIXES = (".py", ".toml")


@cache
def code_digest() -> str:
    """Return the beginning (16 hex) of the SHA-256 over the modules and word lists that decide a run.

    Not over the version: two builds of one version may differ, and a release may change nothing here.
    """
    digest = hashlib.sha256()
    for path, data in sorted(_sources()):
        digest.update(f"{path} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]


def _sources() -> Iterator[tuple[str, bytes]]:
    root = files("service")
    for room in ROOMS:
        yield from _under(root / room, room)
    for entry in root.iterdir():
        if entry.name.partition(".")[0] in MODULES and entry.name.endswith(_SUFFIXES):
            yield entry.name, entry.read_bytes()


def _under(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.name.startswith(("_", ".")):
            yield from _under(entry, f"{path}/{entry.name}")
        elif entry.name.endswith(_SUFFIXES):
            yield f"{path}/{entry.name}", entry.read_bytes()
