"""The child process that reads texts: an entry, asked with a content and its types."""

from __future__ import annotations

import os

from service.apart.process import Ended, TookTooLong
from service.apart.process import Process as Child
from service.texts.frames import Limits, Said

__all__ = ["Ended", "Process", "TookTooLong"]


class Process(Child):
    """A child that reads one content at a time. Whoever makes one closes it, from the same thread."""

    def __init__(self, entry: str, limits: Limits) -> None:
        bounds = (limits.seconds_per_text, limits.memory_bytes, limits.max_text_characters)
        arguments = [entry, str(os.getpid()), *map(str, bounds)]
        super().__init__("service.texts.child", arguments, limits.bounds)

    def ask(self, content: bytes, media_type: str, declared: str) -> tuple[Said, str]:
        """Send one content, and return what the child made of it."""
        said, data = self.ask_bytes(content, media_type, declared)
        return said, data.decode("utf-8", "replace")
