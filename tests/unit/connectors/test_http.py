"""The policy: what is repeated, how long is waited, where a request goes. The wire is httpx's own double."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from connectors.errors import ConnectorError, ForeignLink, ServerFailed, Throttled
from connectors.http import Patience, Session, metered, parse_retry_after
from connectors.limits import Limits

BASE = "https://ehr.example/fhir"


class Waiting:
    """A sleep that only remembers."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    @property
    def patience(self) -> Patience:
        return Patience(sleep=self.sleep, jitter=lambda: 1.0, now=lambda: 1_000_000_000.0)


def _session(answer: Callable[[httpx.Request], httpx.Response], waiting: Waiting, **limits: float) -> Session:
    return Session(
        BASE,
        transport=httpx.MockTransport(answer),
        limits=Limits(**limits),  # type: ignore[arg-type]
        patience=waiting.patience,
    )


def _in_turn(*responses: httpx.Response) -> Callable[[httpx.Request], httpx.Response]:
    left = list(responses)
    return lambda _request: left.pop(0)


async def _get(session: Session, repeatable: bool = True, method: str = "GET") -> bytes:
    return (await session.send(method, f"{BASE}/x", repeatable=repeatable)).body


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_passing_failure_is_repeated_with_growing_pauses(status: int) -> None:
    waiting = Waiting()
    bad = httpx.Response(status)
    session = _session(_in_turn(bad, httpx.Response(status), httpx.Response(200, content=b"ok")), waiting)
    assert await _get(session) == b"ok"
    assert waiting.slept == [0.5, 1.0]


async def test_repetition_ends() -> None:
    waiting = Waiting()
    session = _session(lambda _: httpx.Response(503), waiting, retries=2)
    with pytest.raises(ServerFailed):
        await _get(session)
    assert len(waiting.slept) == 2


async def test_a_500_is_tried_once_more_only() -> None:
    waiting = Waiting()
    session = _session(lambda _: httpx.Response(500), waiting)
    with pytest.raises(ServerFailed):
        await _get(session)
    assert len(waiting.slept) == 1


async def test_an_unsafe_write_is_never_repeated() -> None:
    waiting = Waiting()
    with pytest.raises(ServerFailed), metered() as meter:
        await _get(_session(lambda _: httpx.Response(503), waiting), repeatable=False, method="POST")
    assert meter.requests == 1
    assert waiting.slept == []


async def test_a_meter_counts_what_a_meter_inside_it_counted() -> None:
    session = _session(lambda _: httpx.Response(200, content=b"four"), Waiting())
    with metered() as outer:
        await _get(session)
        with metered() as inner:
            await asyncio.gather(_get(session), _get(session))
        with metered() as empty:
            pass
        with pytest.raises(ValueError, match="4"), metered():
            raise ValueError(len(await _get(session)))
        await _get(session)
    assert (inner.requests, inner.bytes) == (2, 8)
    assert (empty.requests, empty.bytes) == (0, 0)
    assert (outer.requests, outer.bytes) == (5, 20)


async def test_meters_of_tasks_that_run_at_once_add_up() -> None:
    session = _session(lambda _: httpx.Response(200, content=b"four"), Waiting())

    async def work(times: int) -> int:
        with metered() as meter:
            for _ in range(times):
                await _get(session)
        return meter.requests

    with metered() as outer:
        counted = await asyncio.gather(work(1), work(3))
    assert list(counted) == [1, 3]
    assert outer.requests == 4


@pytest.mark.parametrize(
    ("header", "pause"),
    [("7", 7.0), ("86400", 60.0), ("Sun, 09 Sep 2001 01:46:45 GMT", 5.0), ("nonsense", 0.5), ("-5", 0.5)],
)
async def test_retry_after_is_honoured_up_to_a_cap(header: str, pause: float) -> None:
    waiting = Waiting()
    first = httpx.Response(429, headers={"Retry-After": header})
    assert await _get(_session(_in_turn(first, httpx.Response(200, content=b"ok")), waiting)) == b"ok"
    assert waiting.slept == [pause]


async def test_an_endless_429_is_throttled() -> None:
    session = _session(lambda _: httpx.Response(429, headers={"Retry-After": "1"}), Waiting(), retries=1)
    with pytest.raises(Throttled):
        await _get(session)


def test_a_retry_after_in_the_past_means_now() -> None:
    assert parse_retry_after("Sun, 09 Sep 2001 01:46:40 GMT", 2_000_000_000.0) == 0.0
    assert parse_retry_after("", 0.0) is None


async def test_a_redirect_within_the_origin_is_followed() -> None:
    answers = _in_turn(
        httpx.Response(302, headers={"Location": "/other"}), httpx.Response(200, content=b"there")
    )
    answer = await _session(answers, Waiting()).send("GET", f"{BASE}/x", repeatable=True)
    assert (answer.body, answer.url) == (b"there", "https://ehr.example/other")


@pytest.mark.parametrize(
    "target", ["https://evil.example/x", "http://ehr.example/x", "https://ehr.example:444/x"]
)
async def test_a_redirect_to_another_origin_is_not(target: str) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(307, headers={"Location": target})

    with pytest.raises(ForeignLink):
        await _get(_session(answer, Waiting()))
    assert seen == ["ehr.example"]


async def test_redirects_in_a_circle_end() -> None:
    with pytest.raises(ConnectorError, match="circle"):
        await _get(_session(lambda _: httpx.Response(302, headers={"Location": "/fhir/x"}), Waiting()))


async def test_a_write_does_not_follow_redirects() -> None:
    session = _session(lambda _: httpx.Response(308, headers={"Location": "/other"}), Waiting())
    with metered() as meter, pytest.raises(ConnectorError):
        await _get(session, repeatable=False, method="POST")
    assert meter.requests == 1


async def test_no_request_goes_to_an_origin_that_is_not_allowed() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200)

    session = Session(BASE, transport=httpx.MockTransport(answer), allowed_origins=("https://files.example",))
    with pytest.raises(ForeignLink):
        await session.send("GET", "https://evil.example/x", repeatable=True)
    await session.send("GET", "https://files.example/x", repeatable=True)
    assert seen == ["https://files.example/x"]
