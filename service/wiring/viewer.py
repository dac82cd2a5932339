"""The viewer of images, plugged in: which archives are asked, and whose record is read."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from connectors.fhir.client import FhirClient
from service.api.gallery import Gallery
from service.api.viewer import Viewer
from service.ehrs import is_same_server
from service.imaging.reader import PictureReader
from service.ports import AuditLog, FilingStore, StoredRun
from service.settings import Settings
from service.wiring.ehr import fhir_client
from service.wiring.installation import policy, utc_now
from service.wiring.launches import LaunchRooms
from service.wiring.pacs import open_archives


def open_gallery(settings: Settings) -> Gallery:
    """Return what looks at images. Close it. Raises SettingsError, BadUrl."""
    return Gallery(open_archives(settings), PictureReader(), settings.pacs_issuers)


def open_viewer(
    settings: Settings, gallery: Gallery, store: FilingStore, audit: AuditLog, launching: LaunchRooms | None
) -> Viewer:
    """Return the viewer's routes; without launches only those for who signs in."""

    def ours(run: StoredRun) -> AbstractAsyncContextManager[FhirClient] | None:
        if not settings.fhir_url or not is_same_server(settings.fhir_url, run.inputs.server):
            return None  # another server's ids mean other people
        return fhir_client(settings)

    charts = launching.charts if launching is not None else None
    return Viewer(gallery, store, audit, utc_now, ours, charts, settings.ohif_url, policy(settings))
