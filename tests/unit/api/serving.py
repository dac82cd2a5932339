"""The application over doubles, reached without a socket."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from fastapi import FastAPI

from service.api.app import create_app
from service.ports import StoredRun
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore

NOW = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)


@dataclass
class Served:
    """One application with its store and audit log."""

    store: InMemoryStore
    audit: InMemoryAudit
    app: FastAPI

    async def ask(
        self, path: str, method: str = "GET", host: str | None = "127.0.0.1:8080"
    ) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        headers = {"Host": host} if host is not None else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            return await client.request(method, path, headers=headers)


def serve(*runs: StoredRun, now: datetime = NOW) -> Served:
    store, audit = InMemoryStore(*runs), InMemoryAudit()
    app = create_app(
        store=store,
        audit=audit,
        access=OpenDoor(),
        clock=lambda: now,
        allowed_hosts=("127.0.0.1", "localhost", "::1"),
        version="9.8.7",
    )
    return Served(store, audit, app)
