"""Pictures of this installation: archives, the process that reads files, and the image encoder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from connectors.fhir.client import FhirClient
from connectors.fhir.pictures import fetch_picture
from service.album import AlbumAt
from service.imaging.encoder import NoEncoder
from service.imaging.reader import PictureReader
from service.pictures import Pictures
from service.ports import Vault
from service.ports.images import ImageUse
from service.readings import Images
from service.settings import Settings
from service.store.vault import SqlVault
from service.wiring.album import open_album, open_picture_cache
from service.wiring.pacs import open_archives


@asynccontextmanager
async def open_images(
    settings: Settings, vault: Vault | None, client: FhirClient
) -> AsyncIterator[Images | None]:
    """Plug in where pictures come from; None where this site looks at none. Raises SettingsError.

    Without an image archive the pictures that the record itself keeps are left. An image encoder that is
    configured and cannot be used is no failure: pictures are chosen by rules.
    """
    use = ImageUse(settings.images)
    if use is ImageUse.OFF:
        yield None
        return
    archives = open_archives(settings)
    async with AsyncExitStack() as stack:
        if archives is not None:
            stack.push_async_callback(archives.aclose)
        reader = stack.enter_context(PictureReader())
        pictures = Pictures(
            archives,
            reader,
            eyes=_eyes(settings, vault, client, stack),
            issuers=settings.pacs_issuers,
            seconds=settings.images_timeout_s,
            refuses_burned_in=settings.images_burned_in == "refuse",
            kept=open_picture_cache(settings, vault) if isinstance(vault, SqlVault) else None,
            fetch=partial(fetch_picture, client),
        )
        yield Images(pictures, use, settings.images_most)


def _eyes(
    settings: Settings, vault: Vault | None, client: FhirClient, stack: AsyncExitStack
) -> AlbumAt | None:
    if settings.medsiglip is None or not isinstance(vault, SqlVault):
        return None
    try:
        album = open_album(settings, vault)
    except NoEncoder:
        return None
    stack.callback(album.encoder.close)
    return AlbumAt(album, client.base_url, client.session.auth.profile)
