"""What is told of a generation as server-sent events (HTML Living Standard, 9.2).

An event's `id` is its number in the log: a browser that lost the connection sends it along, and is told what
follows. Proxies cut a stream that is silent, so one in which nothing happens says so in a comment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse

from service.errors import StoreError
from service.ports.ondemand import Told

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT_S: Final = 10.0
RETRY_MS: Final = 2000
LAST: Final = 1_000_000_000
_END: Final = b"\n\n"


def last_event_id(request: Request) -> int | None:
    """Return the number of the event that a client has seen last, 0 for none; None where it is no number."""
    said = request.headers.get("last-event-id") or "0"
    return int(said) if said.isascii() and said.isdigit() and len(said) < 11 and int(said) <= LAST else None


def event_stream(told: AsyncIterator[Told], heartbeat_s: float = HEARTBEAT_S) -> StreamingResponse:
    """Return the answer that tells each event as it comes, and ends after the last."""
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(lines(told, heartbeat_s), media_type=MEDIA_TYPE, headers=headers)


async def lines(told: AsyncIterator[Told], heartbeat_s: float = HEARTBEAT_S) -> AsyncIterator[bytes]:
    """Yield the stream: how soon to come again, every event, and a comment wherever nothing else is said."""
    yield f"retry: {RETRY_MS}\n\n".encode()
    waiting = asyncio.ensure_future(anext(told, None))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=heartbeat_s)
            if not done:
                yield b":\n\n"
                continue
            try:
                event = waiting.result()
            except StoreError:  # a client that comes again is told what it missed
                return
            if event is None:
                return
            yield written(event)
            waiting = asyncio.ensure_future(anext(told, None))
    finally:
        waiting.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await waiting


def written(event: Told) -> bytes:
    """Return one event. JSON holds no line break, so that no text of a chart begins a line of ours."""
    data = msgspec.json.encode(dict(event.data))
    return f"id: {event.seq}\nevent: {event.kind.value}\ndata: ".encode() + data + _END
