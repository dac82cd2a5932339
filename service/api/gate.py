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
from urllib.parse import parse_qsl

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.errors import ConnectorError
from service.api.body import BodyRefusedError, bounded, declares_more, read_again
from service.api.cookies import read_launch
from service.api.render import page, plain_page
from service.api.security import allow_frames, is_from_here
from service.api.table import CDS, MAX_BODY, Rule, Table, find_rule
from service.errors import StoreError
from service.identity.refusal import Reason, Refused
from service.identity.visitor import Visitor
from service.ports import Action, AuditEntry, AuditLog, Clock
from service.ports.launches import Launch

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
NOBODY: Final = "user:unknown"
_VISITOR: Final = "epicrisis.visitor"
_LAUNCH: Final = "epicrisis.launch"
_RULES: Final = "epicrisis.table"
VISIT_HEADER: Final = "x-epicrisis-visit"
"""Names the launch of a request that changes something: no form of another site can send it."""
_FORM: Final = "application/x-www-form-urlencoded"
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


class Launched(Protocol):
    """How those are known whom an EHR launched."""

    def frames(self, launch: Launch | None = None) -> tuple[str, ...]:
        """Return who may show a launch's pages in a frame; without a launch, any launch's."""
        ...

    async def find(self, browser: str, visit: str) -> tuple[Launch, Visitor] | None:
        """Return a launch of a browser (without a visit its newest), and who came by it.

        Raises Refused for that of another browser, and StoreError.
        """
        ...

    def invite(self) -> Response:
        """Return the page that says to open the chart again (401)."""
        ...


def visitor_of(request: Request) -> Visitor:
    """Return whom the gate let in. A route that is open to all has nobody."""
    visitor = request.scope[_VISITOR]
    assert isinstance(visitor, Visitor)
    return visitor


def launch_of(request: Request) -> Launch:
    """Return the launch by which a request came, on a route that launches open."""
    launch = request.scope[_LAUNCH]
    assert isinstance(launch, Launch)
    return launch


def is_launched(request: Request) -> bool:
    """Tell whether a request came by a launch, on a route that a sign-in opens too."""
    return _LAUNCH in request.scope


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
        launched: Launched | None = None,
    ) -> None:
        self.app = app
        self._access = access
        self._table = table
        self._routes = routes
        self._refusals = refusals
        self._launched = launched

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
        if rule is not None and rule.by_launch and self._launched is not None:
            allow_frames(scope, self._launched.frames())
        if rule is not None and self._came_by_launch(request, rule):
            refusal, receive = await self._kept_from_launch(request, rule, receive)
        elif rule is None or not rule.open_to:
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
        if visitor is None and rule is not None and rule.by_launch and self._launched is not None:
            return self._launched.invite()
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

    def _came_by_launch(self, request: Request, rule: Rule) -> bool:
        shows_cookie = bool(read_launch(request)) and "authorization" not in request.headers
        return rule.by_launch and self._launched is not None and shows_cookie

    async def _kept_from_launch(
        self, request: Request, rule: Rule, receive: Receive
    ) -> tuple[Response | None, Receive]:
        """Return the answer to whom no launch lets in, or None; and the body, which may have been read."""
        assert self._launched is not None
        if request.method not in SAFE and not is_from_here(request):
            return await self._elsewhere(), receive
        try:
            visit, receive = await _visit_named(request, receive, rule.max_body)
            if visit is None and rule.who:  # not of a launch's page, so perhaps of a sign-in's
                return await self._turned_away(request, rule), receive
            if visit is None:
                return await self._elsewhere(), receive
            found = await self._launched.find(read_launch(request), visit)
        except BodyRefusedError as refused:
            return _too_much(refused), receive
        except Refused as refused:
            await self._record(refused.reason)
            return _of_another_browser(), receive
        except StoreError as error:
            _log.warning("Who asks cannot be checked (%s)", error.code)
            return unavailable(), receive
        if found is None and rule.who and not visit:
            return await self._turned_away(request, rule), receive
        if found is None:
            return self._launched.invite(), receive
        return await self._let_in(request, rule, *found), receive

    async def _let_in(
        self, request: Request, rule: Rule, launch: Launch, visitor: Visitor
    ) -> Response | None:
        assert self._launched is not None
        allow_frames(request.scope, self._launched.frames(launch))
        if not rule.admits_launched(visitor.roles):
            await self._record(Reason.ROLE, visitor.actor)
            return forbidden()
        request.scope[_LAUNCH], request.scope[_VISITOR] = launch, visitor
        return None

    async def _elsewhere(self) -> Response:
        await self._record(Reason.ELSEWHERE)
        return plain_page(403, "This was not asked for from a page of Epicrisis.")

    async def _record(self, reason: Reason, actor: str = NOBODY) -> None:
        await asyncio.to_thread(self._refusals.record, reason, actor)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, rule: Rule | None) -> None:
        limit = rule.max_body if rule is not None else MAX_BODY
        try:
            # An EHR is told what was wrong in its own form: its route looks at the body, after the caller.
            if (rule is None or rule.open_to != CDS) and declares_more(Request(scope).headers, limit):
                raise BodyRefusedError(413)
            await self.app(scope, bounded(receive, limit), send)
        except BodyRefusedError as refused:
            await _too_much(refused)(scope, receive, send)


async def _visit_named(request: Request, receive: Receive, limit: int) -> tuple[str | None, Receive]:
    """Return the visit that a request names, and its body anew. Raises BodyRefusedError.

    What changes something names it in a header or in its form; None where it does not.
    """
    if request.method in SAFE:
        return request.query_params.get("visit", ""), receive
    named = request.headers.get(VISIT_HEADER, "")
    if named or request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        return named or None, receive
    if declares_more(request.headers, limit):
        raise BodyRefusedError(413)
    body, again = await read_again(bounded(receive, limit))
    fields = dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=1000))
    return fields.get("visit") or None, again


def _of_another_browser() -> Response:
    return plain_page(
        403, "This page was opened in another browser.", "Open Epicrisis again from the patient's chart."
    )


def _too_much(refused: BodyRefusedError) -> Response:
    text = {413: "What was sent is too large.", 408: "What was sent came too slowly."}
    return plain_page(refused.status, text[refused.status])


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
