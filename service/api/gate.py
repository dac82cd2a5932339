"""The gate before every route: whoever has no right to it by the table does not reach it.

It stands before a body is read and before anything is looked up. What it turns away is recorded, as one word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.errors import ConnectorError
from service.api.body import BodyRefusedError, bounded, declares_more
from service.api.render import page, plain_page
from service.api.security import is_from_here
from service.api.table import MAX_BODY, Rule, Table, find_rule
from service.errors import StoreError
from service.identity.refusal import Reason, Refused
from service.identity.visitor import Visitor
from service.ports import Action, AuditEntry, AuditLog, Clock

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
NOBODY: Final = "user:unknown"
_VISITOR: Final = "epicrisis.visitor"
_RULES: Final = "epicrisis.table"
_log = logging.getLogger("epicrisis.identity")


class Access(Protocol):
    """How visitors are known at this installation."""

    def add_to(self, app: FastAPI) -> None:
        """Add the routes that one signs in and out by."""
        ...

    async def visitor_of(self, request: Request) -> Visitor | None:
        """Return who asks, or None where no credential was shown.

        Raises Refused for one that is not good, StoreError, and ConnectorError.
        """
        ...

    def invite(self, request: Request) -> Response:
        """Return the page that says how to sign in (401)."""
        ...


def visitor_of(request: Request) -> Visitor:
    """Return whom the gate let in. A route that is open to all has nobody."""
    visitor = request.scope[_VISITOR]
    assert isinstance(visitor, Visitor)
    return visitor


def may(request: Request, method: str, path: str) -> bool:
    """Tell whether who asks may use another route too (its path template), so that no page offers in vain."""
    rule: Rule | None = request.scope[_RULES].get((path, method))
    return rule is not None and rule.admits(visitor_of(request).roles)


@dataclass
class Refusals:
    """Records who was turned away. More than `most` in a minute are counted, and told with the next one.

    Whoever has no account could otherwise fill the audit log.
    """

    audit: AuditLog
    clock: Clock
    most: int = 60
    _since: datetime | None = field(default=None, init=False)
    _told: int = field(default=0, init=False)
    _untold: int = field(default=0, init=False)

    def record(self, reason: Reason, actor: str = NOBODY) -> None:
        """Record one refusal. It stays refused where it cannot be recorded, and the log says so."""
        now = self.clock()
        if self._since is None or now - self._since >= timedelta(minutes=1):
            self._since, self._told = now, 0
        if self._told >= self.most:
            self._untold += 1
            return
        self._told += 1
        counts = {"more": self._untold} if self._untold else {}
        try:
            self.audit.append(AuditEntry(Action.REFUSED, actor, "", now, outcome=reason.value, counts=counts))
        except StoreError as error:
            _log.error("A refusal could not be written to the audit log (%s)", error.code)
            return
        self._untold = 0


class Gate:
    """Lets a request through to its route, with its visitor, or answers 401 or 403."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access,
        table: Table,
        routes: Callable[[], Sequence[BaseRoute]],
        refusals: Refusals,
    ) -> None:
        self.app = app
        self._access = access
        self._table = table
        self._routes = routes
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        rule = find_rule(scope, self._routes(), self._table)
        scope[_RULES] = self._table
        request = Request(scope)
        refusal = None
        if rule is None or not rule.open_to:
            refusal = await self._turned_away(request, rule)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._pass(scope, receive, send, rule)

    async def _turned_away(self, request: Request, rule: Rule | None) -> Response | None:
        """Return the answer to who may not pass; None for who may. An unknown path asks for a sign-in too."""
        try:
            visitor = await self._access.visitor_of(request)
        except Refused as refused:
            await self._record(refused.reason)
            answer = self._access.invite(request)
            answer.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
            return answer
        except (StoreError, ConnectorError) as error:
            _log.warning("Who asks cannot be checked (%s)", error.code)
            return unavailable()
        if visitor is None:
            return self._access.invite(request)
        request.scope[_VISITOR] = visitor
        return await self._kept_out(request, rule, visitor) if rule is not None else None

    async def _kept_out(self, request: Request, rule: Rule, visitor: Visitor) -> Response | None:
        """Return the answer to a visitor who may not do this, or did not ask for it by a page of ours."""
        if not rule.admits(visitor.roles):
            await self._record(Reason.ROLE, visitor.actor)
            return forbidden()
        if visitor.by_cookie and request.method not in SAFE and not is_from_here(request):
            await self._record(Reason.ELSEWHERE, visitor.actor)
            return plain_page(403, "This was not asked for from a page of Epicrisis.")
        return None

    async def _record(self, reason: Reason, actor: str = NOBODY) -> None:
        await asyncio.to_thread(self._refusals.record, reason, actor)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, rule: Rule | None) -> None:
        limit = rule.max_body if rule is not None else MAX_BODY
        try:
            if declares_more(Request(scope).headers, limit):
                raise BodyRefusedError(413)
            await self.app(scope, bounded(receive, limit), send)
        except BodyRefusedError as refused:
            text = {413: "What was sent is too large.", 408: "What was sent came too slowly."}
            await plain_page(refused.status, text[refused.status])(scope, receive, send)


def forbidden() -> Response:
    """Return the page for somebody who is known and may not do this."""
    return plain_page(
        403,
        "Your account may not open this.",
        "Ask those who look after Epicrisis at your site for a role that may.",
    )


def unavailable() -> Response:
    """Return the page for when nobody can be checked."""
    return plain_page(
        503,
        "Who you are cannot be checked at the moment, so nothing is shown.",
        "Try again in a minute. The patient's chart is not affected.",
    )


def sign_in_page(text: str, advice: str = "", link: str = "") -> Response:
    """Return the page that says how to sign in."""
    return page("signin.html", 401, text=text, advice=advice, link=link)
