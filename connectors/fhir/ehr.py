"""One FHIR server as the service sees it: pull a patient, find our document, file a transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from connectors.fhir.client import FhirClient
from connectors.fhir.documents import Filed, file_transaction, find_document
from connectors.fhir.grant import mark_ungranted
from connectors.fhir.patient import pull_patient
from connectors.fhir.pull import Pull
from connectors.fhir.reference import parse_patient_id
from connectors.fhir.refresh import refresh_patient
from connectors.http import Params


def utc_now() -> datetime:
    """Return the aware instant."""
    return datetime.now(UTC)


class FhirEhr:
    """A FHIR R4 server. It owns the client: close it with `aclose`."""

    def __init__(self, client: FhirClient, *, now: Callable[[], datetime] = utc_now) -> None:
        self._client = client
        self._now = now

    @property
    def base_url(self) -> str:
        """The FHIR base URL, without a trailing slash."""
        return self._client.base_url

    @property
    def access_profile(self) -> str:
        """As whom we read: `system:none`, `system:smart:<client id>`."""
        return self._client.session.auth.profile

    async def pull(
        self,
        patient_id: str,
        on_progress: Callable[[str, int], None] | None = None,
        known: Pull | None = None,
    ) -> Pull:
        """Fetch one patient with its gaps. Raises ConnectorError only where the Patient cannot be read.

        With `known`, an earlier pull of the same patient, only what changed is fetched, where that can be
        trusted.
        """
        pull = await self._pull(patient_id, on_progress, known)
        return mark_ungranted(pull, self._client.session.auth.scope)

    async def _pull(
        self, patient_id: str, on_progress: Callable[[str, int], None] | None, known: Pull | None
    ) -> Pull:
        if known is not None and known.patient_id == parse_patient_id(patient_id):
            refreshed = await refresh_patient(self._client, known, now=self._now, on_progress=on_progress)
            if refreshed is not None:
                return refreshed
        return await pull_patient(self._client, patient_id, now=self._now, on_progress=on_progress)

    async def find_document(self, system: str, value: str) -> str | None:
        """Return the versioned reference of the document with this identifier, or None."""
        return await find_document(self._client, system, value)

    async def read(self, reference: str) -> dict[str, Any]:
        """Return the resource at `Type/id` as it is now. Raises ConnectorError."""
        return await self._client.read(reference)

    async def search(self, resource_type: str, params: Params) -> list[dict[str, Any]]:
        """Return every resource of this type that matches. Raises ConnectorError."""
        return await self._client.search(resource_type, params)

    async def file(self, bundle: dict[str, Any]) -> Filed:
        """Write a transaction exactly once. Raises ConnectorError; nothing half-written."""
        return await file_transaction(self._client, bundle)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()
