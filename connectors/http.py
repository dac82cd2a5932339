"""How we talk to one server: the only policy layer over httpx.

It decides what is repeated (never an unsafe write), how long is waited, which redirects and links are
followed (same origin, by hand), where requests go (the configured and allow-listed origins) and where
credentials do (the configured one), and which error a failure is. It must never put a URL, which may hold a
patient id, into a log or a message.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path

import httpx

from connectors.auth import Auth, NoAuth
from connectors.errors import (
    BadUrl,
    ConnectorError,
    CutOff,
    ForeignLink,
    NoSuchHost,
    NotFhir,
    NothingListens,
    RequestRejected,
    TimedOut,
    UnreachableError,
    UntrustedTls,
    error_of_status,
)
from connectors.limits import Limits
from connectors.origin import check_base_url, follow, origin_of
from connectors.wire import MAX_BYTES, BoundedTransport

Params = Sequence[tuple[str, str]]
"""Query parameters in order; names repeat."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_RETRIES_OF_500 = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """One successful answer (2xx), read to its end and decompressed. `url` is where it finally came from."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str


@dataclass(slots=True)
class Meter:
    """Counts what one piece of work cost: requests sent (repetitions too) and bytes of answers."""

    requests: int = 0
    bytes: int = 0


_METER: ContextVar[Meter | None] = ContextVar("connectors_meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Count the exchanges of this block and of the tasks it starts; a block around it counts them too.

    What was counted reaches the outer meter when this block ends, by an error as well.
    """
    outer, meter = _METER.get(), Meter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)
        if outer is not None:
            outer.requests += meter.requests
            outer.bytes += meter.bytes


@dataclass(frozen=True, slots=True)
class Patience:
    """How waiting is done; tests pass their own so that they do not wait."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    """Uniform in [0, 1)."""
    now: Callable[[], float] = time.time
    """Seconds since the epoch, to read a Retry-After that is a date."""


Explain = Callable[[int, bytes, str, str], ConnectorError]
"""(status, body, content type, origin) → the error of an answer that is no success."""


Reading = Callable[[httpx.Response], Awaitable[bytes]]
"""How the body of a successful answer is read: all of it, or as much as is wanted."""


async def read_whole(response: httpx.Response) -> bytes:
    """Read an answer to its end."""
    return await response.aread()


def explain_status(status: int, _body: bytes, _content_type: str, origin: str) -> ConnectorError:
    """Explain an answer by its status alone."""
    return error_of_status(status, origin)


@dataclass(slots=True)
class Session:
    """The connection to one server. Use it as an async context manager, or call `aclose`."""

    base_url: str
    auth: Auth = field(default_factory=NoAuth)
    limits: Limits = field(default_factory=Limits)
    transport: httpx.AsyncBaseTransport | None = None
    allowed_origins: tuple[str, ...] = ()
    ca_file: Path | None = None
    patience: Patience = field(default_factory=Patience)
    explain: Explain = explain_status
    origin: str = field(init=False)
    trusted: frozenset[str] = field(init=False)
    _seats: asyncio.Semaphore = field(init=False, repr=False)
    _client: httpx.AsyncClient = field(init=False, repr=False)

    def __post_init__(self) -> None:
        silence_wire_loggers()
        self.base_url = check_base_url(self.base_url, allow_plain_http=self.limits.allow_plain_http)
        self.origin = origin_of(self.base_url)
        plain = self.limits.allow_plain_http
        allowed = (check_base_url(one, allow_plain_http=plain) for one in self.allowed_origins)
        self.trusted = frozenset({self.origin, *map(origin_of, allowed)})
        self._seats = asyncio.Semaphore(self.limits.concurrency)
        wire = self.transport or network(self.limits, self.ca_file)
        self._client = httpx.AsyncClient(
            transport=BoundedTransport(wire, self.limits.max_bytes, self.trusted | self.auth.origins),
            timeout=httpx.Timeout(
                self.limits.read_s, connect=self.limits.connect_s, pool=self.limits.total_s
            ),
            headers={"Accept-Encoding": "gzip", "User-Agent": "epicrisis"},
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    @property
    def wire(self) -> httpx.AsyncClient:
        """The client itself, its byte limits included: for answers that are read piece by piece."""
        return self._client

    def url(self, path: str) -> str:
        """Return the URL of a path below the base URL."""
        return f"{self.base_url}/{path.lstrip('/')}" if path else self.base_url

    async def send(
        self,
        method: str,
        url: str,
        *,
        repeatable: bool,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        max_bytes: int | None = None,
        reading: Reading = read_whole,
    ) -> Answer:
        """Return the answer once a seat is free, repeating what may be repeated. Raises ConnectorError.

        Who we are is shown to the base URL's own origin alone.
        """
        if origin_of(url) not in self.trusted:
            raise ForeignLink(f"A request to {origin_of(url)} was not sent: it is not an allowed origin.")
        request = self._client.build_request(
            method,
            url,
            params=list(params) if params else None,
            headers=dict(headers or {}),
            content=content,
            extensions={MAX_BYTES: max_bytes or self.limits.max_bytes},
        )
        attempt = 0
        async with self._seats:
            while True:
                try:
                    return await self._follow_redirects(request, reading)
                except ConnectorError as failure:
                    if not repeatable or not failure.repeatable or attempt >= self._retries(failure):
                        raise
                    pause_s = self._pause_s(failure, attempt)
                attempt += 1
                await self.patience.sleep(pause_s)

    async def _follow_redirects(self, request: httpx.Request, reading: Reading) -> Answer:
        for _ in range(_MAX_REDIRECTS + 1):
            status, headers, body = await self._exchange(request, reading)
            if status in _REDIRECTS and request.method == "GET" and "location" in headers:
                target = follow(headers["location"], str(request.url), frozenset({origin_of(request.url)}))
                request = self._client.build_request(
                    "GET", target, headers=request.headers, extensions=request.extensions
                )
                continue
            if 200 <= status < 300:
                return Answer(status, headers, body, str(request.url))
            raise self._error(status, headers, body, origin_of(request.url))
        raise RequestRejected(f"The server {self.origin} redirects in a circle.")

    async def _exchange(self, request: httpx.Request, reading: Reading) -> tuple[int, httpx.Headers, bytes]:
        origin = origin_of(request.url)
        meter = _METER.get() or Meter()
        meter.requests += 1
        try:
            async with asyncio.timeout(self.limits.total_s):
                auth = self.auth if origin == self.origin else NoAuth()
                response = await self._client.send(request, auth=auth, stream=True)
                try:
                    body = await (reading if response.is_success else read_whole)(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise _timed_out(origin) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError, OSError) as failure:
            raise explain_failure(failure, origin) from None
        meter.bytes += response.num_bytes_downloaded
        return response.status_code, response.headers, body

    def _error(self, status: int, headers: httpx.Headers, body: bytes, origin: str) -> ConnectorError:
        error = self.explain(status, body, headers.get("content-type", ""), origin)
        error.retry_after_s = parse_retry_after(headers.get("retry-after", ""), self.patience.now())
        return error

    def _retries(self, failure: ConnectorError) -> int:
        return min(self.limits.retries, _RETRIES_OF_500) if failure.status == 500 else self.limits.retries

    def _pause_s(self, failure: ConnectorError, attempt: int) -> float:
        cap = self.limits.retry_after_cap_s
        if failure.retry_after_s is not None:
            return min(failure.retry_after_s, cap)
        return float(min(self.limits.backoff_s * 2.0**attempt, cap) * self.patience.jitter())


def silence_wire_loggers() -> None:
    """Keep httpx and httpcore from logging whole URLs, patient ids included, at INFO and DEBUG."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def parse_retry_after(value: str, now: float) -> float | None:
    """Return the seconds that a Retry-After asks for (RFC 9110 10.2.3: seconds or a date), or None."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - now)


@cache
def _public_trust() -> ssl.SSLContext:
    """Return the trust in public authorities, read once: that takes 30 ms, and pages open a client each."""
    return ssl.create_default_context()


def network(limits: Limits, ca_file: Path | None = None) -> httpx.AsyncHTTPTransport:
    """Return the real transport. It reads no proxies from the environment: nothing leaves unasked."""
    context = _public_trust() if ca_file is None else ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=str(ca_file))
        except (OSError, ValueError):
            raise UntrustedTls("The CA file cannot be read, or holds no certificate.") from None
    pool = httpx.Limits(max_connections=limits.concurrency * 2, max_keepalive_connections=limits.concurrency)
    return httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=pool)


def explain_failure(failure: BaseException, origin: str) -> ConnectorError:
    """Return the error for what httpx or the socket raised: DNS, TLS, refused, timed out or cut off."""
    chain = _chain(failure)
    if any(isinstance(cause, httpx.TimeoutException | TimeoutError) for cause in chain):
        return _timed_out(origin)
    if any(isinstance(cause, socket.gaierror) for cause in chain):
        return NoSuchHost(f"The host of {origin} is not known (DNS).")
    if any(isinstance(cause, ssl.SSLError) for cause in chain):
        return UntrustedTls(f"The TLS connection to {origin} failed: {_tls_reason(chain)}.")
    if any(isinstance(cause, ConnectionRefusedError) for cause in chain):
        return NothingListens(f"The connection to {origin} was refused.")
    if isinstance(failure, httpx.InvalidURL | httpx.UnsupportedProtocol | UnicodeError):
        # httpx reads the host of a redirect that nobody has asked it to follow, and idna refuses some
        return BadUrl("A URL is not an http or https address.")
    if isinstance(failure, httpx.ConnectError):
        return UnreachableError(f"{origin} cannot be reached.", "Check the network between here and there.")
    if isinstance(failure, httpx.RemoteProtocolError) and not _ended_early(failure):
        return NotFhir(f"What answers at {origin} does not speak HTTP.")
    return CutOff(f"The connection to {origin} was cut before the answer was complete.")


def _chain(failure: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    todo: list[BaseException | None] = [failure]
    while todo and len(found) < 50:
        cause = todo.pop()
        if cause is None or cause in found:
            continue
        found.append(cause)
        todo += [cause.__cause__, cause.__context__]
        if isinstance(cause, BaseExceptionGroup):
            todo += cause.exceptions
    return found


def _tls_reason(chain: list[BaseException]) -> str:
    """Name the reason in our own words: OpenSSL's text can quote names out of a certificate."""
    if not any(isinstance(cause, ssl.SSLCertVerificationError) for cause in chain):
        return "the handshake was not completed"
    codes = [cause.verify_code for cause in chain if isinstance(cause, ssl.SSLCertVerificationError)]
    return _VERIFY_CODES.get(codes[0], "its certificate is not trusted")


_VERIFY_CODES = {10: "its certificate has expired", 62: "its certificate is for another host name"}
"""X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_HOSTNAME_MISMATCH (OpenSSL x509_vfy.h)."""


def _ended_early(failure: httpx.RemoteProtocolError) -> bool:
    text = str(failure).lower()
    return any(words in text for words in ("disconnected", "closed", "ended early", "incomplete"))


def _timed_out(origin: str) -> TimedOut:
    return TimedOut(f"{origin} did not answer in time.")
