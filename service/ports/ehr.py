"""The hospital's record system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from connectors.fhir.pull import Pull


class Receipt(Protocol):
    """What the server answered to a filing."""

    @property
    def document(self) -> str:
        """`DocumentReference/7/_history/1`."""
        ...

    @property
    def created(self) -> bool:
        """False when the document was already there."""
        ...

    @property
    def references(self) -> tuple[str, ...]:
        """Every resource that was written, versioned, in order."""
        ...


class Documents(Protocol):
    """The documents that the EHR holds: what becomes of them after they were filed."""

    @property
    def base_url(self) -> str:
        """The FHIR base URL, without a trailing slash."""
        ...

    async def read(self, reference: str) -> dict[str, Any]:
        """Return a resource as it is now. Raises ConnectorError."""
        ...

    async def search(self, resource_type: str, params: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Return every resource of this type that matches. Raises ConnectorError."""
        ...

    async def file(self, bundle: dict[str, Any]) -> Receipt:
        """Write a transaction exactly once. Raises ConnectorError; with it, file again."""
        ...


class Ehr(Documents, Protocol):
    """The hospital's record system: reading a patient, and filing what we wrote."""

    @property
    def access_profile(self) -> str:
        """As whom we read, for run and cache keys: `system:none`, `system:smart:<client id>`."""
        ...

    async def pull(
        self,
        patient_id: str,
        on_progress: Callable[[str, int], None] | None = None,
        known: Pull | None = None,
    ) -> Pull:
        """Fetch one patient. Raises ConnectorError only when nothing useful came back.

        With `known`, an earlier pull of the same patient, it may fetch only what changed since.
        """
        ...

    async def find_document(self, system: str, value: str) -> str | None:
        """Return the versioned reference of our current document with this identifier, or None."""
        ...
