"""The image encoder and what it keeps, plugged in: one process, started when it is first asked."""

from __future__ import annotations

from service.album import Album
from service.imaging.encoder import Encoder, NoEncoder
from service.settings import Settings
from service.store.pictures import SqlPictureIndexes, SqlPictures
from service.store.vault import SqlVault

ADVICE = "Set EPICRISIS_MEDSIGLIP to a folder with google/medsiglip-448."


def open_album(settings: Settings, vault: SqlVault | None) -> Album:
    """Return the album; whoever opens it closes its encoder. Raises NoEncoder, which says why there is none."""
    if settings.medsiglip is None:
        raise NoEncoder("No image encoder is configured: pictures are chosen by rules alone.", ADVICE)
    if vault is None:
        raise NoEncoder("Nothing is kept of pictures where EPICRISIS_SNAPSHOT_DAYS is 0.")
    return Album(Encoder(settings.medsiglip, settings.medsiglip_device), SqlPictureIndexes(vault))


def open_picture_cache(settings: Settings, vault: SqlVault | None) -> SqlPictures | None:
    """Return what keeps pictures; None where none are to be kept."""
    megabytes = settings.picture_cache_mb
    return SqlPictures(vault, megabytes) if vault is not None and megabytes else None
