"""The cookies: of a session, of an attempt to sign in, and of a browser that an EHR launched us in.

Over TLS the names of the first two begin with `__Host-`. The third always has such a name: it must reach us
out of a frame on another site, and browsers keep such a cookie only where it is Secure. Loopback may set it.
"""

from __future__ import annotations

from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import Response

SESSION: Final = "epicrisis"
LOGIN: Final = "epicrisis-login"
LAUNCH: Final = "__Host-epicrisis-launch"
_FRAMED: Final = "Path=/; Secure; HttpOnly; SameSite=None; Partitioned"


def is_secure(request: Request) -> bool:
    """Tell whether the browser came over TLS."""
    return request.url.scheme == "https"


def cookie_name(request: Request, kind: str) -> str:
    """Return a cookie's name. Without TLS the port is part of it: cookies know of none (RFC 6265 8.5)."""
    return f"__Host-{kind}" if is_secure(request) else f"{kind}-{request.url.port or 80}"


def read_cookie(request: Request, kind: str) -> str:
    """Return what the browser sent, or an empty text."""
    return request.cookies.get(cookie_name(request, kind), "")


def put_cookie(
    request: Request,
    response: Response,
    kind: str,
    value: str,
    *,
    same_site: Literal["lax", "strict"] = "strict",
    max_age_s: int | None = None,
) -> None:
    """Have the browser keep a cookie; without an age as long as it runs."""
    response.set_cookie(
        cookie_name(request, kind), value, max_age=max_age_s, path="/", secure=is_secure(request),
        httponly=True, samesite=same_site,
    )  # fmt: skip


def drop_cookie(request: Request, response: Response, kind: str) -> None:
    """Have the browser forget a cookie."""
    response.delete_cookie(
        cookie_name(request, kind), path="/", secure=is_secure(request), httponly=True, samesite="strict"
    )


def read_launch(request: Request) -> str:
    """Return the secret of a browser that was launched, or an empty text."""
    return request.cookies.get(LAUNCH, "")


def put_launch(response: Response, value: str) -> None:
    """Have the browser keep it for the site that frames us (CHIPS), as long as it runs."""
    response.headers.append("set-cookie", f"{LAUNCH}={value}; {_FRAMED}")


def drop_launch(response: Response) -> None:
    """Have the browser forget it; without Partitioned it would look for another cookie."""
    response.headers.append("set-cookie", f"{LAUNCH}=; Max-Age=0; {_FRAMED}")
