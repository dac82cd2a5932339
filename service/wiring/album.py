"""The image encoder and what it keeps, plugged in: one process, started when it is first asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.album import Album
from service.api.review.pictures import PicturesRoom
from service.imaging.encoder import Embedded, Encoder, NoEncoder
from service.ports import AuditLog, FilingStore
from service.settings import Settings
from service.store.pictures import SqlPictureIndexes, SqlPictures
from service.store.vault import SqlVault
from service.wiring.installation import utc_now

ADVICE = "Set EPICRISIS_MEDSIGLIP to a folder with google/medsiglip-448."


class Encoders:
    """One encoder for each folder and device, shared by all that are open: weights lie in memory once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[Path, str], tuple[Encoder, int]] = {}

    def take(self, folder: Path, device: str) -> SharedEncoder:
        """Return it; the last of those that took it ends its process. Raises NoEncoder."""
        key = (folder.resolve(), device)
        with self._lock:
            encoder, users = self._open[key] if key in self._open else (Encoder(*key), 0)
            self._open[key] = encoder, users + 1
        return SharedEncoder(encoder, partial(self._give_back, key))

    def _give_back(self, key: tuple[Path, str]) -> None:
        with self._lock:
            encoder, users = self._open.pop(key)
            if users > 1:
                self._open[key] = encoder, users - 1
                return
        encoder.close()


@dataclass
class SharedEncoder:
    """An Embedder that others use too. Closed twice, it is closed once."""

    _encoder: Encoder
    _close: Callable[[], None]

    @property
    def model(self) -> str:
        """Digest of the weights."""
        return self._encoder.model

    def embed_images(self, pngs: Sequence[bytes]) -> Embedded:
        """Return one vector a picture. Raises NoEncoder."""
        return self._encoder.embed_images(pngs)

    def embed_texts(self, texts: Sequence[str]) -> Embedded:
        """Return one vector a text. Raises NoEncoder."""
        return self._encoder.embed_texts(texts)

    def close(self) -> None:
        """Leave it to the others; the last one ends its process."""
        close, self._close = self._close, _done
        close()


def _done() -> None:
    return None


_ENCODERS = Encoders()
"""Of this process: a page, the sidebar and a worker's runs each open it, and their runs come and go."""


def open_album(settings: Settings, vault: SqlVault | None) -> Album:
    """Return the album, to be closed by whoever opens it. Raises NoEncoder, which says why there is none."""
    if settings.medsiglip is None:
        raise NoEncoder("No image encoder is configured: pictures are chosen by rules alone.", ADVICE)
    if vault is None:
        raise NoEncoder("Nothing is kept of pictures where EPICRISIS_SNAPSHOT_DAYS is 0.")
    return Album(_ENCODERS.take(settings.medsiglip, settings.medsiglip_device), SqlPictureIndexes(vault))


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
