"""Errors of the API as problem details (RFC 9457): JSON under `/api/`, where everything else answers a page.

What the gate, the checks of a request and the last resort answer there is put into this form on its way out.
No problem repeats what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX: Final = "/api/"
MEDIA_TYPE: Final = "application/problem+json"
_SAID: Final[Mapping[int, tuple[str, str]]] = {
    400: ("Not understood", "The request is not one that is described in /api/openapi.json."),
    401: ("Not signed in", "Sign in, or show an access token that is for Epicrisis."),
    403: ("Not allowed", "Your account may not do this, or it was not asked for from a page of Epicrisis."),
    404: ("Not found", "There is nothing here under this address."),
    405: ("Not offered", "This address does not offer that method."),
    408: ("Too slow", "What was sent came too slowly."),
    410: ("Destroyed", "What was stored about this patient was destroyed. The chart is not affected."),
    413: ("Too large", "What was sent is too large."),
    423: ("Stopped", "This summary is stopped: it is not shown until the stop is lifted."),
    500: ("Failed", "Epicrisis failed to answer. Nothing was changed."),
    503: (
        "Not available now",
        "What is needed to answer cannot be used at the moment. Try again in a minute.",
    ),
}
_OTHER: Final = ("Refused", "Epicrisis cannot do this.")


def problem(
    status: int, detail: str = "", *, title: str = "", headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Return one problem; without words of its own it has those of its status. `more` are extensions."""
    usual_title, usual_detail = _SAID.get(status, _OTHER)
    body = {
        "type": "about:blank", "title": title or usual_title, "status": status,
        "detail": detail or usual_detail, **more,
    }  # fmt: skip
    return Response(msgspec.json.encode(body), status, dict(headers or {}), MEDIA_TYPE)


class Problems:
    """Turns the pages that errors are told by into problems, under `/api/` alone."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; an error page on its way out is replaced, its other headers stay."""
        if scope["type"] != "http" or not str(scope["path"]).startswith(PREFIX):
            await self.app(scope, receive, send)
            return
        is_replaced = False

        async def told(message: Message) -> None:
            nonlocal is_replaced
            if message["type"] == "http.response.start" and _is_page_of_an_error(message):
                is_replaced = True
                await _replace(message, scope, send)
            elif not is_replaced:
                await send(message)

        await self.app(scope, receive, told)


def _is_page_of_an_error(message: Message) -> bool:
    kind = Headers(raw=list(message["headers"])).get("content-type", "")
    return int(message["status"]) >= 400 and kind.partition(";")[0] in ("text/html", "text/plain", "")


async def _replace(message: Message, scope: Scope, send: Send) -> None:
    answer = problem(int(message["status"]))
    headers = MutableHeaders(raw=list(message["headers"]))
    headers["content-type"], headers["content-length"] = MEDIA_TYPE, str(len(answer.body))
    await send({**message, "headers": headers.raw})
    body = b"" if scope["method"] == "HEAD" else bytes(answer.body)
    await send({"type": "http.response.body", "body": body})
