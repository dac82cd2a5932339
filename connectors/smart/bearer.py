"""Requests with a user's token, which is renewed before it ends, and once after the server refused it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

import httpx

from connectors.auth import Auth


class Bearer(Protocol):
    """Whoever keeps a user's tokens."""

    async def token(self, refused: str = "") -> str:
        """Return an access token that is good now: another one than `refused`, where there is any.

        Raises ConnectorError where the user has none any more.
        """
        ...


class UserAuth(Auth):
    """A user's access token (RFC 6750), granted `scope`.

    `profile` says what may be read with it, and holds no secret.
    """

    def __init__(self, profile: str, bearer: Bearer, scope: str = "") -> None:
        self.profile = profile
        self.scope = scope
        self._bearer = bearer
        self._looking: asyncio.Task[str] | None = None

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send the request with a token; after a 401, once more with another one."""
        token = await self._current()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code != 401:
            return
        newer = await self._bearer.token(refused=token)
        if newer != token:
            request.headers["Authorization"] = f"Bearer {newer}"
            yield request

    async def _current(self) -> str:
        """Return the token as it stands; requests that begin together look once."""
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._bearer.token())
            self._looking.add_done_callback(self._looked)
        return await asyncio.shield(self._looking)

    def _looked(self, done: asyncio.Task[str]) -> None:
        self._looking = None
        if not done.cancelled():
            done.exception()  # whoever waited was told; nobody may wait any more
