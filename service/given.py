"""Files that a person gives on the command line: read within a bound, whatever they claim or unfold to."""

from __future__ import annotations

import errno
import gzip
import io
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from connectors.errors import BrokenJson
from service.errors import SettingsError

MAX_BYTES: Final = 512 * 1024 * 1024
"""Of one file, and of what it unfolds to. The largest Synthea chart has 11 MB."""
_PIECE: Final = 1024 * 1024
_GZIP: Final = b"\x1f\x8b"
STDIN: Final = "-"


def read_file(path: Path | str, advice: str = "", max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a file, or of stdin for `-`, unpacked where it is gzipped.

    Raises SettingsError where it cannot be read, or is or becomes larger than `max_bytes`, and BrokenJson
    where it is damaged.
    """
    try:
        if str(path) == STDIN:
            return _unfolded(sys.stdin.buffer, max_bytes)
        with Path(path).open("rb") as file:
            return _unfolded(file, max_bytes)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "EIO")
        raise SettingsError(f"The file cannot be read ({code}).", advice) from None


def _unfolded(file: BinaryIO, max_bytes: int) -> bytes:
    data = _bounded(file.read, max_bytes)
    if not data.startswith(_GZIP):
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            return _bounded(packed.read, max_bytes)
    except (OSError, EOFError, zlib.error):
        raise BrokenJson("The file is gzipped, and damaged.", "Pack it anew, or give it as it is.") from None


def _bounded(read: Callable[[int], bytes], max_bytes: int) -> bytes:
    """Read to the end, or to one byte more than is allowed: a device or a pipe may never end."""
    data = bytearray()
    while piece := read(_PIECE):
        data += piece
        _check(len(data), max_bytes)
    return bytes(data)


def _check(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise SettingsError(
            f"The file is larger than {max_bytes:,} bytes, or unfolds to more.", "Give a smaller part of it."
        )
