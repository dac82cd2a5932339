"""What every page of the console has: its header, with the links that this visitor may follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from starlette.responses import HTMLResponse

from service.api.gate import may
from service.api.render import page

QUEUE: Final = "/review"
PLACES: Final = (
    ("/", "Summaries"),
    (QUEUE, "Queue"),
    ("/review/agreement", "Agreement"),
    ("/review/recall", "Recalls"),
    ("/review/quality", "Quality"),
    ("/review/trail", "Trail"),
    ("/review/glass", "Broken glass"),
)
"""Where the header leads, in this order; what the visitor may not open is not offered."""


@dataclass(frozen=True, slots=True)
class Place:
    """One link of the header."""

    path: str
    title: str
    is_here: bool


def places_of(request: Request) -> tuple[Place, ...]:
    """Return the links of the header for who asks."""
    here = request.url.path
    return tuple(Place(path, title, path == here) for path, title in PLACES if may(request, "GET", path))


def has_console(request: Request) -> bool:
    """Tell whether this visitor may open the queue, on an installation that has one."""
    return may(request, "GET", QUEUE) and any(
        getattr(route, "path", "") == QUEUE for route in request.app.router.routes
    )


def review_page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a page of the console: a template of `review/`, which extends `review/base.html`."""
    return page(
        f"review/{template}",
        status,
        places=places_of(request),
        version=request.app.version,
        **values,
    )
