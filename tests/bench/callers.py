"""Many callers of one server: what each call took over HTTP, and the bare route that it is held against.

Ours and the bare route answer from one process of their own on one database, and take turns.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response

from tests.bench.table import Row, times

BARE = "/bare"
COLUMNS = ("answer", "callers", "p50 ms", "p95 ms", "calls / s", "× bare p50")


@dataclass(frozen=True, slots=True)
class Call:
    """One call, made ready before the time is taken."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes = b""


async def call_all(
    address: str,
    calls: Sequence[Call],
    callers: int,
    is_good: Callable[[httpx.Response], bool],
    pause_s: float = 0.0,
) -> list[float]:
    """Return the seconds that each call took, so many at a time.

    With a pause each caller waits so long after an answer, and they begin one after the other within it.
    """
    left, taken = iter(calls), list[float]()
    limits = httpx.Limits(max_connections=callers, max_keepalive_connections=callers)
    async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=120) as client:

        async def caller(number: int) -> None:
            await asyncio.sleep(pause_s * number / callers)
            for call in left:
                url = f"{address}{call.path}"
                start = time.perf_counter()
                answer = await client.request(call.method, url, content=call.content, headers=call.headers)
                taken.append(time.perf_counter() - start)
                if not is_good(answer):
                    raise RuntimeError(f"a call was answered with {answer.status_code}, or not as it should")
                await asyncio.sleep(pause_s)

        await asyncio.gather(*(caller(number) for number in range(callers)))
    return taken


def row(name: str, callers: int, taken: Sequence[float], bare: Sequence[float]) -> Row:
    """Return a line of `COLUMNS`."""
    cuts = statistics.quantiles(taken, n=20)
    rate = callers / statistics.fmean(taken)
    share = times(statistics.median(taken) / statistics.median(bare))
    p50, p95 = (f"{1000 * seconds:.1f}" for seconds in (statistics.median(taken), cuts[18]))
    return name, str(callers), p50, p95, f"{rate:,.0f}", share


@contextmanager
def serving(target: Callable[..., None], port: int, *more: Any, processes: int = 1) -> Iterator[str]:
    """Run a server in processes of its own while the block runs; yield its address."""
    new = multiprocessing.get_context("spawn").Process
    started = [new(target=target, args=(port, *more), daemon=True) for _ in range(processes)]
    for process in started:
        process.start()
    address = f"http://127.0.0.1:{port}"
    try:
        while all(process.is_alive() for process in started):
            try:
                httpx.get(f"{address}/healthz", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield address
    finally:
        for process in started:
            process.terminate()
            process.join(10)


def serve(port: int, app: Any, bare: FastAPI) -> None:
    """Serve an application, and the bare one below `BARE`, until the process ends."""

    async def both(scope: Any, receive: Any, send: Any) -> None:
        await (bare if scope.get("path", "").startswith(BARE) else app)(scope, receive, send)

    shared = socket.socket()
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    shared.bind(("127.0.0.1", port))
    config = uvicorn.Config(both, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[shared])


def bare_app(record: Callable[[], None], body: Callable[[], bytes], media_type: str) -> FastAPI:
    """Return a plain application that does one thing in a thread and sends some bytes."""
    app = FastAPI(openapi_url=None)
    turn = asyncio.Lock()  # without it SQLite's waiting is most of what is measured

    async def answer() -> Response:
        async with turn:
            await asyncio.to_thread(record)
        return Response(body(), media_type=media_type)

    app.add_api_route(BARE, answer, methods=["GET", "POST"], response_model=None)
    return app
