"""Whether a stored summary still holds, as JSON: `GET /api/runs/{run_id}/freshness`.

The chart is read to answer; nothing is written to it, and no engine is asked. Who may see the run may ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response

from service.api.gate import visitor_of
from service.identity.visitor import Visitor
from service.ports import StoredRun
from service.staleness import Freshness, Staleness, shape_of

Ask = Callable[[StoredRun, str], Awaitable[Staleness]]
"""Compares a run with its chart; the text is who asks, for the audit log."""
NO_SERVER = "these pages have no connection to a FHIR server"


def add_freshness(app: FastAPI, view: Callable[[str, Visitor], StoredRun], ask: Ask | None) -> None:
    """Add the route. `view` returns a run whose viewing is on record, as every page of a run does.

    Without `ask` the answer is `unknown`: a page that cannot look must not say that nothing changed.
    """

    async def freshness(request: Request, run_id: str) -> Response:
        visitor = visitor_of(request)
        run = await asyncio.to_thread(view, run_id, visitor)
        if ask is None:
            found = Staleness(run.run_id, Freshness.UNKNOWN, run.read_at, None, reason=NO_SERVER)
        else:
            found = await ask(run, visitor.actor)
        return Response(msgspec.json.encode(shape_of(found)), media_type="application/json")

    app.add_api_route("/api/runs/{run_id}/freshness", freshness, methods=["GET"], response_model=None)
