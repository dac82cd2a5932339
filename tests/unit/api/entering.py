"""A door that stands open: everybody comes in as the local user with every role, as if signed in."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from service.identity.visitor import LOCAL, Visitor


class OpenDoor:
    """An Access for tests of what lies behind it."""

    def __init__(self, visitor: Visitor = LOCAL) -> None:
        self.visitor = visitor

    def add_to(self, app: FastAPI) -> None:
        """Nobody signs in here."""

    async def visitor_of(self, request: Request) -> Visitor | None:
        return self.visitor

    def invite(self, request: Request) -> Response:
        raise AssertionError("everybody is in already")
