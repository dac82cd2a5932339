"""Why a content gives no text, or not all of it.

Unreadable     there is no text
└── Partial    there is more than the text: pages that are pictures
"""

from __future__ import annotations


class Unreadable(Exception):
    """A content gives no text. `reason` is ours, safe to show, and never holds what was recorded."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def sentence(self) -> str:
        """What stands in the record: `text not read (encrypted PDF)`."""
        return f"text not read ({self.reason})"


class Partial(Unreadable):
    """A content gives `text`, but holds more: what is not there must not be taken for absent."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason)
        self.text = text

    @property
    def sentence(self) -> str:
        """What stands in the record: `text read in part (1 of 2 pages without text, perhaps scanned)`."""
        return f"text read in part ({self.reason})"
