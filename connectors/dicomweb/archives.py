"""The image archives of a site: the configured PACS, and those on allowed origins that a record names.

Whoever we are is shown to the configured PACS's origin alone; no other origin than these is ever asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx

from connectors.auth import Auth, NoAuth
from connectors.dicomweb.client import Pacs
from connectors.errors import ForeignLink
from connectors.http import Patience
from connectors.limits import ImagingLimits, Limits
from connectors.origin import origin_of


class Archives:
    """Opens a client for a base URL once, and keeps it. Close all of them with `aclose`."""

    def __init__(
        self,
        pacs_url: str = "",
        *,
        auth: Auth | None = None,
        allowed_origins: Sequence[str] = (),
        limits: Limits | None = None,
        imaging: ImagingLimits | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        ca_file: Path | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.pacs_url = pacs_url.rstrip("/")
        self.allowed_origins = tuple(allowed_origins)
        self._auth = auth or NoAuth()
        self._own = origin_of(self.pacs_url) if pacs_url else ""
        self._allowed = frozenset(map(origin_of, allowed_origins)) | ({self._own} if pacs_url else set())
        self._limits, self._imaging = limits, imaging
        self._transport, self._ca_file, self._patience = transport, ca_file, patience
        self._open: dict[str, Pacs] = {}

    def at(self, base_url: str) -> Pacs:
        """Return the client of the service at a base URL. Raises ForeignLink beyond the allowed origins."""
        origin = origin_of(base_url)
        if origin not in self._allowed:
            raise ForeignLink(f"The image archive at {origin} was not asked: it is not an allowed origin.")
        if base_url not in self._open:
            self._open[base_url] = Pacs(
                base_url,
                auth=self._auth if origin == self._own else NoAuth(),
                limits=self._limits,
                imaging=self._imaging,
                transport=self._transport,
                ca_file=self._ca_file,
                patience=self._patience,
            )
        return self._open[base_url]

    async def aclose(self) -> None:
        """Close every connection."""
        opened, self._open = list(self._open.values()), {}
        await asyncio.gather(*(one.aclose() for one in opened))
