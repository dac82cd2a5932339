"""What counts each run as it is stored, so that no page of quality opens thousands."""

from __future__ import annotations

from service.quality.backlog import counter_of
from service.settings import Settings
from service.store.quality import SqlQuality
from service.summarize import Keep
from service.wiring.installation import database_of, zone_of


def open_counter(settings: Settings) -> tuple[Keep, SqlQuality]:
    """Return what counts a run, and the store that it keeps open. Raises StoreError."""
    quality = SqlQuality(*database_of(settings))
    return counter_of(quality, zone_of(settings)), quality
