"""The wire hands over bounded pieces, whatever the server sends."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import httpx
import pytest

from connectors.errors import NotUnderstoodError, TooLarge
from connectors.limits import MIB
from connectors.wire import MAX_BYTES, BoundedTransport

PIECE = 256 * 1024


class Overlong(httpx.AsyncByteStream):
    """Sends one chunk, and then zeros until it is closed, or far beyond any limit used here."""

    def __init__(self, first: bytes) -> None:
        self._first = first
        self.sent = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        while not self.closed and self.sent < 200_000:
            self.sent += 1_000
            yield bytes(1_000)

    async def aclose(self) -> None:
        self.closed = True


def _client(stream: httpx.AsyncByteStream, **headers: str) -> httpx.AsyncClient:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, stream=stream, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return httpx.AsyncClient(
        transport=BoundedTransport(httpx.MockTransport(answer), default_max_bytes=50 * MIB)
    )


async def test_a_bomb_unfolds_piece_by_piece() -> None:
    bomb = httpx.ByteStream(gzip.compress(bytes(20 * MIB)))
    async with (
        _client(bomb, content_encoding="gzip") as client,
        client.stream("GET", "http://127.0.0.1/x") as response,
    ):
        sizes = [len(piece) async for piece in response.aiter_bytes()]
    assert sum(sizes) == 20 * MIB
    assert max(sizes) <= PIECE


@pytest.mark.parametrize("headers", [{}, {"content_encoding": "gzip"}])
async def test_an_endless_answer_ends_at_the_limit(headers: dict[str, str]) -> None:
    stream = Overlong(gzip.compress(b"{}") if headers else b"{}")
    async with _client(stream, **headers) as client:
        with pytest.raises(TooLarge):
            await client.get("http://127.0.0.1/x", extensions={MAX_BYTES: 10_000})
    assert stream.sent <= 11_000
    assert stream.closed


async def test_a_declared_length_beyond_the_limit_is_refused_unread() -> None:
    stream = Overlong(b"{}")
    async with _client(stream, content_length="20000") as client:
        with pytest.raises(TooLarge):
            await client.get("http://127.0.0.1/x", extensions={MAX_BYTES: 10_000})
    assert stream.sent == 0
    assert stream.closed


async def test_a_compression_that_was_not_asked_for_is_refused() -> None:
    stream = Overlong(b"{}")
    async with _client(stream, content_encoding="br") as client:
        with pytest.raises(NotUnderstoodError):
            await client.get("http://127.0.0.1/x")
    assert stream.closed
