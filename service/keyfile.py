"""Files of secret keys: written whole with mode 0600, and refused where others can read them."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from service.errors import StoreError


def read_private(path: Path, what: str) -> bytes:
    """Return what a key file holds. `what` names it for people.

    Raises StoreError where other users can read or change it, and OSError.
    """
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise StoreError(
                f"The {what} can be read or changed by other users.",
                "Run `chmod 600` on it, and consider who may have read it.",
            )
        return file.read()


def write_private(path: Path, content: bytes) -> None:
    """Write a new key file whole or not at all; where another process was first, its file stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = _draft(path, content)
    try:
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    _settle(path.parent)


def replace_private(path: Path, content: bytes) -> None:
    """Write a key file whole in place of one that is there; a crash leaves one of them. Raises OSError."""
    draft = _draft(path, content)
    try:
        draft.replace(path)
    except OSError:
        draft.unlink()
        raise
    _settle(path.parent)


def _draft(path: Path, content: bytes) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _settle(folder: Path) -> None:
    """Let the folder's new entry reach the disk, too: a key must be there before what it seals."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
