"""Withdrawing documents: by hand, because a draft has expired, or because they are recalled."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from connectors.errors import ConflictError, ConnectorError
from service.errors import FilingError
from service.filing.desk import Desk, check_ours, expect_version, identifier_of
from service.ports import ATTESTED_SYSTEM, DOCUMENT_SYSTEM, Action, DocumentState, FiledDocument
from service.writeback.lifecycle import plain, standing_of, withdrawal_transaction

_TRIES = 5
_ENDED = frozenset({"finished", "cancelled", "entered-in-error"})
EXPIRED = "The draft was not attested within 72 hours."
DISCHARGED = "The encounter ended before the draft was attested."
MERGED = "The patient's record was merged, or moved to another patient."
_DOCUMENT = re.compile(r"(?:.*/)?(DocumentReference/[A-Za-z0-9.-]{1,64})(?:/_history/.*)?")


class Withdrawn(NamedTuple):
    """What became of a withdrawal."""

    document: str
    """`DocumentReference/7/_history/2`"""
    done_now: bool
    """False where it was withdrawn already."""
    origins: tuple[str, ...] = ()
    """The superseded documents with the same machine text that are withdrawn with it."""
    not_withdrawn: tuple[str, ...] = ()
    """`DocumentReference/6: rejected`: those that could not be, each with an error code."""


async def withdraw(
    desk: Desk, document: str, *, reason: str, by: str, actor: str, with_origins: bool = True
) -> Withdrawn:
    """Withdraw a document of ours in both statuses, whatever else was changed in it, with a Provenance.

    With an attested text goes the draft that it was made from, and what it amends: they hold the same machine
    text. What it replaced of an earlier run stays superseded: that is another text. `by` is a reference, or
    the name of what is not a person. What others changed stays as they wrote it. A second withdrawal only
    completes the first. Raises FilingError, ConnectorError, StoreError; for a document that goes along,
    StoreError alone.
    """
    reference = document.partition("/_history/")[0]
    filed, there, done_now = await _withdraw(desk, reference, reason, by, actor)
    gone: list[str] = []
    left: list[str] = []
    for origin in await _origins(desk, there, left) if with_origins else ():
        try:
            await _withdraw(desk, origin, reason, by, actor)
            gone.append(origin)
        except (ConnectorError, FilingError) as error:
            left.append(f"{origin}: {error.code}")
    return Withdrawn(filed, done_now, tuple(gone), tuple(left))


async def _withdraw(
    desk: Desk, reference: str, reason: str, by: str, actor: str
) -> tuple[str, dict[str, Any], bool]:
    """Return the withdrawn version, the document as it was, and whether it was withdrawn just now."""
    for attempt in range(_TRIES):
        there = await desk.ehr.read(reference)
        check_ours(there)
        was_withdrawn = there.get("status") == there.get("docStatus") == "entered-in-error"
        bundle = withdrawal_transaction(there, by=by, reason=reason, at=desk.clock())
        try:
            receipt, _ = await desk.file(bundle)
        except ConflictError:  # someone wrote in between: their change is read, and kept
            if attempt == _TRIES - 1:
                raise
        else:
            break
    done_now = not was_withdrawn
    await asyncio.to_thread(_keep, desk, reference, receipt.document, there, done_now, reason, by, actor)
    if desk.tell_collector is not None:
        await desk.tell_collector()
    return receipt.document, there, done_now


async def _origins(desk: Desk, document: dict[str, Any], left: list[str]) -> list[str]:
    """Return what an attested text replaced of its own run, newest first; what cannot be read is left."""
    key, found, waiting = _run_key(document), [plain(document)], [document]
    while waiting:
        for reference in _replaced(waiting.pop()):
            if reference in found:
                continue
            try:
                earlier = await desk.read_if_there(reference)
            except ConnectorError as error:
                left.append(f"{reference}: {error.code}")
                continue
            if earlier is not None and _run_key(earlier) == key:
                found.append(reference)
                waiting.append(earlier)
    return found[1:]


def _run_key(document: dict[str, Any]) -> str:
    value = identifier_of(document, ATTESTED_SYSTEM) or identifier_of(document, DOCUMENT_SYSTEM)
    return value.partition(".")[0]


def _replaced(document: dict[str, Any]) -> list[str]:
    relations = document.get("relatesTo")
    targets = (
        (one.get("target") or {}).get("reference")
        for one in (relations if isinstance(relations, list) else ())
        if isinstance(one, dict) and one.get("code") == "replaces"
    )
    return [found[1] for target in targets if (found := _DOCUMENT.fullmatch(str(target)))]


def _keep(
    desk: Desk,
    reference: str,
    filed: str,
    there: dict[str, Any],
    done_now: bool,
    reason: str,
    by: str,
    actor: str,
) -> None:
    """Record the act, then what is known of the document: a repeat finds it recorded, or records it."""
    row = desk.known(reference)
    is_known = row is not None and row.state is DocumentState.WITHDRAWN
    if done_now or not is_known:
        subject = there.get("subject")
        patient = str(subject.get("reference", "")) if isinstance(subject, dict) else ""
        desk.record(Action.WITHDRAW, actor, patient, target=filed, by=by)
    if row is not None and not is_known:
        version = filed.partition("/_history/")[2]
        desk.keep(replace(row, state=DocumentState.WITHDRAWN, version=version, reason=reason))


class Expired(NamedTuple):
    """What became of one draft whose time is over."""

    document: str
    result: str
    """`withdrawn`, `left: someone changed it in the EHR`, `left: attested in the EHR`, or an error code."""


async def expire(
    desk: Desk,
    now: datetime,
    *,
    actor: str,
    tell: Callable[[int, int], None] = lambda done, total: None,
    going_on: frozenset[str] = frozenset(),
) -> list[Expired]:
    """Withdraw every draft that is over 72 hours old, or whose encounter has ended; return what was done.

    Encounters (`Encounter/9`) that were just seen to be `going_on` are not asked for again. A draft that
    someone changed in the EHR is theirs, and left alone. Raises StoreError.
    """
    drafts = [d for d in await asyncio.to_thread(desk.documents.drafts) if d.server == desk.ehr.base_url]
    results = []
    for number, draft in enumerate(drafts, 1):
        try:
            result = await _expire(desk, draft, now, actor, going_on)
        except (ConnectorError, FilingError) as error:
            result = error.code
        if result:
            results.append(Expired(draft.document, result))
        tell(number, len(drafts))
    return results


async def _expire(
    desk: Desk, draft: FiledDocument, now: datetime, actor: str, going_on: frozenset[str]
) -> str:
    reason = await _why_expired(desk, draft, now, going_on)
    return await lapse(desk, draft, reason, actor) if reason else ""


async def lapse(desk: Desk, draft: FiledDocument, reason: str, actor: str) -> str:
    """Withdraw a draft that is as we wrote it, and say what was done. Raises what `withdraw` raises.

    One that someone changed, attested or withdrew in the EHR is theirs, and left alone.
    """
    there = await desk.ehr.read(draft.document)
    standing = standing_of(there)
    if standing == "draft" and expect_version(there, draft):
        await withdraw(desk, plain(there), reason=reason, by="Epicrisis", actor=actor)
        return "withdrawn"
    state = {"withdrawn": DocumentState.WITHDRAWN, "superseded": DocumentState.SUPERSEDED}
    await asyncio.to_thread(desk.keep, replace(draft, state=state.get(standing, DocumentState.FOREIGN)))
    return "left: someone changed it in the EHR" if standing == "draft" else f"left: {standing} in the EHR"


async def _why_expired(desk: Desk, draft: FiledDocument, now: datetime, going_on: frozenset[str]) -> str:
    if draft.expires_at is not None and draft.expires_at <= now:
        return EXPIRED
    if draft.encounter and draft.encounter not in going_on:
        encounter = await desk.read_if_there(draft.encounter)
        if encounter is not None and encounter.get("status") in _ENDED:
            return DISCHARGED
    return ""
