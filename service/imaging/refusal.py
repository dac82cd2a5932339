"""Why a content becomes no picture."""

from __future__ import annotations


class Refused(Exception):
    """A content becomes no picture. `reason` is ours, safe to show, and never holds what was recorded."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


BROKEN = "its content is broken"
TRUNCATED = "its pixels are cut short"
NO_PIXELS = "without pixels"
TOO_MANY_PIXELS = "too many pixels"
"""Reasons that several readers give."""
