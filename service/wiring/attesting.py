"""The rooms of clinicians in the console: attesting, recalls of two people, and what is withheld."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.api.app import Room
from service.api.review.attesting import Attesting, Seen
from service.api.review.glass import Glasses
from service.api.review.recall import Recalls
from service.ehrs import is_same_server
from service.filing.desk import Desk
from service.ports import AuditLog, FilingStore
from service.ports.feedback import FeedbackStore
from service.settings import Settings
from service.store.attesting import SqlAttesting
from service.wiring.ehr import open_desk
from service.wiring.installation import database_of, software_version, utc_now


class Clinicians:
    """The rooms, over one store of what clinicians decide."""

    def __init__(
        self,
        settings: Settings,
        store: FilingStore,
        audit: AuditLog,
        feedback: FeedbackStore,
        seen: Seen | None,
    ) -> None:
        self.kept = SqlAttesting(*database_of(settings))

        @asynccontextmanager
        async def desk() -> AsyncIterator[Desk]:
            async with open_desk(settings) as opened:
                yield opened

        def is_ours(server: str) -> bool:
            return bool(settings.fhir_url) and is_same_server(settings.fhir_url, server)

        attesting = Attesting(
            store, self.kept, audit, utc_now, is_ours, desk if settings.fhir_url else None, feedback, seen,
            software_version(),
        )  # fmt: skip
        self._recalls = Recalls(store, self.kept, audit, utc_now, desk if settings.fhir_url else None)
        self.glasses = Glasses(store, self.kept, audit, utc_now)
        self.rooms: list[Room] = [attesting, self._recalls, self.glasses]

    async def aclose(self) -> None:
        """Close the store, once no recall is under way."""
        await self._recalls.aclose()
        await asyncio.to_thread(self.kept.close)
