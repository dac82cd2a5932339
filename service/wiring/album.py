"""The image encoder and what it keeps, plugged in: one process, started when it is first asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from service.album import Album
from service.api.review.pictures import PicturesRoom
from service.imaging.encoder import Encoder, NoEncoder
from service.ports import AuditLog, FilingStore
from service.settings import Settings
from service.store.pictures import SqlPictureIndexes, SqlPictures
from service.store.vault import SqlVault
from service.wiring.installation import utc_now

ADVICE = "Set EPICRISIS_MEDSIGLIP to a folder with google/medsiglip-448."


def open_album(settings: Settings, vault: SqlVault | None) -> Album:
    """Return the album, to be closed by whoever opens it. Raises NoEncoder, which says why there is none."""
    if settings.medsiglip is None:
        raise NoEncoder("No image encoder is configured: pictures are chosen by rules alone.", ADVICE)
    if vault is None:
        raise NoEncoder("Nothing is kept of pictures where EPICRISIS_SNAPSHOT_DAYS is 0.")
    return Album(Encoder(settings.medsiglip, settings.medsiglip_device), SqlPictureIndexes(vault))


def open_picture_cache(settings: Settings, vault: SqlVault | None) -> SqlPictures | None:
    """Return what keeps pictures; None where none are to be kept."""
    megabytes = settings.picture_cache_mb
    return SqlPictures(vault, megabytes) if vault is not None and megabytes else None


def open_pictures_room(
    settings: Settings, store: FilingStore, audit: AuditLog, vault: SqlVault | None
) -> tuple[PicturesRoom, Callable[[], Awaitable[None]]]:
    """Return the page that finds pictures by words, and what ends its encoder."""
    try:
        album = open_album(settings, vault)
    except NoEncoder as error:
        return PicturesRoom(store, audit, utc_now, None, error.message), _nothing
    return PicturesRoom(store, audit, utc_now, album), partial(asyncio.to_thread, album.close)


async def _nothing() -> None:
    return None
