"""What reading a text may cost, and what parent and child say to each other (`service.apart`)."""

from __future__ import annotations

from typing import NamedTuple

from service.apart.frames import (
    BROKE,
    NOT_STARTED,
    REPLY,
    REQUEST,
    TOO_LARGE,
    TOO_LONG,
    TOO_MUCH_MEMORY,
    Bounds,
    Said,
)

__all__ = [
    "BROKE", "NOT_STARTED", "REPLY", "REQUEST", "TOO_LARGE", "TOO_LONG", "TOO_MUCH_MEMORY", "Limits", "Said",
]  # fmt: skip
_LEAST_REPLY_BYTES = 1024


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

    @property
    def bounds(self) -> Bounds:
        """The same in the words of any child."""
        most = self.max_text_characters * 4 + _LEAST_REPLY_BYTES
        return Bounds(self.seconds_per_text, self.memory_bytes, most, self.seconds_to_start)
