"""Runs in the database. Every method is one transaction; every failure is a StoreError."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Row, Select
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, func, select

from service.errors import ExpiredError, ShreddedError, StoreError
from service.grounding.summary import Claim, Summary
from service.ports import DocumentState, RunId, RunRow, RunState, StoredRun
from service.record.facts import FactId, ResourceVersion
from service.store.cipher import Cipher
from service.store.codec import decode_run, encode_run
from service.store.database import Database
from service.store.documents import PATIENT, SOURCE, SqlDocuments, searched_version
from service.store.tables import EXPIRED, CitationTable, ClaimTable, DocumentTable, GivenTable, RunTable

_NEWEST_FIRST = (col(RunTable.created_at).desc(), col(RunTable.id).desc())
_WHOLE = (
    col(RunTable.run_id),
    col(RunTable.content),
    col(RunTable.state),
    col(RunTable.document),
    col(RunTable.error),
    col(RunTable.seconds),
    col(RunTable.patient_name),
)
_ROW = (
    col(RunTable.run_id),
    col(RunTable.created_at),
    col(RunTable.state),
    col(RunTable.kind),
    col(RunTable.patient),
    col(RunTable.patient_name),
    col(RunTable.model),
    col(RunTable.document),
    col(RunTable.published),
    col(RunTable.refused),
    col(RunTable.incomplete),
)


class SqlStore(SqlDocuments):
    """Store and DocumentStore in a database. Opening it migrates the database and checks the key."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        super().__init__(Database(url, cipher))

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def save(self, run: StoredRun) -> None:
        """Store a run with its claims and citations, whole or not at all. Raises StoreError.

        Raises ShreddedError where the patient's data key was destroyed.
        """
        with self.database.writing(alone=False, about=run.inputs.patient) as session:
            self.add(session, run)

    def add(self, session: Session, run: StoredRun) -> None:
        """Store a run in a transaction about its patient. Raises StoreError."""
        cipher = self.database.cipher
        row = _run_row(run, cipher)
        session.add(row)
        session.flush()
        assert row.id is not None
        session.add_all(_claim_rows(row.id, run.summary, cipher))
        session.flush()
        session.add_all(_citation_rows(row.id, run.summary, cipher))
        session.add_all(_given_rows(row.id, run.summary, cipher))

    def finish(
        self,
        run_id: RunId,
        state: RunState,
        document: str = "",
        error: str = "",
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Record what became of a run; a document once known and earlier timings stay. Raises StoreError."""
        with self.database.writing() as session:
            row = session.exec(select(RunTable).where(col(RunTable.run_id) == run_id)).one_or_none()
            if row is None:
                raise StoreError("There is no such run.")
            row.state = state.value
            row.error = error
            row.seconds = {**row.seconds, **(seconds or {})}
            if document:
                with suppress(ShreddedError), self.database.envelope.about(row.patient_hash):
                    row.document = document

    def get(self, run_id: RunId) -> StoredRun | None:
        """Return one run whole, or None. Raises ShreddedError for a destroyed one, and StoreError."""
        return self._first(select_columns(*_WHOLE).where(col(RunTable.run_id) == run_id))

    def find_by_key(self, key: str) -> StoredRun | None:
        """Return the newest run with this key that did not fail, or None; a destroyed one is none.

        Raises StoreError.
        """
        wanted = (col(RunTable.run_key) == key, col(RunTable.state) != RunState.FAILED.value)
        with suppress(ShreddedError):
            return self._first(select_columns(*_WHOLE).where(*wanted).order_by(*_NEWEST_FIRST))
        return None

    def find_latest(self, patient: str, kind: str) -> StoredRun | None:
        """Return the newest run of a patient (`Patient/1`) and kind whose document is on the server, or None.

        Raises ShreddedError where the patient's data key was destroyed, so that no run is made in vain, and
        StoreError.
        """
        hashed = self.database.hash_of(patient)
        wanted = (
            col(RunTable.patient_hash) == hashed,
            col(RunTable.kind) == kind,
            col(RunTable.state).in_((RunState.FILED.value, RunState.UNCHANGED.value)),
        )
        with self.database.reading():
            if self.database.envelope.is_shredded(hashed):
                raise ShreddedError
        with suppress(ShreddedError):
            return self._first(select_columns(*_WHOLE).where(*wanted).order_by(*_NEWEST_FIRST))
        return None

    def newest(
        self, server: str, patient: str, kind: str, encounter: str = "", reader: str = ""
    ) -> StoredRun | None:
        """Return the newest run that may be shown to a reader, of an encounter where one is named.

        Raises StoreError; ShreddedError where the patient's data key was destroyed. Server, encounter and
        reader lie sealed in a run, so the newest are opened in turn; mostly it is the first.
        """
        hashed, at = self.database.hash_of(patient), server.rstrip("/")
        withdrawn = select(DocumentTable.run_id).where(
            col(DocumentTable.patient_hash) == hashed,
            col(DocumentTable.state) == DocumentState.WITHDRAWN.value,
        )
        wanted = select_columns(col(RunTable.id)).where(
            col(RunTable.patient_hash) == hashed,
            col(RunTable.kind) == kind,
            col(RunTable.state) != RunState.FAILED.value,
            col(RunTable.run_id).not_in(withdrawn),
        )
        with self.database.reading() as session:
            if self.database.envelope.is_shredded(hashed):
                raise ShreddedError
            for number in session.scalars(wanted.order_by(*_NEWEST_FIRST)).all():
                row = session.execute(select_columns(*_WHOLE).where(col(RunTable.id) == number)).one()
                with suppress(ShreddedError):  # of an earlier stay, before the patient was readmitted
                    run = _whole(row)
                    if run.inputs.server.rstrip("/") == at and _fits(run, encounter, reader):
                        return run
        return None

    def rows(self, limit: int = 50, offset: int = 0) -> tuple[Sequence[RunRow], int]:
        """Return one page of runs, newest first, and how many there are in all. Raises StoreError."""
        page = select_columns(*_ROW).order_by(*_NEWEST_FIRST).limit(max(limit, 0)).offset(max(offset, 0))
        with self.database.reading() as session:
            total = session.exec(select(func.count()).select_from(RunTable)).one()
            return tuple(_listed(row) for row in session.execute(page)), total

    def names(self, run_ids: Sequence[RunId]) -> Mapping[RunId, str]:
        """Return the patient's name of each run that is stored, `Shredded` of some. Raises StoreError."""
        wanted = select_columns(col(RunTable.run_id), col(RunTable.patient_name)).where(
            col(RunTable.run_id).in_(run_ids)
        )
        with self.database.reading() as session:
            return {RunId(run_id): name for run_id, name in session.execute(wanted)}

    def find_by_patient(self, patient: str) -> tuple[RunId, ...]:
        """Return every run about a patient (`Patient/1`), newest first. Raises StoreError."""
        hashed = self.database.cipher.keyed_hash(PATIENT, patient)
        return self._ids(col(RunTable.patient_hash) == hashed)

    def find_by_source(self, reference: str, version: str | None = None) -> tuple[RunId, ...]:
        """Return every run with a claim that cites a resource, in this version or in any, newest first."""
        hashed = self.database.cipher.keyed_hash(SOURCE, reference)
        citing = select(CitationTable.run).where(col(CitationTable.source_hash) == hashed)
        if version is not None:
            citing = citing.where(col(CitationTable.version) == searched_version(version))
        return self._ids(col(RunTable.id).in_(citing))

    def _ids(self, condition: ColumnElement[bool]) -> tuple[RunId, ...]:
        wanted = select(RunTable.run_id).where(condition).order_by(*_NEWEST_FIRST)
        with self.database.reading() as session:
            return tuple(RunId(run_id) for run_id in session.exec(wanted))

    def _first(self, wanted: Select[*tuple[Any, ...]]) -> StoredRun | None:
        with self.database.reading() as session:
            row = session.execute(wanted.limit(1)).first()
        return None if row is None else _whole(row)


def _run_row(run: StoredRun, cipher: Cipher) -> RunTable:
    inputs, summary = run.inputs, run.summary
    return RunTable(
        run_id=run.run_id,
        run_key=inputs.key,
        attempt=inputs.attempt,
        state=run.state.value,
        created_at=run.created_at,
        kind=inputs.kind,
        model=inputs.model,
        model_digest=inputs.model_digest,
        engine_version=inputs.engine_version,
        prompt_id=inputs.prompt_id,
        prompt_version=inputs.prompt_version,
        template_digest=inputs.template_digest,
        record_digest=inputs.record_digest,
        rules_version=inputs.rules_version,
        patient_hash=cipher.keyed_hash(PATIENT, inputs.patient),
        patient=inputs.patient,
        patient_name=summary.identity.name,
        document=run.document,
        published=len(summary.published),
        refused=len(summary.refused),
        incomplete=bool(summary.incomplete),
        error=run.error,
        seconds=dict(run.seconds),
        content=encode_run(run),
    )


def _claims(summary: Summary) -> Iterator[tuple[int, Claim]]:
    return enumerate((*summary.published, *summary.refused))


def _claim_rows(run: int, summary: Summary, cipher: Cipher) -> Iterator[ClaimTable]:
    published = len(summary.published)
    for ordinal, claim in _claims(summary):
        yield ClaimTable(
            run=run,
            ordinal=ordinal,
            section=claim.section,
            origin=claim.origin.value,
            verdict=claim.verdict.value,
            published=ordinal < published,
            corrected=claim.corrected,
            text_hash=cipher.keyed_hash("claim", claim.text),
        )


def _citation_rows(run: int, summary: Summary, cipher: Cipher) -> Iterator[CitationTable]:
    sources = {fact.id: fact.sources for fact in summary.facts}
    for ordinal, claim in _claims(summary):
        # A refused claim may cite what does not exist; a fact may rest on many resources.
        cited = [
            source
            for fact_id in claim.citations
            for source in sources.get(fact_id, (ResourceVersion(_resource_of(fact_id), None, ""),))
        ]
        for position, source in enumerate(cited):
            yield CitationTable(
                run=run,
                claim=ordinal,
                position=position,
                source_hash=cipher.keyed_hash(SOURCE, source.reference),
                version=searched_version(source.version),
                digest=source.digest,
            )


def _given_rows(run: int, summary: Summary, cipher: Cipher) -> Iterator[GivenTable]:
    given = {
        (cipher.keyed_hash(SOURCE, source.reference), searched_version(source.version))
        for fact in summary.facts
        for source in fact.sources
    }
    for source_hash, version in sorted(given):
        yield GivenTable(run=run, source_hash=source_hash, version=version)


def _resource_of(fact_id: FactId) -> str:
    return fact_id.partition("#")[0]


def _whole(row: Row[*tuple[Any, ...]]) -> StoredRun:
    run_id, content, state, document, error, seconds, name = row
    if not content:
        raise ExpiredError if name == EXPIRED else ShreddedError
    run = decode_run(content)
    if run.run_id != run_id:  # authentic, but of another row
        raise StoreError("A stored run was changed.", "Restore the database from its backup.")
    return replace(run, state=RunState(state), document=document, error=error, seconds=seconds)


def _fits(run: StoredRun, encounter: str, reader: str) -> bool:
    return run.is_read_for(reader) and (not encounter or run.inputs.encounter in ("", encounter))


def _listed(row: Row[*tuple[Any, ...]]) -> RunRow:
    run_id, created_at, state, *rest = row
    return RunRow(RunId(run_id), created_at, RunState(state), *rest)
