"""The clock, and rights that are held until they are closed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

Clock = Callable[[], datetime]
"""Aware UTC now; passed in, so that tests freeze it."""


LASTING = "lasting:"
"""What the key of a lock begins with that a process holds as long as it lives: no other key shares it."""


class Closes(Protocol):
    """Something held until it is closed."""

    def close(self) -> None:
        """Let it go."""
        ...


class Right(Closes, Protocol):
    """A right that is held for long, until it is closed, its process ends, or the database is gone."""

    def is_held(self) -> bool:
        """Tell whether it still is: a restart of the database ends it. Raises nothing."""
        ...
