"""The access log, and the last resort for an error that nobody foresaw.

Neither may ever hold a path, a query or an exception's text: they can name a patient.
"""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.render import plain_page

access_logger = logging.getLogger("epicrisis.access")
error_logger = logging.getLogger("epicrisis.api")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


class AccessLog:
    """Logs method, route template, status and milliseconds of every request.

    uvicorn's own access log prints whole paths: serve with `access_log=False` and keep this one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, then log one line."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            elapsed_ms = (time.perf_counter() - began) * 1000
            access_logger.info("%s %s %d %.0f ms", method(scope), route_template(scope), status, elapsed_ms)


def method(scope: Scope) -> str:
    """Return the request's method, or OTHER: a made-up one could carry any text into the log."""
    return str(scope["method"]) if scope["method"] in METHODS else "OTHER"


def route_template(scope: Scope) -> str:
    """Return the route as declared, `/runs/{run_id}`, never the path that was asked for."""
    return str(getattr(scope.get("route"), "path", None) or "unmatched")


class LastResort:
    """Turns an unforeseen exception into a page without detail, and logs its class alone."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request; nothing that goes wrong reaches the server's own traceback log."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            error_logger.error("%s %s: %s", method(scope), route_template(scope), type(error).__name__)
            if not started:
                await plain_page(500, "Epicrisis failed to make this page. Nothing was changed.")(
                    scope, receive, send
                )
