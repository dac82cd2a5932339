"""What parent and child say to each other: a request is one content with two words, a reply some bytes."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

REQUEST = struct.Struct("!III")
"""Bytes of the first word, of the second word, of the content; the three follow."""
REPLY = struct.Struct("!BI")
"""A `Said`, and the number of bytes that follow."""


class Said(enum.IntEnum):
    """What kind of reply it is."""

    READY = 0
    TEXT = 1
    """What was asked for follows."""
    UNREADABLE = 2
    """The reason follows."""
    PARTLY = 3
    """The reason follows, a line end, and what could be read."""


class Bounds(NamedTuple):
    """What one content may cost."""

    seconds: float
    memory_bytes: int
    """Address space of the child."""
    max_reply_bytes: int
    seconds_to_start: float
    """A machine under load takes its time to import the libraries."""


TOO_LARGE = "too large"
TOO_LONG = "took too long"
BROKE = "broke its reader"
TOO_MUCH_MEMORY = "needs too much memory"
NOT_STARTED = "its reader does not start"
"""Reasons that need no word of what was read."""
