"""A server for ADT messages over MLLP (HL7 v2 Transport: Minimal Lower Layer Protocol, release 1).

Each message is answered when its events are kept, not before: a sender that got no answer sends it
again, so none is lost, and who keeps events ignores the key it already has. Messages of one connection come
one after the other, in order. Nothing of a message reaches a log or an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from types import TracebackType
from typing import Any, Self

from hl7.mllp import InvalidBlockError, start_hl7_server  # type: ignore[import-untyped]

from connectors.admissions.adt import Header, Message, Verdict, acknowledge, read_message
from connectors.admissions.events import Event
from connectors.errors import PlainHttp
from connectors.limits import MIB
from connectors.origin import is_loopback

_PIECE = 64 * 1024
Keep = Callable[[Event], Awaitable[None]]
"""Keeps an event for good before it returns. Raises whatever it likes where it cannot."""


@dataclass(frozen=True, slots=True)
class MllpLimits:
    """What one sender is given. Seconds end in `_s`, sizes are bytes."""

    max_message_bytes: int = MIB
    """An ADT message has some kB; pictures in Z-segments make more."""
    max_connections: int = 32
    idle_s: float = 3_600.0
    """Longest silence, and longest time one message may take. Interface engines keep connections open."""
    keep_s: float = 30.0
    """Longest time that keeping one event may take; then the sender is asked to come again."""
    max_broken: int = 20
    """Broken frames after which a connection is closed: what sends them does not speak MLLP."""
    linger_s: float = 1.0
    """How long the rest of a message that is too large is read and thrown away."""
    allow_plain: bool = False
    """Unencrypted messages from other machines: where the network itself is trusted."""


@dataclass(slots=True)
class MllpServer:
    """Listens while its context is open. `odd` counts what gave no event, `kept` what did."""

    keep: Keep
    zone: tzinfo
    """The site's time zone, for times without an offset."""
    now: Callable[[], datetime]
    """The present instant, aware."""
    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one, and is replaced by it."""
    tls: ssl.SSLContext | None = None
    limits: MllpLimits = field(default_factory=MllpLimits)
    kept: int = 0
    odd: Counter[str] = field(default_factory=Counter)
    _server: asyncio.Server | None = field(default=None, repr=False)
    _open: dict[asyncio.Task[Any], Any] = field(default_factory=dict, repr=False)

    async def __aenter__(self) -> Self:
        if self.tls is None and not self.limits.allow_plain and not is_loopback(self.host):
            raise PlainHttp(
                "ADT messages would travel unencrypted from other machines.",
                "Give a certificate, or allow plain MLLP if the network itself is trusted.",
            )
        self._server = await start_hl7_server(
            self._serve, self.host, self.port, limit=self.limits.max_message_bytes, ssl=self.tls
        )
        assert self._server is not None
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task, writer in list(self._open.items()):
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: Any, writer: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._open) >= self.limits.max_connections:
                self.odd["too_many_connections"] += 1
                return
            self._open[task] = writer
            await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.odd["connection_ended_in_mid_message"] += 1
        finally:
            self._open.pop(task, None)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, reader: Any, writer: Any) -> None:
        broken = 0
        while broken <= self.limits.max_broken:
            try:
                async with asyncio.timeout(self.limits.idle_s):
                    block = await reader.readblock()
            except asyncio.IncompleteReadError as ended:
                if ended.partial:
                    raise
                return
            except InvalidBlockError:
                self.odd["broken_frame"] += 1
                broken += 1
                continue
            except ValueError:  # longer than the limit, the rest of it still to come
                self.odd["too_large"] += 1
                await self._answer(writer, Message(Header(), (), Verdict.REJECTED), None)
                await self._discard(reader)
                return
            await self._take(block, writer)

    async def _discard(self, reader: Any) -> None:
        """Read on for a moment: closed with bytes unread, TCP may drop the answer that is under way."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.linger_s):
                while await reader.read(_PIECE):
                    pass

    async def _take(self, block: bytes, writer: Any) -> None:
        message = read_message(block, self.zone)
        if message.odd:
            self.odd[message.odd] += 1
        verdict = await self._keep(message.events)
        await self._answer(writer, message, verdict)

    async def _keep(self, events: tuple[Event, ...]) -> Verdict | None:
        for event in events:
            try:
                async with asyncio.timeout(self.limits.keep_s):
                    await self.keep(event)
            except Exception:  # whatever the keeper's trouble is, the sender has to come again
                self.odd["not_kept"] += 1
                return Verdict.REJECTED
            self.kept += 1
        return None

    async def _answer(self, writer: Any, message: Message, verdict: Verdict | None) -> None:
        writer.writeblock(acknowledge(message, self.now(), verdict))
        async with asyncio.timeout(self.limits.idle_s):
            await writer.drain()
