"""A FHIR server on a loopback socket that fails on purpose, byte by byte. Reusable by any test.

    async with FaultServer() as server:
        server.on("GET", "/fhir/Patient/1", Reply(json={...}))           # path without query
        server.on("GET", "/fhir/Observation", Reply(status=503), Reply(json={...}))   # first, then always
        server.on("POST", "/fhir", Cut(after=10))

What was asked for is in `server.requests`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json as json_module
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

FHIR_JSON = "application/fhir+json"


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json_module.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """One answer. `cut_after` closes the connection after so many bytes of body; `delay_s` comes first."""

    status: int = 200
    json: Any = None
    body: bytes | None = None
    content_type: str = FHIR_JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    delay_s: float = 0.0

    def content(self) -> bytes:
        """The bytes of the body."""
        if self.body is not None:
            return self.body
        return b"" if self.json is None else json_module.dumps(self.json).encode()


@dataclass(frozen=True)
class HangUp:
    """Close the connection without a word."""


@dataclass(frozen=True)
class Raw:
    """Send these bytes instead of an HTTP answer."""

    data: bytes


@dataclass(frozen=True)
class Endless:
    """Send these bytes, and then the piece again and again until the client hangs up."""

    data: bytes
    piece: bytes


Answer = Reply | HangUp | Raw | Endless
Handler = Callable[[Request], Answer]


class FaultServer:
    """One server on 127.0.0.1 and a free port, up for the length of its context."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._answers: dict[tuple[str, str], list[Answer | Handler]] = {}
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.requests: list[Request] = []

    @property
    def root_url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """The FHIR base URL."""
        return f"{self.root_url}/fhir"

    def on(self, method: str, path: str, *answers: Answer | Handler) -> None:
        """Answer this path (without query) with these, one after the other; the last one stays."""
        self._answers[method, path] = list(answers)

    def asked(self, method: str, path: str) -> list[Request]:
        """Return the requests for one path."""
        return [r for r in self.requests if (r.method, r.path) == (method, path)]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._open.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first = await reader.readexactly(1)
        if not first.isalpha():  # a TLS handshake: answer as plain HTTP servers do
            writer.write(b"HTTP/1.1 400 X\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return False
        request = await _read_request(first, reader)
        self.requests.append(request)
        answer = self.answer(request)
        if isinstance(answer, HangUp):
            return False
        if isinstance(answer, Raw):
            writer.write(answer.data)
            await writer.drain()
            return False
        if isinstance(answer, Endless):
            writer.write(answer.data)
            while True:  # ends by ConnectionError
                writer.write(answer.piece)
                await writer.drain()
        await asyncio.sleep(answer.delay_s)
        content = answer.content()
        headers = {"Content-Type": answer.content_type, "Content-Length": str(len(content)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} X", *(f"{k}: {v}" for k, v in headers.items() if v), "", ""]
        writer.write("\r\n".join(lines).encode() + content[: answer.cut_after])
        await writer.drain()
        return answer.cut_after is None

    def answer(self, request: Request) -> Answer:
        """Return what is answered to a request, whether it came by a socket or not."""
        answers = self._answers.get((request.method, request.path))
        if not answers:
            return Reply(404, json={"resourceType": "OperationOutcome", "issue": [{"code": "not-found"}]})
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer(request) if callable(answer) else answer


async def _read_request(first: bytes, reader: asyncio.StreamReader) -> Request:
    head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.rstrip().split("\r\n")
    method, target, _ = start.split(" ")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    query = tuple(parse_qsl(parts.query, keep_blank_values=True))
    return Request(method, parts.path, query, headers, body)
