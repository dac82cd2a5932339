"""ADT over MLLP on a real socket: frames, answers, limits and hostile senders."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from connectors.admissions.events import Admitted, Cancelled, Discharged, Event
from connectors.admissions.mllp import MllpLimits, MllpServer
from connectors.errors import PlainHttp
from tests.conftest import CANARY
from tests.unit.connectors.test_admissions_adt import PID, PV1, adt, segment

START, END = b"\x0b", b"\x1c\r"
SHORT = MllpLimits(max_message_bytes=20_000, idle_s=5.0, keep_s=0.2, max_connections=3, max_broken=2)


@dataclass
class Keeper:
    """Keeps events in a list, after raising what it was told to raise, or while it hangs."""

    events: list[Event] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    hangs: bool = False

    async def keep(self, event: Event) -> None:
        if self.hangs:
            await asyncio.sleep(60)
        if self.failures:
            raise self.failures.pop(0)
        self.events.append(event)


@asynccontextmanager
async def serving(keeper: Keeper, limits: MllpLimits = SHORT) -> AsyncIterator[MllpServer]:
    server = MllpServer(keeper.keep, UTC, lambda: datetime(2026, 11, 24, tzinfo=UTC), limits=limits)
    async with server:
        yield server


@dataclass
class Sender:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *messages: bytes) -> None:
        self.writer.write(b"".join(START + message + END for message in messages))
        await self.writer.drain()

    async def answer(self) -> list[str]:
        """MSA's fields."""
        async with asyncio.timeout(5):
            block = await self.reader.readuntil(END)
        assert block.startswith(START)
        return block[1:-2].decode("ascii").split("\r")[1].split("|")

    async def is_closed(self) -> bool:
        async with asyncio.timeout(5):
            return not await self.reader.read(1)


@asynccontextmanager
async def sending(server: MllpServer) -> AsyncIterator[Sender]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Sender(reader, writer)
    finally:
        writer.close()


def message(trigger: str, control_id: str) -> bytes:
    return adt(trigger, PID, segment("PV1", **PV1), control_id=control_id)


async def test_messages_are_kept_in_order_and_answered_by_their_own_id() -> None:
    keeper = Keeper()
    async with serving(keeper) as server, sending(server) as sender:
        await sender.send(message("A01", "1"), message("A03", "2"), message("A11", "3"))
        answers = [await sender.answer() for _ in range(3)]
    assert answers == [["MSA", "AA", "1"], ["MSA", "AA", "2"], ["MSA", "AA", "3"]]
    assert [type(event) for event in keeper.events] == [Admitted, Discharged, Cancelled]
    assert server.kept == 3


async def test_a_frame_may_come_in_pieces() -> None:
    keeper = Keeper()
    async with serving(keeper) as server, sending(server) as sender:
        for byte in START + message("A01", "1") + END:
            sender.writer.write(bytes([byte]))
            await sender.writer.drain()
        assert await sender.answer() == ["MSA", "AA", "1"]


async def test_what_could_not_be_kept_is_asked_for_again() -> None:
    keeper = Keeper(failures=[RuntimeError(f"{CANARY} cannot be stored")])
    async with serving(keeper) as server, sending(server) as sender:
        await sender.send(message("A01", "1"))
        assert await sender.answer() == ["MSA", "AR", "1"]
        await sender.send(message("A01", "1"))
        assert await sender.answer() == ["MSA", "AA", "1"]
    assert (len(keeper.events), server.odd["not_kept"]) == (1, 1)


async def test_keeping_that_takes_too_long_is_given_up() -> None:
    async with serving(Keeper(hangs=True)) as server, sending(server) as sender:
        await sender.send(message("A01", "1"))
        assert await sender.answer() == ["MSA", "AR", "1"]


async def test_a_message_sent_twice_has_the_same_key() -> None:
    keeper = Keeper()
    async with serving(keeper) as server, sending(server) as sender:
        await sender.send(message("A01", "1"), message("A01", "1"), message("A01", "2"))
        for _ in range(3):
            await sender.answer()
    first, again, other = (event.key for event in keeper.events)
    assert first == again != other


