"""Documents that were filed, and what is stopped, in the database. Every failure is a StoreError."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime

import msgspec
from sqlalchemy import ColumnElement
from sqlmodel import col, or_, select

from service.errors import ShreddedError, StoreError
from service.ports import Closes, DocumentState, FiledDocument, RunId, Stop, StopScope, Wanted
from service.store.attesting import hidden_runs
from service.store.database import PATIENT, Database
from service.store.tables import CitationTable, DocumentTable, GivenTable, RunTable, StopTable

__all__ = ["PATIENT", "SOURCE", "SqlDocuments", "searched_version"]
SOURCE = "source"
_DOCUMENT = "document"
_CLINICIAN = "clinician"
"""Who hid a run stands sealed beside it, and in the audit log."""
_DECODER = msgspec.json.Decoder(FiledDocument)
_LONGEST_VERSION = 256
"""FHIR's version ids have 64 characters at most; PostgreSQL's indexes refuse rows of 2,700 bytes and more."""


def searched_version(version: str | None) -> str:
    """Return a version id as it is stored and searched for, whatever a server calls one."""
    return (version or "")[:_LONGEST_VERSION]


class SqlDocuments:
    """The DocumentStore in a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def put_document(self, document: FiledDocument) -> None:
        """Keep a document, in place of what was known of it. Raises StoreError.

        Of a patient whose data key was destroyed, state and version of a known document alone are kept.
        """
        hashed = self._hash(document.server, document.document)
        with self.database.writing() as session:
            wanted = select(DocumentTable).where(col(DocumentTable.document_hash) == hashed)
            row = session.exec(wanted).one_or_none()
            new = self._row(document, hashed)
            if row is not None:
                row.state, row.version, row.expires_at = new.state, new.version, new.expires_at
            with suppress(ShreddedError), self.database.sealing_for(document.patient):
                if row is None:
                    session.add(new)
                else:
                    row.content = new.content

    def get_document(self, server: str, document: str) -> FiledDocument | None:
        """Return what is known of `DocumentReference/7` on this server, or None. Raises StoreError."""
        found = self._documents(col(DocumentTable.document_hash) == self._hash(server, document))
        return found[0] if found else None

    def documents_of(self, patient: str) -> Sequence[FiledDocument]:
        """Return a patient's documents, newest first. Raises StoreError."""
        hashed = self.database.cipher.keyed_hash(PATIENT, patient)
        return self._documents(col(DocumentTable.patient_hash) == hashed)[::-1]

    def drafts(self) -> Sequence[FiledDocument]:
        """Return every document that is still a draft, oldest first. Raises StoreError."""
        return self._documents(col(DocumentTable.state) == DocumentState.DRAFT.value)

    def find_documents(self, wanted: Wanted) -> Sequence[FiledDocument]:
        """Return the documents of the runs that are wanted, oldest first. Raises StoreError."""
        runs = select(RunTable.run_id).where(*self._conditions(wanted))
        return self._documents(col(DocumentTable.run_id).in_(runs))

    def find_runs(self, wanted: Wanted) -> Sequence[RunId]:
        """Return the runs that are wanted, newest first, filed or not. Raises StoreError."""
        found = select(RunTable.run_id).where(*self._conditions(wanted))
        with self.database.reading() as session:
            return [RunId(run_id) for run_id in session.exec(found.order_by(col(RunTable.id).desc()))]

    def find_templates(self, prompt_id: str, prompt_version: str) -> Sequence[str]:
        """Return the digests of the templates that runs used under this name and version."""
        named = (col(RunTable.prompt_id) == prompt_id, col(RunTable.prompt_version) == prompt_version)
        with self.database.reading() as session:
            return tuple(session.exec(select(RunTable.template_digest).where(*named).distinct()))

    def hold(self, key: str) -> Closes | None:
        """Return the right to file under a run key, or None where another task or process has it.

        A process that is killed leaves none behind. Raises StoreError.
        """
        return self.database.hold(key)

    def add_stop(self, stop: Stop) -> None:
        """Halt from now on. Raises StoreError."""
        row = StopTable(
            scope=stop.scope.value, since=stop.since, by=stop.by, value=stop.value, reason=stop.reason
        )
        with self.database.writing() as session:
            session.add(row)

    def lift_stop(self, scope: StopScope, value: str, by: str, at: datetime) -> int:
        """Lift what was halted so, and return how many stops that were. Raises StoreError."""
        with self.database.writing() as session:
            open_rows = session.exec(select(StopTable).where(col(StopTable.lifted_at).is_(None)))
            rows = [row for row in open_rows if (row.scope, row.value) == (scope.value, value)]
            for row in rows:
                row.lifted_at, row.lifted_by = at, by
        return len(rows)

    def stops(self) -> Sequence[Stop]:
        """Return what is halted now, oldest first, then the runs that are hidden. Raises StoreError."""
        wanted = select(StopTable).where(col(StopTable.lifted_at).is_(None)).order_by(col(StopTable.id))
        with self.database.reading() as session:
            halted = [
                Stop(StopScope(row.scope), row.value, row.since, row.by, row.reason)
                for row in session.exec(wanted)
            ]
            hidden = [Stop(StopScope.RUN, run_id, at, _CLINICIAN) for run_id, at in hidden_runs(session)]
        return (*halted, *hidden)

    def _documents(self, condition: ColumnElement[bool]) -> list[FiledDocument]:
        """Return what can be read; of a patient whose data key was destroyed nothing can."""
        wanted = select(DocumentTable.content).where(condition).order_by(col(DocumentTable.id))
        with self.database.reading() as session:
            try:
                return [_DECODER.decode(content) for content in session.exec(wanted) if content]
            except msgspec.MsgspecError:
                raise StoreError("What is stored of a document cannot be read.") from None

    def _conditions(self, wanted: Wanted) -> Iterator[ColumnElement[bool]]:
        if wanted.model:
            named = (col(RunTable.model_digest), col(RunTable.model))
            yield or_(*(column == wanted.model for column in named))
        if wanted.prompt_id:
            yield col(RunTable.prompt_id) == wanted.prompt_id
        if wanted.prompt_version:
            yield col(RunTable.prompt_version) == wanted.prompt_version
        if wanted.source:
            yield self._rests_on(wanted.source, wanted.source_version)
        if wanted.after:
            yield col(RunTable.created_at) >= wanted.after
        if wanted.before:
            yield col(RunTable.created_at) < wanted.before

    def _rests_on(self, source: str, version: str) -> ColumnElement[bool]:
        hashed = self.database.cipher.keyed_hash(SOURCE, source)
        given = select(GivenTable.run).where(col(GivenTable.source_hash) == hashed)
        cited = select(CitationTable.run).where(col(CitationTable.source_hash) == hashed)
        if version:
            given = given.where(col(GivenTable.version) == searched_version(version))
            cited = cited.where(col(CitationTable.version) == searched_version(version))
        return or_(col(RunTable.id).in_(given), col(RunTable.id).in_(cited))

    def _row(self, document: FiledDocument, hashed: str) -> DocumentTable:
        return DocumentTable(
            document_hash=hashed,
            run_id=document.run_id,
            patient_hash=self.database.cipher.keyed_hash(PATIENT, document.patient),
            state=document.state.value,
            version=document.version,
            filed_at=document.filed_at,
            expires_at=document.expires_at,
            content=msgspec.json.encode(document).decode(),
        )

    def _hash(self, server: str, document: str) -> str:
        return self.database.cipher.keyed_hash(_DOCUMENT, f"{server} {document}")
