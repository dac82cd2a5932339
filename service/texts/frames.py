"""What parent and child say to each other: a request is one content, a reply one text or one reason."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

REQUEST = struct.Struct("!III")
"""Bytes of the media type, of the declared type, of the content; the three follow."""
REPLY = struct.Struct("!BI")
"""A `Said`, and the bytes of the UTF-8 text that follows."""


class Said(enum.IntEnum):
    """What kind of reply it is."""

    READY = 0
    TEXT = 1
    UNREADABLE = 2
    """The reason follows."""
    PARTLY = 3
    """The reason follows, a line end, and the text that could be read."""


class Limits(NamedTuple):
    """What reading may cost."""

    seconds_per_text: float = 20.0
    memory_bytes: int = 1024 * 1024 * 1024
    """Address space of the child."""
    max_text_characters: int = 2_000_000
    max_bytes: int = 64 * 1024 * 1024
    """Size of one content."""
    seconds_to_start: float = 30.0
    """A machine under load takes its time to import the libraries."""


TOO_LARGE = "too large"
TOO_LONG = "took too long"
BROKE = "broke its reader"
TOO_MUCH_MEMORY = "needs too much memory"
NOT_STARTED = "its reader does not start"
"""Reasons, as they stand in `text not read (...)`."""
