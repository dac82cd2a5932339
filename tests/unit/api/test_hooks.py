"""Where the FHIR server calls: who may, what is kept before the answer, and what is not."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field

import httpx
import pytest
from fastapi import FastAPI

from connectors.admissions.notification import MAX_BYTES
from connectors.admissions.subscription import HOOK_HEADER, Hook
from service.api.hooks import PATH, Hooks
from service.errors import StoreError
from tests.conftest import CANARY
from tests.unit.connectors.test_admissions_hook import NOW, SECRET, status

HEADERS = {HOOK_HEADER: SECRET}


@dataclass
class Watchers:
    """Counts how often somebody was asked to look; `broken` as long as the database is away."""

    nudges: int = 0
    broken: bool = False
    app: FastAPI = field(default_factory=lambda: FastAPI(openapi_url=None))

    def __post_init__(self) -> None:
        hook = Hook("http://127.0.0.1/hooks/fhir", SECRET)
        Hooks(hook, self.nudge, lambda: NOW, "http://127.0.0.1:1/fhir").add_to(self.app)

    def nudge(self) -> None:
        if self.broken:
            raise StoreError("The database cannot be used.")
        self.nudges += 1

    async def call(
        self, body: bytes = b"", method: str = "POST", path: str = PATH, headers: dict[str, str] = HEADERS
    ) -> int:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.request(method, path, content=body, headers=headers)
        assert answer.content == b""
        return answer.status_code


@pytest.fixture
def watchers() -> Watchers:
    return Watchers()


@pytest.mark.parametrize(
    ("method", "path"), [("POST", PATH), ("PUT", f"{PATH}/Encounter/9"), ("POST", f"{PATH}/Encounter/9")]
)
async def test_a_call_with_the_secret_has_somebody_look(watchers: Watchers, method: str, path: str) -> None:
    assert await watchers.call(method=method, path=path) == 200
    assert watchers.nudges == 1


@pytest.mark.parametrize("headers", [{}, {HOOK_HEADER: "wrong" * 8}, {"Authorization": SECRET}])
async def test_a_call_without_it_is_refused_and_nobody_looks(
    watchers: Watchers, headers: dict[str, str]
) -> None:
    assert await watchers.call(headers=headers) == 401
    assert watchers.nudges == 0


async def test_a_heartbeat_has_nobody_look_until_it_tells_of_events_that_were_missed(
    watchers: Watchers,
) -> None:
    assert await watchers.call(status("event-notification", 1, 1)) == 200
    assert watchers.nudges == 1
    assert await watchers.call(status("heartbeat", 1)) == 200
    assert watchers.nudges == 1
    assert await watchers.call(status("heartbeat", 11)) == 200
    assert watchers.nudges == 2


async def test_that_the_server_switched_us_off_has_somebody_look(watchers: Watchers) -> None:
    await watchers.call(status("event-notification", 1, 1))
    await watchers.call(status("heartbeat", 1, state="off"))
    assert watchers.nudges == 2


async def test_what_cannot_be_kept_is_refused_and_told_again(watchers: Watchers) -> None:
    watchers.broken = True
    assert await watchers.call(status("event-notification", 1, 1)) == 503
    watchers.broken = False
    assert await watchers.call(status("heartbeat", 1)) == 200
    assert await watchers.call(status("event-notification", 1, 1)) == 200
    assert watchers.nudges == 1


async def test_a_body_that_is_too_large_or_no_notification_is_refused(
    watchers: Watchers, caplog: pytest.LogCaptureFixture
) -> None:
    assert await watchers.call(b" " * (MAX_BYTES + 10)) == 413
    assert await watchers.call(f"garbage {CANARY}".encode()) == 400
    assert watchers.nudges == 0
    assert CANARY not in caplog.text


async def test_a_packed_body_is_not_unfolded(watchers: Watchers) -> None:
    bomb = gzip.compress(bytes(20 * MAX_BYTES))
    assert len(bomb) < MAX_BYTES
    assert await watchers.call(bomb, headers={**HEADERS, "Content-Encoding": "gzip"}) == 400
    assert watchers.nudges == 0
