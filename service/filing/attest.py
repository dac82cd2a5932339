"""A named clinician takes responsibility for a text: it becomes final, and what it replaces superseded."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from connectors.errors import ConflictError
from connectors.fhir.write import covers
from service.errors import FilingError
from service.filing.desk import Desk, check_ours, expect_version, identifier_of, references
from service.filing.proofs import additions_in, changes_in
from service.filing.stopped import find_stop
from service.ports import (
    ATTESTED_SYSTEM,
    DOCUMENT_SYSTEM,
    Action,
    DocumentState,
    FiledDocument,
    RunState,
    StoredRun,
)
from service.writeback.clean import one_line
from service.writeback.lasting import Addition, Change, filed_changes
from service.writeback.lifecycle import Attestation, attested_transaction, plain, standing_of
from service.writeback.moment import fhir_instant
from service.writeback.profiles import adapt
from service.writeback.transaction import build_transaction, refusal

_TRIES = 3


async def attest(desk: Desk, document: str, *, by: str, actor: str, changes: tuple[Change, ...] = ()) -> str:
    """Make a draft final, and return the attested document (`DocumentReference/9/_history/1`).

    `document` is `DocumentReference/7`, also with the version that was reviewed. The attested text is a
    document of its own that replaces the draft and what was attested before; `changes` are what this
    clinician wrote in the place of statements, or left out. Attesting again by the same clinician, with the
    same changes, completes what was interrupted. Raises FilingError where the draft is not as we wrote it,
    was attested by another, or is none; ConnectorError; StoreError.
    """
    reference, _, reviewed = document.partition("/_history/")
    draft = await desk.ehr.read(reference)
    check_ours(draft)
    run = await desk.find_run(draft)
    if run is None:
        raise FilingError("The store has no run of this document: its text cannot be made final from here.")
    async with desk.alone(run.inputs.key):
        return await _attest(desk, run, _Wish(by, actor, filed_changes(run, changes)), reference, reviewed)


async def attest_run(
    desk: Desk, run: StoredRun, *, by: str, actor: str, changes: tuple[Change, ...] = ()
) -> str:
    """File a run that was kept until attested, as a final document. Raises as `attest` does."""
    why_not = refusal(run.summary)
    if why_not:
        raise FilingError(why_not)
    async with desk.alone(run.inputs.key):
        return await _attest(desk, run, _Wish(by, actor, filed_changes(run, changes)))


class _Wish(NamedTuple):
    """Who attests, and what they changed."""

    by: str
    actor: str
    changes: tuple[Change, ...]


async def _attest(desk: Desk, run: StoredRun, wish: _Wish, reference: str = "", reviewed: str = "") -> str:
    stop = find_stop(run, await asyncio.to_thread(desk.documents.stops))
    if stop is not None:
        raise FilingError(
            f"Publishing is stopped ({stop.scope.value}): nothing of it can be attested.",
            "`epicrisis stop` lists what is halted.",
        )
    for attempt in range(_TRIES):
        try:
            return await _attest_once(desk, run, wish, reference, reviewed)
        except ConflictError:  # someone wrote in between: read again, and decide again
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


async def _attest_once(desk: Desk, run: StoredRun, wish: _Wish, reference: str, reviewed: str) -> str:
    there = await find_attested(desk, run.inputs.key)
    if there is not None:
        _check_same(there, wish)
    replaced = [await desk.ehr.read(reference)] if reference else []
    if replaced and not (there and standing_of(replaced[0]) == "superseded"):
        await _check_draft(desk, run, replaced[0], reviewed)
    others = [d for d in await desk.attested_of(run) if there is None or plain(d) != plain(there)]
    _check_newest(desk, run, others)
    at = instant_of(there) if there else desk.clock()
    attestation = Attestation(wish.by, at, identifier=run.inputs.key, changes=wish.changes)
    return await file_attested(desk, run, attestation, [*replaced, *others], wish.actor)


async def find_attested(desk: Desk, value: str) -> dict[str, Any] | None:
    """Return the attested document of an identifier, or None."""
    found = await desk.ehr.search("DocumentReference", (("identifier", f"{ATTESTED_SYSTEM}|{value}"),))
    return next((d for d in found if identifier_of(d, ATTESTED_SYSTEM) == value), None)


def instant_of(document: dict[str, Any]) -> datetime:
    """Return when a document was attested. Raises FilingError for one without a date."""
    try:
        return datetime.fromisoformat(str(document.get("date")))
    except ValueError:
        raise FilingError("The attested document on the server has no date any more.") from None


def _check_same(there: dict[str, Any], wish: _Wish) -> None:
    if standing_of(there) == "withdrawn":
        raise FilingError("The attested text was withdrawn: it cannot be attested again.", "Write it anew.")
    authenticator = there.get("authenticator") or {}
    if not str(authenticator.get("reference", "")).endswith(wish.by):
        raise FilingError("This draft was attested already, by someone else.")
    changes = changes_in(there)
    if changes is not None and _said(changes) != _said(wish.changes):
        raise FilingError(
            "This draft was attested already, with other words: those stand in the EHR.",
            "Amend the attested document there.",
        )


def _said(changes: Iterable[Change]) -> list[tuple[int, str]]:
    return sorted((change.ordinal, one_line(change.text)) for change in changes)


async def _check_draft(desk: Desk, run: StoredRun, draft: dict[str, Any], reviewed: str) -> None:
    standing = standing_of(draft)
    if standing != "draft":
        raise FilingError(f"This document is {standing} in the EHR: only a draft can be attested.")
    version = (draft.get("meta") or {}).get("versionId")
    if reviewed and version != reviewed:
        raise FilingError("The draft was changed after this version: review it as it is now.")
    if not expect_version(draft, await asyncio.to_thread(desk.known, plain(draft))):
        built = await asyncio.to_thread(_built, desk, run)
        if not covers(draft.get("content"), built["content"]):
            raise FilingError(
                "Someone changed the text of this draft in the EHR: it is not overwritten.",
                "Finish it in the EHR, or withdraw it and have it written anew.",
            )


def _built(desk: Desk, run: StoredRun) -> dict[str, Any]:
    manner = desk.manner
    bundle = build_transaction(
        run, software_version=manner.software_version, profile=manner.profile, sign=manner.sign
    )
    entries = adapt(bundle, manner.profile).bundle["entry"]
    return next(
        entry["resource"]
        for entry in entries
        if identifier_of(entry["resource"], DOCUMENT_SYSTEM) == run.inputs.key
    )


def _check_newest(desk: Desk, run: StoredRun, others: list[dict[str, Any]]) -> None:
    for other in others:
        row = desk.known(plain(other))
        earlier = desk.runs.get(row.run_id) if row else None
        if earlier is not None and earlier.created_at > run.created_at:
            raise FilingError("A newer summary of this patient is attested already: this one is older.")


async def file_attested(
    desk: Desk, run: StoredRun, attestation: Attestation, replaced: list[dict[str, Any]], actor: str
) -> str:
    """File an attested text with what it replaces, and keep what became of all. Raises ConnectorError."""
    manner = desk.manner
    bundle = await asyncio.to_thread(
        attested_transaction, run, attestation, replaced, software_version=manner.software_version,
        profile=manner.profile, sign=manner.sign,
    )  # fmt: skip
    receipt, dropped = await desk.file(bundle)
    patient = run.inputs.patient
    desk.record(Action.ATTEST, actor, patient, run_id=run.run_id, target=receipt.document, by=attestation.by)
    document, _, version = receipt.document.partition("/_history/")
    kept = FiledDocument(
        document=document, server=desk.ehr.base_url, version=version, run_id=run.run_id, patient=patient,
        state=DocumentState.ATTESTED, filed_at=attestation.at, attested_by=attestation.by, dropped=dropped,
    )  # fmt: skip
    await asyncio.to_thread(desk.keep, kept)
    for one in references(replaced):
        row = await asyncio.to_thread(desk.known, one)
        if row is not None:
            await asyncio.to_thread(desk.keep, replace(row, state=DocumentState.SUPERSEDED, version=""))
    if run.state is RunState.GENERATED:
        await asyncio.to_thread(desk.runs.finish, run.run_id, RunState.FILED, receipt.document)
    return receipt.document


async def amend(desk: Desk, document: str, *, by: str, text: str, actor: str) -> str:
    """Add a clinician's text to an attested document, and return the amended one, which replaces it.

    The text stands apart, marked as theirs. Raises FilingError for what is not attested, or no text.
    """
    current = await desk.ehr.read(document.partition("/_history/")[0])
    check_ours(current)
    run = await desk.find_run(current)
    value = identifier_of(current, ATTESTED_SYSTEM)
    if run is None or not value or not text.strip():
        raise FilingError("Only an attested document of ours is amended, and only by some text.")
    if standing_of(current) not in ("attested", "amended"):
        raise FilingError(f"This document is {standing_of(current)} in the EHR: it cannot be amended.")
    at = desk.clock()
    additions = (*additions_in(current), Addition(by, fhir_instant(at), text.strip()))
    said = hashlib.sha256("\0".join(addition.text for addition in additions).encode()).hexdigest()
    identifier = f"{run.inputs.key}.{said[:16]}"
    attestation = Attestation(by, at, additions, identifier, changes_in(current) or ())
    async with desk.alone(run.inputs.key):
        return await file_attested(desk, run, attestation, [current], actor)
