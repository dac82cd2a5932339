"""What keeps a page of patient data where it belongs.

Pages are served to other machines only over TLS and with an identity provider, answered only under known
names, and never cached, framed or scripted from elsewhere.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.render import plain_page
from service.errors import SettingsError

_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';{more} form-action 'self'; "
    "frame-ancestors {ancestors}; base-uri 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": _POLICY.format(more="", ancestors="'none'"),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


_FRAMES: Final = "epicrisis.frames"
HSTS: Final = "max-age=31536000"
"""A browser that came over TLS once comes in no other way for a year (RFC 6797)."""


def allow_frames(scope: Scope, origins: tuple[str, ...]) -> None:
    """Let pages of these origins show the answer in a frame, and let its script ask us (htmx, SSE)."""
    scope[_FRAMES] = origins


def policy_of(scope: Scope) -> str:
    """Return the Content-Security-Policy of an answer: framed by nobody unless a launch says by whom."""
    origins: tuple[str, ...] | None = scope.get(_FRAMES)
    if origins is None:
        return HEADERS["Content-Security-Policy"]
    return _POLICY.format(more=" connect-src 'self';", ancestors=" ".join(origins) or "'none'")


def check_bind(host: str, *, has_tls: bool, has_provider: bool) -> None:
    """Refuse to serve to other machines without TLS or without a sign-in. Raises SettingsError."""
    if host == "localhost" or _is_loopback(host) or (has_tls and has_provider):
        return
    lacking = [] if has_tls else ["TLS (EPICRISIS_TLS_CERT, EPICRISIS_TLS_KEY)"]
    lacking += [] if has_provider else ["an identity provider (EPICRISIS_OIDC_ISSUER)"]
    raise SettingsError(
        f"Pages with patient data are not served to other machines without {' and '.join(lacking)}.",
        "Set what is missing; or use --host 127.0.0.1, and reach it through an SSH tunnel.",
    )


def is_from_here(request: Request) -> bool:
    """Tell whether a form was sent from our own page: browsers say so, and no other page can say it."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site == "same-origin"
    return origin == f"{request.url.scheme}://{request.headers.get('host', '')}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """Return the name in a Host header, lower case, without its port; empty where it is malformed."""
    name, _, port = header.strip().lower().rpartition(":")
    if not name or "]" in port:
        name, port = header.strip().lower(), ""
    if port and not (port.isascii() and port.isdigit()):
        return ""
    return "" if ":" in name and not name.startswith("[") else name


class HostAllowList:
    """Answers 400 to a request for any name that is not ours: a page elsewhere cannot rebind DNS to us."""

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...]) -> None:
        self.app = app
        self.allowed = frozenset(_as_in_header(name) for name in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it without repeating what it said."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope).getlist("host")
        if len(sent) == 1 and host_name(sent[0]) in self.allowed:
            await self.app(scope, receive, send)
            return
        await plain_page(400, "This address is not one that Epicrisis answers to.")(scope, receive, send)


def _as_in_header(name: str) -> str:
    bare = name.strip().lower()
    return f"[{bare}]" if ":" in bare and not bare.startswith("[") else bare


class SecurityHeaders:
    """Adds the headers to every answer, errors too. Only static files may be kept by a browser."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and dress the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_static = str(scope["path"]).startswith("/static/")
        is_tls = scope["scheme"] == "https"

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({**HEADERS, "Content-Security-Policy": policy_of(scope)})
                headers["Cache-Control"] = "no-cache" if is_static else "no-store"
                if is_tls:
                    headers["Strict-Transport-Security"] = HSTS
            await send(message)

        await self.app(scope, receive, dressed)
