"""A proxy before a real FHIR server that loses the connection at a chosen write, before or after it was done.

async with CutProxy(real_base_url) as proxy:
    proxy.cut(2, "after")     # the second write is done, its answer lost, and nothing answers afterwards
    ...
    proxy.heal()
"""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Literal

import httpx

from tests.integration.connectors.fault_server import Answer, FaultServer, HangUp, Reply, Request

When = Literal["before", "after"]
_PASSED_ON = ("if-match", "if-none-exist", "if-none-match", "content-type", "accept", "prefer")


class CutProxy(FaultServer):
    """`transactions=False` strikes transactions from what the server says it can do, and refuses them."""

    def __init__(self, upstream: str, *, transactions: bool = True) -> None:
        super().__init__()
        self._upstream = upstream
        self._transactions = transactions
        self._client = httpx.Client(trust_env=False, timeout=30)
        self._cut: tuple[int, When] | None = None
        self._stays_dead = True
        self._freezes = False
        self._dead = False
        self.reached = asyncio.Event()
        """Set when the write to be lost was met."""
        self.writes: list[str] = []
        """`POST DocumentReference`, in order, since the last `heal`."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        self._client.close()

    def cut(self, at: int, when: When, *, stays_dead: bool = True, freezes: bool = False) -> None:
        """Lose write number `at` (from 1); with `stays_dead` nothing is answered afterwards.

        With `freezes` the connection stays open without an answer, for a client that is about to be killed.
        """
        self.heal()
        self._cut, self._stays_dead, self._freezes = (at, when), stays_dead, freezes

    def heal(self) -> None:
        """Answer everything again."""
        self._cut, self._dead, self._freezes = None, False, False
        self.reached.clear()
        self.writes.clear()

    def answer(self, request: Request) -> Answer:
        if self._dead:
            return HangUp()
        if request.method in ("POST", "PUT", "DELETE"):
            return self._write(request)
        return self._pass_on(request)

    def _write(self, request: Request) -> Answer:
        what = "/".join(request.path.split("/")[2:3])
        self.writes.append(f"{request.method} {what or 'transaction'}")
        if not what and not self._transactions:
            self.writes.pop()
            return Reply(405)
        cut = self._cut is not None and self._cut[0] == len(self.writes)
        if not cut:
            return self._pass_on(request)
        assert self._cut is not None
        if self._cut[1] == "after":
            self._pass_on(request)
        self._dead = self._stays_dead
        self.reached.set()
        return Reply(503, delay_s=60) if self._freezes else HangUp()

    def _pass_on(self, request: Request) -> Reply:
        url = f"{self._upstream}{request.path.removeprefix('/fhir')}"
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        answer = self._client.request(
            request.method, url, params=list(request.query) or None, headers=headers, content=request.body
        )
        body = answer.content.replace(self._upstream.encode(), self.base_url.encode())
        if request.path == "/fhir/metadata" and answer.status_code == 200 and not self._transactions:
            body = json.dumps(_without_transactions(json.loads(body))).encode()
        kept = {
            name: answer.headers[name].replace(self._upstream, self.base_url)
            for name in ("location", "etag")
            if name in answer.headers
        }
        return Reply(answer.status_code, body=body, headers=kept)


def _without_transactions(statement: dict[str, Any]) -> dict[str, Any]:
    for rest in statement.get("rest", []):
        rest["interaction"] = [i for i in rest.get("interaction", []) if i.get("code") != "transaction"]
    return statement
