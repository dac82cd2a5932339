"""The wire: one transport that reaches the allowed origins alone, and never hands over more bytes than
allowed, before or after decompression.

It sits below httpx's own reading and every flow of authentication, so that error bodies and the answers of
token endpoints are bounded, and such endpoints checked, as well. Policy (what is repeated, followed, refused)
is in `connectors.http`.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator

import httpx

from connectors.errors import ForeignLink, NotUnderstoodError, TooLarge
from connectors.limits import MIB
from connectors.origin import origin_of

MAX_BYTES = "max_bytes"
"""Request extension: the limit in bytes for this one answer."""
_PIECE = 256 * 1024
"""How much is inflated at a time, so that a bomb is noticed before it fills the memory."""


class BoundedTransport(httpx.AsyncBaseTransport):
    """Wraps a transport; answers longer than the request's `max_bytes` end in TooLarge.

    A request to an origin that is not in `reachable` ends in ForeignLink before its host is even looked up;
    without `reachable` every origin may be asked.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        default_max_bytes: int = 100 * MIB,
        reachable: frozenset[str] | None = None,
    ) -> None:
        self._inner = inner
        self._default_max_bytes = default_max_bytes
        self._reachable = reachable

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; the answer's stream is bounded and already decompressed."""
        origin = origin_of(request.url)
        if self._reachable is not None and origin not in self._reachable:
            raise ForeignLink(f"A request to {origin} was not sent: it is not an allowed origin.")
        response = await self._inner.handle_async_request(request)
        limit = int(request.extensions.get(MAX_BYTES, self._default_max_bytes))
        try:
            return _bounded(response, limit, origin)
        except NotUnderstoodError:
            await response.aclose()
            raise

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


def _bounded(response: httpx.Response, limit: int, origin: str) -> httpx.Response:
    declared = response.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and len(declared) < 20 and int(declared) > limit:
        raise _too_large(origin, limit)
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    inflate = _inflater(response.headers.get("content-encoding", ""), origin)
    headers = [(k, v) for k, v in response.headers.raw if k.lower() not in _REPLACED]
    return httpx.Response(
        response.status_code,
        headers=headers,
        stream=_BoundedStream(stream, limit, origin, inflate),
        extensions=response.extensions,
    )


_REPLACED = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


def _inflater(encoding: str, origin: str) -> zlib._Decompress | None:
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip"):
        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    raise NotUnderstoodError(f"The server {origin} compresses its answers in a way that was not asked for.")


def _too_large(origin: str, limit: int) -> TooLarge:
    return TooLarge(f"An answer of {origin} is larger than {limit:,} bytes.")


class _BoundedStream(httpx.AsyncByteStream):
    """One answer's bytes, inflated; ends in TooLarge as soon as either count passes the limit."""

    def __init__(
        self, inner: httpx.AsyncByteStream, limit: int, origin: str, inflate: zlib._Decompress | None
    ) -> None:
        self._inner = inner
        self._limit = limit
        self._origin = origin
        self._inflate = inflate

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = sent = 0
        async for raw in self._inner:
            received += len(raw)
            if received > self._limit:
                raise _too_large(self._origin, self._limit)
            for piece in self._pieces(raw):
                sent += len(piece)
                if sent > self._limit:
                    raise _too_large(self._origin, self._limit)
                yield piece
        if self._inflate is not None and received:
            yield self._inflate.flush()
            if not self._inflate.eof:
                raise httpx.RemoteProtocolError("the compressed body ended early")

    def _pieces(self, raw: bytes) -> Iterator[bytes]:
        inflate = self._inflate
        if inflate is None:
            yield raw
            return
        while raw and not inflate.eof:
            try:
                yield inflate.decompress(raw, _PIECE)
            except zlib.error:
                raise NotUnderstoodError(f"The answer of {self._origin} cannot be decompressed.") from None
            raw = inflate.unconsumed_tail

    async def aclose(self) -> None:
        await self._inner.aclose()