async def test_a_message_that_is_too_large_is_refused_and_its_rest_never_read_as_another() -> None:
    keeper = Keeper()
    async with serving(keeper) as server, sending(server) as sender:
        await sender.send(message("A01", "1") + b"ZZZ|" + b"x" * 200_000 + b"\r" + message("A03", "2"))
        assert (await sender.answer())[1] == "AR"
        assert await sender.is_closed()
    assert (keeper.events, server.odd["too_large"]) == ([], 1)


async def test_what_speaks_no_mllp_is_hung_up_on_and_the_next_sender_served() -> None:
    keeper = Keeper()
    async with serving(keeper) as server:
        async with sending(server) as stranger:
            stranger.writer.write((b"GET / HTTP/1.1" + END) * 3)
            assert await stranger.is_closed()
        async with sending(server) as sender:
            await sender.send(message("A01", "1"))
            assert await sender.answer() == ["MSA", "AA", "1"]
    assert server.odd["broken_frame"] == 3


async def test_a_frame_that_is_broken_costs_only_itself() -> None:
    async with serving(Keeper()) as server, sending(server) as sender:
        sender.writer.write(b"noise" + END)
        await sender.send(message("A01", "1"))
        assert await sender.answer() == ["MSA", "AA", "1"]


async def test_a_connection_that_ends_in_mid_message_admits_nobody() -> None:
    keeper = Keeper()
    async with serving(keeper) as server, sending(server) as sender:
        sender.writer.write(START + message("A01", "1"))
        await sender.writer.drain()
        sender.writer.write_eof()
        assert await sender.is_closed()
    assert server.odd["connection_ended_in_mid_message"] == 1
    assert keeper.events == []


async def test_silence_ends_a_connection() -> None:
    limits = MllpLimits(idle_s=0.1)
    async with serving(Keeper(), limits) as server, sending(server) as sender:
        sender.writer.write(START + b"MSH|")
        assert await sender.is_closed()


async def test_more_connections_than_allowed_are_turned_away() -> None:
    async with serving(Keeper()) as server, AsyncExitStack() as stack:
        for number in range(3):
            sender = await stack.enter_async_context(sending(server))
            await sender.send(message("A01", str(number)))
            assert await sender.answer() == ["MSA", "AA", str(number)]
        fourth = await stack.enter_async_context(sending(server))
        assert await fourth.is_closed()
    assert server.odd["too_many_connections"] == 1


async def test_hostile_bytes_never_end_the_server(caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(7)
    keeper = Keeper()
    whole = message("A01", "1").replace(b"123", CANARY.encode())
    async with serving(keeper) as server:
        for _ in range(60):
            data = bytearray(START + whole + END)
            for _ in range(dice.randrange(1, 12)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            async with sending(server) as sender:
                sender.writer.write(bytes(data))
                sender.writer.write_eof()
                async with asyncio.timeout(5):
                    await sender.reader.read()
        async with sending(server) as sender:
            await sender.send(message("A01", "last"))
            assert await sender.answer() == ["MSA", "AA", "last"]
    assert keeper.events[-1].key.endswith("last/A01")
    assert CANARY not in caplog.text


async def test_open_connections_end_with_the_server() -> None:
    async with serving(Keeper()) as server, sending(server) as sender:
        await sender.send(message("A01", "1"))
        await sender.answer()
        await server.__aexit__(None, None, None)
        with pytest.raises((ConnectionError, AssertionError)):
            assert not await sender.is_closed()
        await server.__aenter__()


async def test_unencrypted_messages_from_other_machines_must_be_allowed() -> None:
    server = MllpServer(Keeper().keep, UTC, lambda: datetime.now(UTC), host="192.0.2.1")
    with pytest.raises(PlainHttp):
        await server.__aenter__()
