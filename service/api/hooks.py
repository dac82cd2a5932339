"""Where the FHIR server says that something happened to an admission (R4 Subscription, rest-hook).

A call without the secret is refused before its body is looked at. What one with it means is kept before it is
answered: a call that cannot be kept is refused, and the server sends it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import Response

from connectors.admissions.notification import MAX_BYTES, HookState, receive
from connectors.admissions.subscription import Hook
from service.errors import StoreError

PATH: Final = "/hooks/fhir"
Nudge = Callable[[], None]
"""Asks whoever watches the admissions to look. Raises StoreError."""


class Hooks:
    """The endpoint of one subscription."""

    def __init__(self, hook: Hook, nudge: Nudge, clock: Callable[[], datetime], base_url: str) -> None:
        self._hook = hook
        self._nudge = nudge
        self._clock = clock
        self._base_url = base_url
        self._state = HookState()

    def add_to(self, app: FastAPI) -> None:
        """Add the route. `PUT` is what some servers send for a resource with an id."""
        for path in (PATH, PATH + "/{resource_type}/{resource_id}"):
            app.add_api_route(path, self.called, methods=["POST", "PUT"], response_model=None)

    async def called(self, request: Request) -> Response:
        """Check, keep and answer one call. Nothing of its body is kept."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        body = await _bounded(request)
        call = receive(headers, body, self._hook, self._state, self._clock(), self._base_url)
        if call.poll or call.ended:
            try:
                await asyncio.to_thread(self._nudge)
            except StoreError:
                return Response(status_code=503)
        self._state = call.state
        return Response(status_code=call.status)


async def _bounded(request: Request) -> bytes:
    """Read no more of a body than is ever used, and one byte that tells that it was more."""
    body = bytearray()
    async for piece in request.stream():
        body += piece[: MAX_BYTES + 1 - len(body)]
        if len(body) > MAX_BYTES:
            break
    return bytes(body)
