"""What every act of filing needs: the EHR's documents, what we know of them, and how this site writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from connectors.errors import ConnectorError, NotFoundError
from service.errors import FilingError
from service.ports import (
    ATTESTED_SYSTEM,
    DOCUMENT_SYSTEM,
    Action,
    AuditEntry,
    AuditLog,
    Clock,
    Documents,
    DocumentState,
    DocumentStore,
    FiledDocument,
    Receipt,
    Store,
    StoredRun,
)
from service.writeback.json_form import Sign
from service.writeback.labels import WriteProfile
from service.writeback.lifecycle import plain, standing_of
from service.writeback.profiles import Adapted, adapt

_POLL_S = 0.05
_OURS = (DOCUMENT_SYSTEM, ATTESTED_SYSTEM)


@dataclass(frozen=True, slots=True)
class Manner:
    """How this site writes."""

    software_version: str
    profile: WriteProfile = WriteProfile()  # noqa: RUF009 - frozen
    file_when: Literal["draft", "attested"] = "draft"
    sign: Sign | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """The edges of filing, plugged in."""

    ehr: Documents
    runs: Store
    documents: DocumentStore
    audit: AuditLog
    clock: Clock
    manner: Manner
    tell_collector: Callable[[], Awaitable[object]] | None = None
    """Sends the audit entries that are due, where the site has them sent. It raises nothing."""

    async def file(self, bundle: dict[str, Any]) -> tuple[Receipt, tuple[str, ...]]:
        """File a transaction as this server takes it, and say what was left out. Raises ConnectorError."""
        adapted: Adapted = adapt(bundle, self.manner.profile)
        return await self.ehr.file(adapted.bundle), adapted.dropped

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Wait for the right to file under a run key; no two tasks or processes of one store have it."""
        while (held := await asyncio.to_thread(self.documents.hold, key)) is None:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)  # another process may have it, which sets no event
        try:
            yield
        finally:
            held.close()

    def record(self, action: Action, actor: str, patient: str, **more: Any) -> None:
        """Append an audit entry. Raises StoreError."""
        entry = AuditEntry(action, actor, patient, self.clock(), server=self.ehr.base_url, **more)
        self.audit.append(entry)

    def keep(self, document: FiledDocument) -> None:
        """Keep what is known of a document by now. Raises StoreError."""
        self.documents.put_document(replace(document, changed_at=self.clock()))

    def known(self, document: str) -> FiledDocument | None:
        """Return what is known of `DocumentReference/7` on this server."""
        return self.documents.get_document(self.ehr.base_url, document)

    async def attested_of(self, run: StoredRun) -> list[dict[str, Any]]:
        """Return the attested documents of a run's patient and kind that are current on the server.

        Ours alone: those that we know of, and those that the server finds by our identifier.
        """
        patient = run.inputs.patient
        found = {plain(d): d for d in await self._search_attested(patient)}
        rows = {row.document: row for row in await asyncio.to_thread(self.documents.documents_of, patient)}
        for reference, row in rows.items():
            is_here = row.state is DocumentState.ATTESTED and row.server == self.ehr.base_url
            if is_here and reference not in found and (there := await self.read_if_there(reference)):
                found[reference] = there
        return [
            document
            for reference, document in found.items()
            if standing_of(document) in ("attested", "amended")
            and await asyncio.to_thread(self._is_of_kind, rows.get(reference), run)
        ]

    async def _search_attested(self, patient: str) -> list[dict[str, Any]]:
        wanted = (("patient", patient), ("identifier", f"{ATTESTED_SYSTEM}|"))
        try:
            found = await self.ehr.search("DocumentReference", wanted)
        except ConnectorError:  # a server that knows no identifier without a value: what we know must do
            return []
        return [d for d in found if identifier_of(d, ATTESTED_SYSTEM) and _subject(d) == patient]

    def _is_of_kind(self, row: FiledDocument | None, run: StoredRun) -> bool:
        earlier = self.runs.get(row.run_id) if row else None
        return earlier is None or earlier.inputs.kind == run.inputs.kind

    async def read_if_there(self, reference: str) -> dict[str, Any] | None:
        """Return a resource, or None where the server has none. Raises ConnectorError otherwise."""
        try:
            return await self.ehr.read(reference)
        except NotFoundError:
            return None

    async def find_run(self, document: dict[str, Any]) -> StoredRun | None:
        """Return the run that a document of ours was written by, or None where the store has none."""
        row = await asyncio.to_thread(self.known, plain(document))
        if row is not None:
            return await asyncio.to_thread(self.runs.get, row.run_id)
        key = identifier_of(document, DOCUMENT_SYSTEM) or identifier_of(document, ATTESTED_SYSTEM)
        return await asyncio.to_thread(self.runs.find_by_key, key.partition(".")[0]) if key else None


def identifier_of(document: dict[str, Any], system: str) -> str:
    """Return the value of a document's identifier in a system, empty where it has none."""
    identifiers = document.get("identifier")
    for identifier in identifiers if isinstance(identifiers, list) else ():
        if isinstance(identifier, dict) and identifier.get("system") == system:
            return str(identifier.get("value", ""))
    return ""


def check_ours(document: dict[str, Any]) -> None:
    """Raise FilingError for a document that we did not write."""
    if not any(identifier_of(document, system) for system in _OURS):
        raise FilingError("This document was not written by Epicrisis: it is left alone.")


def expect_version(document: dict[str, Any], row: FiledDocument | None) -> bool:
    """Tell whether a document is as we wrote it: false means someone else's edit."""
    version = (document.get("meta") or {}).get("versionId")
    return row is None or not row.version or version == row.version


def references(documents: Sequence[dict[str, Any]]) -> list[str]:
    """Return `DocumentReference/7` of each."""
    return [plain(document) for document in documents]


def _subject(document: dict[str, Any]) -> str:
    subject = document.get("subject")
    reference = str(subject.get("reference", "")) if isinstance(subject, dict) else ""
    return "/".join(reference.split("/")[-2:])
