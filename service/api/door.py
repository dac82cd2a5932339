"""How one comes in: with the one-time token of a first start, or by the site's identity provider.

Both end in a session of our own. A sign-in that cannot be recorded does not happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from connectors.errors import ConnectorError
from service.api.cookies import LOGIN, SESSION, drop_cookie, put_cookie, read_cookie
from service.api.gate import Refusals, forbidden, sign_in_page, unavailable, visitor_of
from service.api.render import page
from service.identity.onetime import OneTimeToken
from service.identity.refusal import Reason, Refused
from service.identity.sessions import Sessions
from service.identity.signin import ATTEMPT_S, SignIn, own_path
from service.identity.tokens import Expected, read_access_token
from service.identity.visitor import LOCAL, Register, Visitor
from service.ports import Action, AuditEntry, AuditLog, Clock

LOGIN_PATH: Final = "/login"
CALLBACK_PATH: Final = "/callback"
LOGOUT_PATH: Final = "/logout"
_AHEAD: Final = ("prefetch", "prerender")


@dataclass(frozen=True, slots=True)
class Book:
    """Opens and ends sessions, and writes down both."""

    sessions: Sessions
    audit: AuditLog
    clock: Clock
    refusals: Refusals

    def open(self, visitor: Visitor, previous: str) -> str:
        """Record a sign-in, then open the session. Raises StoreError."""
        self._note(Action.LOGIN, visitor)
        return self.sessions.begin(visitor, previous)

    def end(self, visitor: Visitor, session_id: str) -> None:
        """End a session, and record it. Raises StoreError."""
        self.sessions.end(session_id)
        self._note(Action.LOGOUT, visitor)

    def _note(self, action: Action, visitor: Visitor) -> None:
        self.audit.append(AuditEntry(action, visitor.actor, "", self.clock(), by=visitor.fhir_user))


@dataclass(frozen=True, slots=True)
class LocalDoor:
    """One user on this machine: whoever can read the terminal that the pages were started in.

    `tell` is given each new token, for the terminal alone.
    """

    book: Book
    token: OneTimeToken = field(default_factory=OneTimeToken)
    tell: Callable[[str], None] = lambda token: None

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(LOGIN_PATH, self.login, methods=["GET"], response_model=None)
        add_logout(app, self.book, _nowhere)

    async def visitor_of(self, request: Request) -> Visitor | None:
        """Return the local user where the session is good. Raises StoreError."""
        return await asyncio.to_thread(self.book.sessions.find, read_cookie(request, SESSION))

    def invite(self, request: Request) -> Response:
        """Say where the address with the token stands."""
        return sign_in_page(
            "These pages are open to the person who started them.",
            "Open the newest address that stands in the terminal where epicrisis runs. Each opens once.",
        )

    def login(self, request: Request, token: str = "") -> Response:
        """Swap the token for a session at once. A browser that looks ahead does not use it up."""
        ahead = request.headers.get("sec-purpose", "") + request.headers.get("purpose", "")
        if not token or any(word in ahead for word in _AHEAD):
            return self.invite(request)
        try:
            self.token.use(token)
        except Refused as refused:
            self.book.refusals.record(refused.reason)
            return self.invite(request)
        self.tell(self.token.value)
        session_id = self.book.open(LOCAL, read_cookie(request, SESSION))
        answer = RedirectResponse("/", status_code=303)
        put_cookie(request, answer, SESSION, session_id)
        return answer


@dataclass(frozen=True, slots=True)
class OidcDoor:
    """People sign in at the site's provider; services show its access tokens.

    `services` is what an access token must say; without it no token opens anything.
    """

    book: Book
    sign_in: SignIn
    register: Register
    services: Expected | None = None

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(LOGIN_PATH, self.login, methods=["GET"], response_model=None)
        app.add_api_route(CALLBACK_PATH, self.callback, methods=["GET"], response_model=None)
        add_logout(app, self.book, self._end_of_theirs)

    async def _end_of_theirs(self) -> str:
        """Return where the provider's own session ends, or an empty text."""
        try:
            return (await self.sign_in.provider.endpoints()).end_session
        except ConnectorError:
            return ""

    async def visitor_of(self, request: Request) -> Visitor | None:
        """Return who asks, by access token (RFC 6750) or by session."""
        shown = request.headers.getlist("authorization")
        if shown:
            return await self._bearer(shown)
        return await asyncio.to_thread(self.book.sessions.find, read_cookie(request, SESSION))

    async def _bearer(self, shown: list[str]) -> Visitor:
        scheme, _, token = shown[0].partition(" ")
        if len(shown) > 1 or scheme.lower() != "bearer":
            raise Refused(Reason.MALFORMED)
        if self.services is None:
            raise Refused(Reason.AUDIENCE)
        claims = await read_access_token(token.strip(), self.sign_in.keys, self.services, self.sign_in.now())
        return self.register.bearer(claims)

    def invite(self, request: Request) -> Response:
        """Offer the provider's sign-in; afterwards the same page opens."""
        to = own_path(request.url.path) if request.method == "GET" else "/"
        return sign_in_page("Sign in to see this.", link=_login_link(to))

    async def login(self, request: Request, to: str = "/") -> Response:
        """Send the browser to the provider."""
        redirect_uri = str(request.url.replace(path=CALLBACK_PATH, query="", fragment=""))
        try:
            begun = await self.sign_in.begin(redirect_uri, to)
        except ConnectorError:
            return unavailable()
        answer = RedirectResponse(begun.address, status_code=303)
        put_cookie(request, answer, LOGIN, begun.cookie, same_site="lax", max_age_s=ATTEMPT_S)
        return answer

    async def callback(self, request: Request) -> Response:
        """Take the provider's answer, and open a session for who it vouches for."""
        try:
            answer = await self._answered(request)
        except Refused as refused:
            await asyncio.to_thread(self.book.refusals.record, refused.reason)
            is_known = refused.reason in (Reason.ROLE, Reason.PATIENT)
            answer = forbidden() if is_known else sign_in_page(_UNSIGNED, link=_login_link("/"))
        except ConnectorError:
            answer = unavailable()
        drop_cookie(request, answer, LOGIN)
        return answer

    async def _answered(self, request: Request) -> Response:
        said = dict(request.query_params)
        if len(said) != len(request.query_params.multi_items()):
            raise Refused(Reason.STATE)
        found = await self.sign_in.finish(read_cookie(request, LOGIN), said)
        visitor = self.register.person(found.claims)
        session_id = await asyncio.to_thread(self.book.open, visitor, read_cookie(request, SESSION))
        # A redirect would still count as the provider's: a browser sends no strict cookie along with it.
        answer = page("signedin.html", to=found.to)
        put_cookie(request, answer, SESSION, session_id)
        return answer


_UNSIGNED: Final = "This sign-in did not come to an end."


async def _nowhere() -> str:
    return ""


def add_logout(app: FastAPI, book: Book, elsewhere: Callable[[], Awaitable[str]]) -> None:
    """Add the route that ends a session. `elsewhere` returns where the provider's own one is ended."""

    async def logout(request: Request) -> Response:
        await asyncio.to_thread(book.end, visitor_of(request), read_cookie(request, SESSION))
        answer = page("signedout.html", link=await elsewhere())
        drop_cookie(request, answer, SESSION)
        return answer

    app.add_api_route(LOGOUT_PATH, logout, methods=["POST"], response_model=None)


def _login_link(to: str) -> str:
    return LOGIN_PATH if to == "/" else f"{LOGIN_PATH}?to={to}"
