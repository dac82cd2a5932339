"""Our own server process: started once, watched, started again, ended with us. A stand-in serves for vLLM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.engines import ROOT, stand_in
from service.engine.leash import Log
from service.engine.server import EngineServer, free_port
from service.errors import EngineError

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@asynccontextmanager
async def server(tmp_path: Path, *behaviour: str, **settings: Any) -> AsyncIterator[EngineServer]:
    chosen: dict[str, Any] = {"on_progress": lambda _: None, "start_timeout_s": 60.0} | settings
    one = EngineServer(
        lambda port: stand_in(port, *behaviour), ENVIRONMENT, tmp_path / "engine.log", **chosen
    )
    try:
        yield one
    finally:
        await one.aclose()


async def about(url: str) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        answer: dict[str, Any] = (await client.get(f"{url}/about")).json()
        return answer


async def crash(url: str) -> None:
    async with httpx.AsyncClient() as client:
        with contextlib.suppress(httpx.TransportError):
            await client.get(f"{url}/crash")


def runs(process_id: int) -> bool:
    """True while the process is there and not merely a zombie."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(*process_ids: int, within_s: float = 20.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if not any(runs(one) for one in process_ids):
            return True
        time.sleep(0.05)
    return False


async def test_many_callers_start_one_server(tmp_path: Path) -> None:
    said: list[str] = []
    async with server(tmp_path, on_progress=said.append) as one:
        urls = await asyncio.gather(*(one.ready() for _ in range(10)))
        assert len(set(urls)) == 1
        assert await one.ready() == urls[0]
        assert one.starts == 1
    assert said == ["Starting the engine", "The engine is ready"]


async def test_a_caller_that_gives_up_does_not_stop_the_start_for_the_others(tmp_path: Path) -> None:
    async with server(tmp_path) as one:
        impatient = asyncio.create_task(one.ready())
        patient = asyncio.create_task(one.ready())
        await asyncio.sleep(0.01)
        impatient.cancel()
        assert (await patient).startswith("http://127.0.0.1:")
        assert one.starts == 1


async def test_the_server_sees_only_the_environment_it_is_given(tmp_path: Path) -> None:
    async with server(tmp_path) as one:
        seen = (await about(await one.ready()))["environment"]
    assert set(seen) - {"LC_CTYPE", "PWD", "SHLVL", "_"} == set(ENVIRONMENT)


async def test_closing_ends_the_server_and_its_children(tmp_path: Path) -> None:
    async with server(tmp_path) as one:
        ids = await about(await one.ready())
        leash_id = one.process_id
        assert leash_id
        assert all(runs(number) for number in (ids["self"], ids["child"], leash_id))
    assert await asyncio.to_thread(gone, ids["self"], ids["child"], leash_id, within_s=1.0)
    with pytest.raises(EngineError, match="stopped"):
        await one.ready()


async def test_a_server_that_ignores_being_asked_to_end_is_killed(
    tmp_path: Path,
) -> None:
    async with server(tmp_path, "ignore-sigterm") as one:
        ids = await about(await one.ready())
    assert await asyncio.to_thread(gone, ids["self"], ids["child"], within_s=1.0)


async def test_after_a_crash_the_next_call_starts_it_again(tmp_path: Path) -> None:
    async with server(tmp_path) as one:
        url = await one.ready()
        ids = await about(url)
        await crash(url)
        assert await asyncio.to_thread(gone, ids["self"], ids["child"], one.process_id or 0)
        again = await about(await one.ready())
        assert again["self"] != ids["self"]
        assert one.starts == 2


async def test_three_crashes_within_ten_minutes_are_the_end(tmp_path: Path) -> None:
    now = [0.0]
    async with server(tmp_path, clock=lambda: now[0]) as one:
        for _ in range(3):
            url = await one.ready()
            leash_id = one.process_id
            assert leash_id
            await crash(url)
            assert await asyncio.to_thread(gone, leash_id)
        with pytest.raises(EngineError, match="crashed 3 times within 10 minutes") as caught:
            await one.ready()
        assert str(tmp_path / "engine.log") in caught.value.advice
        now[0] = 601.0
        assert await one.ready()


async def test_a_server_that_ends_while_it_starts_is_said_with_the_place_of_its_log(tmp_path: Path) -> None:
    async with server(tmp_path, "exit-at-once") as one:
        with pytest.raises(EngineError, match="ended while it was starting") as caught:
            await one.ready()
        assert one.starts == 1
    assert str(tmp_path / "engine.log") in caught.value.advice
    assert b"exit-at-once" in (tmp_path / "engine.log").read_bytes()


async def test_a_start_that_never_gets_ready_is_given_up_and_ended(tmp_path: Path) -> None:
    said: list[str] = []
    async with server(tmp_path, "never-ready", start_timeout_s=1.0, on_progress=said.append) as one:
        starting = asyncio.create_task(one.ready())
        await asyncio.sleep(0.3)
        leash_id = one.process_id
        assert leash_id
        with pytest.raises(EngineError, match="not ready after 1 s"):
            await starting
        assert await asyncio.to_thread(gone, leash_id)


async def test_a_port_that_another_process_took_is_changed_for_another(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ports = iter([other.getsockname()[1], free_port()])
        async with server(tmp_path, pick_port=lambda: next(ports)) as one:
            url = await one.ready()
            assert not url.endswith(str(other.getsockname()[1]))
            assert one.starts == 2


async def test_one_server_serves_several_event_loops(tmp_path: Path) -> None:
    def both() -> tuple[str, str, int]:
        one = EngineServer(stand_in, ENVIRONMENT, tmp_path / "engine.log", on_progress=lambda _: None)
        try:
            return asyncio.run(one.ready()), asyncio.run(one.ready()), one.starts
        finally:
            one.close()

    first, second, starts = await asyncio.to_thread(both)
    assert first == second
    assert starts == 1


PARENT = """
    import asyncio, json, sys
    from pathlib import Path
    import httpx
    from fixtures.engines import stand_in
    from service.engine.server import EngineServer

    async def main():
        log = Path(sys.argv[1])
        server = EngineServer(stand_in, {"PATH": "/usr/bin:/bin"}, log, on_progress=lambda _: None)
        try:
            url = await server.ready()
            async with httpx.AsyncClient() as client:
                about = (await client.get(url + "/about")).json()
            print(server.process_id, about["self"], about["child"], flush=True)
            await asyncio.sleep(60)
        finally:
            await server.aclose()

    asyncio.run(main())
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process of ours with a server, and the ids of the leash, the server and the server's child."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path / "engine.log")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        ids = [int(word) for word in process.stdout.readline().split()]
        assert len(ids) == 3
        assert all(runs(one) for one in ids)
        yield process, ids
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_we_end_the_engine_ends_too(
    parent: tuple[subprocess.Popen[str], list[int]], number: signal.Signals
) -> None:
    process, ids = parent
    process.send_signal(number)
    process.wait(15)
    assert gone(*ids)


def test_when_the_leash_is_killed_the_server_ends_too(
    parent: tuple[subprocess.Popen[str], list[int]],
) -> None:
    _, (leash_id, server_id, _) = parent
    os.kill(leash_id, signal.SIGKILL)
    assert gone(server_id)


def test_the_log_is_kept_small_and_for_its_owner_alone(tmp_path: Path) -> None:
    log = Log(tmp_path / "engine.log", limit_bytes=1000)
    for number in range(30):
        log.write(f"{number:03} {'x' * 95}\n".encode())
    log._file.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 1000
    assert b"029" in (tmp_path / "engine.log").read_bytes()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())
