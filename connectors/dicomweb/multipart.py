"""multipart/related as it comes (RFC 2046 5.1, RFC 2387), part by part, with limits on each.

What was complete before a break is kept. Nothing in a header is trusted for a size.
"""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message

import httpx

from connectors.errors import CutOff, NotDicom, TooLarge
from connectors.limits import ImagingLimits

_MAX_BOUNDARY = 70
"""RFC 2046 5.1.1. Orthanc writes longer ones (up to 111), so twice that is read."""


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a content type names. Raises NotDicom where it is no multipart."""
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_boundary("")
    if message.get_content_maintype() != "multipart" or not 0 < len(boundary) <= 2 * _MAX_BOUNDARY:
        raise NotDicom("The PACS did not answer with parts, as was asked for.")
    try:
        return boundary.encode("ascii")
    except UnicodeEncodeError:
        raise NotDicom("The PACS separates its parts by what is no boundary.") from None


class Splitter:
    """Takes bytes as they come, and returns the parts that they complete."""

    def __init__(self, boundary: bytes, max_part_bytes: int, max_head_bytes: int) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._max_part_bytes = max_part_bytes
        self._max_head_bytes = max_head_bytes
        self._held = bytearray(b"\r\n")  # the first delimiter has no line before it
        self._step: Callable[[], bytes | bool] = self._preamble
        self._searched = 0
        self.has_ended = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the parts that end within these bytes. Raises TooLarge, and NotDicom."""
        self._held += piece
        parts = []
        while not self.has_ended:
            done = self._step()
            if isinstance(done, bytes):
                parts.append(done)
            elif not done:
                break
        return parts

    def _preamble(self) -> bool:
        """Skip to the first delimiter."""
        end = self._next_delimiter(self._max_head_bytes, "What stands before the parts of an answer")
        if end is None:
            return False
        return self._after_delimiter(end)

    def _opening(self) -> bool:
        """Tell a further part from the end, behind a delimiter. White space may stand there."""
        line = self._held.find(b"\r\n")
        if self._held.startswith(b"--"):
            self.has_ended = True
            return True
        if line < 0:
            self._refuse_head(len(self._held))
            return False
        if self._held[:line].strip():
            raise NotDicom("The parts of an answer of the PACS cannot be told apart.")
        del self._held[:line]  # its end of line also begins an empty head
        self._step = self._head
        return True

    def _head(self) -> bool:
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            self._refuse_head(len(self._held))
            return False
        self._refuse_head(end)
        del self._held[: end + 2]  # one end of line stays: a body may be empty
        self._searched = 0
        self._step = self._body
        return True

    def _body(self) -> bytes | bool:
        end = self._next_delimiter(self._max_part_bytes + 2, "A part of an answer")
        if end is None:
            return False
        part = bytes(self._held[2:end])
        self._after_delimiter(end)
        return part

    def _after_delimiter(self, end: int) -> bool:
        del self._held[: end + len(self._delimiter)]
        self._searched = 0
        self._step = self._opening
        return True

    def _next_delimiter(self, limit: int, what: str) -> int | None:
        """Return where the next delimiter begins, or None where it has not come yet."""
        found = self._held.find(self._delimiter, self._searched)
        if (found if found >= 0 else len(self._held) - len(self._delimiter)) > limit:
            raise TooLarge(f"{what} of the PACS is larger than {limit:,} bytes.")
        if found < 0:
            self._searched = max(0, len(self._held) - len(self._delimiter))
            return None
        return found

    def _refuse_head(self, size: int) -> None:
        if size > self._max_head_bytes:
            raise TooLarge(f"The head of a part is larger than {self._max_head_bytes:,} bytes.")


class FirstPart:
    """Reads the first part of an answer and hangs up: one instance was asked for, whatever else comes."""

    def __init__(self, media_type: str, max_bytes: int, limits: ImagingLimits) -> None:
        self._media_type = media_type
        self._max_bytes = max_bytes
        self._limits = limits

    async def __call__(self, response: httpx.Response) -> bytes:
        """Return its bytes. Raises NotDicom, TooLarge, and CutOff where the answer ends before it does."""
        content_type = response.headers.get("content-type", "")
        if _media_type(content_type) == self._media_type:  # a single part without a frame: some gateways
            return await response.aread()
        splitter = Splitter(boundary_of(content_type), self._max_bytes, self._limits.max_part_head_bytes)
        async for piece in response.aiter_bytes():
            for part in splitter.feed(piece):
                return part
            if splitter.has_ended:
                raise NotDicom("The PACS answered without a single part.")
        raise CutOff("The answer of the PACS ended before its first part was complete.")


def _media_type(value: str) -> str:
    return value.partition(";")[0].strip().lower()
