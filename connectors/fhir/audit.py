"""AuditEvents written to a FHIR server once each, by appending alone.

An AuditEvent has no identifier in R4, and is never updated. It carries a handle of its writer as an entity;
by the instant at which it was recorded, which every server searches, and by that handle it is found again.
A condition (If-None-Exist) would not do: no parameter that all servers know tells one event from another of
the same instant.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

from connectors.errors import ConnectorError, Forbidden, NotFoundError, RequestRejected
from connectors.fhir.client import FHIR_JSON, FhirClient
from connectors.fhir.codec import dicts, encode
from connectors.fhir.write import LOST

_WRITE = {"Accept": FHIR_JSON, "Content-Type": FHIR_JSON, "Prefer": "return=minimal"}
MOST_PAGES = 10
"""Of a search by instant; more than that means a server that does not filter."""


class AuditRepository:
    """A FHIR server that keeps AuditEvents: the EHR itself, or a collector."""

    def __init__(self, client: FhirClient) -> None:
        self._client = client

    @property
    def base_url(self) -> str:
        """The FHIR base URL, without a trailing slash."""
        return self._client.base_url

    async def append(self, event: dict[str, Any], handle: str, *, may_be_there: bool) -> bool:
        """Write an event unless it is there, and tell whether it was written now.

        `handle` is the value of an entity's identifier that no other event has. The server is asked first
        where it may be there, and always after an answer that was lost. Raises ConnectorError; after it, call
        again with `may_be_there`.
        """
        if may_be_there and await self._is_there(event, handle):
            return False
        session = self._client.session
        try:  # any 2xx is taken for a yes: a collector that only takes events need not say where it put one
            await session.send(
                "POST", session.url("AuditEvent"), headers=_WRITE, content=encode(event), repeatable=False
            )
        except LOST:
            with contextlib.suppress(ConnectorError):
                if await self._is_there(event, handle):
                    return True
            raise
        return True

    async def _is_there(self, event: dict[str, Any], handle: str) -> bool:
        count = 0
        try:
            async for page in self._client.pages("AuditEvent", _within_a_second(str(event["recorded"]))):
                if any(has_handle(one, handle) for one in page.resources):
                    return True
                count += 1
                if count == MOST_PAGES:
                    break
        except (RequestRejected, Forbidden, NotFoundError):
            return False  # a collector that only takes events: rather an event twice than one that is lost
        return False


def _within_a_second(instant: str) -> tuple[tuple[str, str], ...]:
    """Return the search by instant: servers differ in how many decimals they keep, and take as equal."""
    at = datetime.fromisoformat(instant).astimezone(UTC).replace(microsecond=0)
    ends = (("ge", at), ("le", at + timedelta(seconds=1)))
    return tuple(("date", f"{prefix}{end:%Y-%m-%dT%H:%M:%SZ}") for prefix, end in ends)


def has_handle(event: dict[str, Any], handle: str) -> bool:
    """Tell whether an AuditEvent has an entity with this identifier."""
    for entity in dicts(event.get("entity")):
        what = entity.get("what")
        identifier = what.get("identifier") if isinstance(what, dict) else None
        if isinstance(identifier, dict) and identifier.get("value") == handle:
            return True
    return False
