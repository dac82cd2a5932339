"""A long answer line by line (NDJSON), in little memory, and from where it was left off."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple

import httpx

from connectors.auth import NoAuth
from connectors.errors import ForeignLink, NotFhir, TimedOut, error_of_status
from connectors.http import Session, explain_failure
from connectors.origin import origin_of
from connectors.wire import MAX_BYTES

_PARTIAL = 206
_NOTHING_LEFT = 416
"""The range begins where the file ends (RFC 9110 15.5.17)."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-", re.ASCII)


class Line(NamedTuple):
    """One line that is not empty. `text` is None for one that is longer than the limit."""

    text: bytes | None
    end: int
    """How many bytes of the whole, after decompression, come before what follows it."""


async def stream_lines(
    session: Session, url: str, offset: int, *, max_line_bytes: int, max_bytes: int, with_token: bool
) -> AsyncGenerator[Line, None]:
    """Yield every line behind `offset`. Where a server sends no ranges, what comes before is passed over.

    Raises CutOff where the answer ends early: what was yielded is whole, the last `end` is where to go on.
    """
    async with _opened(session, url, offset, max_bytes, with_token) as response:
        if response.status_code == _NOTHING_LEFT:
            return
        position = _begins_at(response, offset, session.origin)
        skip = offset - position
        held, is_long = bytearray(), False
        async with aclosing(_pieces(session, url, response)) as pieces:
            async for piece in pieces:
                data = piece[min(skip, len(piece)) :]
                position += len(piece) - len(data)
                skip -= len(piece) - len(data)
                *whole, rest = data.split(b"\n")
                for part in whole:
                    position += len(part) + 1
                    is_long = is_long or len(held) + len(part) > max_line_bytes
                    text = b"" if is_long else bytes(held + part).strip()
                    if is_long or text:
                        yield Line(None if is_long else text, position)
                    held, is_long = bytearray(), False
                position += len(rest)
                is_long = is_long or len(held) + len(rest) > max_line_bytes
                held = bytearray() if is_long else held + rest
        if is_long or bytes(held).strip():
            yield Line(None if is_long else bytes(held).strip(), position)


def _begins_at(response: httpx.Response, offset: int, origin: str) -> int:
    if response.status_code != _PARTIAL:
        return 0
    found = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
    if found is None or int(found[1]) > offset:
        raise NotFhir(f"The server {origin} sent another part of a file than was asked for.")
    return int(found[1])


@asynccontextmanager
async def _opened(
    session: Session, url: str, offset: int, max_bytes: int, with_token: bool
) -> AsyncIterator[httpx.Response]:
    """Open one answer. A token is sent only where the manifest asks for one: signed links refuse it."""
    origin = origin_of(url)
    if origin not in session.trusted:
        raise ForeignLink(f"A file at {origin} was not read: it is not an allowed origin.")
    headers = {"Accept": "application/fhir+ndjson, application/ndjson"}
    if offset:  # a range counts compressed bytes, where a server compresses: ask it not to
        headers |= {"Range": f"bytes={offset}-", "Accept-Encoding": "identity"}
    request = session.wire.build_request("GET", url, headers=headers, extensions={MAX_BYTES: max_bytes})
    auth = session.auth if with_token else NoAuth()
    try:
        async with asyncio.timeout(session.limits.total_s):
            response = await session.wire.send(request, auth=auth, stream=True)
    except TimeoutError:
        raise TimedOut(f"{origin} did not answer in time.") from None
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError) as failure:
        raise explain_failure(failure, origin) from None
    try:
        is_left_off = bool(offset) and response.status_code == _NOTHING_LEFT
        if response.status_code not in (200, _PARTIAL) and not is_left_off:
            raise error_of_status(response.status_code, origin)
        if "html" in response.headers.get("content-type", ""):
            raise NotFhir(f"The server {origin} answered with a page, not with lines of FHIR.")
        yield response
    finally:
        await response.aclose()


async def _pieces(session: Session, url: str, response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the body as it comes. Silence is bounded, not the whole: a file may take an hour."""
    origin = origin_of(url)
    try:
        async for piece in response.aiter_bytes():
            yield piece
    except (httpx.HTTPError, httpx.StreamError, OSError) as failure:
        error = explain_failure(failure, origin)
        raise error from None
