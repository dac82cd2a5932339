"""How much of a body is taken, and for how long it is waited for."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Receive

BODY_S: Final = 30.0
"""Longest that the whole body of one request may take."""


class BodyRefusedError(Exception):
    """The body is too large (413) or comes too slowly (408)."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


def declares_more(headers: Headers, limit: int) -> bool:
    """Tell whether a request says itself that its body is larger than the limit."""
    length = headers.get("content-length", "0")
    return not (length.isascii() and length.isdigit() and len(length) < 16) or int(length) > limit


def bounded(receive: Receive, limit: int, within_s: float = BODY_S) -> Receive:
    """Return a `receive` that raises BodyRefusedError past the limit, or when the time is up.

    The time begins with the first look at the body, and ends with its last piece.
    """
    loop = asyncio.get_running_loop()
    taken, until, is_whole = 0, None, False

    async def watched() -> Message:
        nonlocal taken, until, is_whole
        if is_whole:
            return await receive()
        until = until or loop.time() + within_s
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise BodyRefusedError(408) from None
        taken += len(message.get("body", b""))
        if taken > limit:
            raise BodyRefusedError(413)
        is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return watched


async def read_again(receive: Receive) -> tuple[bytes, Receive]:
    """Return a whole body, and a `receive` that brings it once more before what follows it.

    Raises BodyRefusedError where `receive` does.
    """
    pieces: list[bytes] = []
    kept: list[Message] = []
    while True:
        message = await receive()
        kept.append(message)
        if message["type"] != "http.request":
            break
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            break

    async def again() -> Message:
        return kept.pop(0) if kept else await receive()

    return b"".join(pieces), again
