"""Withdrawing documents: by hand, because a draft has expired, or because they are recalled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from connectors.errors import ConflictError, ConnectorError
from service.errors import FilingError
from service.filing.desk import Desk, check_ours, expect_version
from service.ports import Action, DocumentState, FiledDocument
from service.writeback.lifecycle import plain, standing_of, withdrawal_transaction

_TRIES = 5
_ENDED = frozenset({"finished", "cancelled", "entered-in-error"})
EXPIRED = "The draft was not attested within 72 hours."
DISCHARGED = "The encounter ended before the draft was attested."


class Withdrawn(NamedTuple):
    """What became of a withdrawal."""

    document: str
    """`DocumentReference/7/_history/2`"""
    done_now: bool
    """False where it was withdrawn already."""


async def withdraw(desk: Desk, document: str, *, reason: str, by: str, actor: str) -> Withdrawn:
    """Withdraw a document of ours in both statuses, whatever else was changed in it, with a Provenance.

    `by` is a reference, or the name of what is not a person. What others changed stays as they wrote it. A
    second withdrawal only completes the first. Raises FilingError, ConnectorError, StoreError.
    """
    reference = document.partition("/_history/")[0]
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
    await asyncio.to_thread(_keep, desk, reference, receipt.document, there, reason, actor)
    return Withdrawn(receipt.document, not was_withdrawn)


def _keep(desk: Desk, reference: str, filed: str, there: dict[str, Any], reason: str, actor: str) -> None:
    subject = there.get("subject")
    patient = str(subject.get("reference", "")) if isinstance(subject, dict) else ""
    desk.record(Action.WITHDRAW, actor, patient, target=filed)
    row = desk.known(reference)
    if row is not None and row.state is not DocumentState.WITHDRAWN:
        version = filed.partition("/_history/")[2]
        desk.keep(replace(row, state=DocumentState.WITHDRAWN, version=version, reason=reason))


class Expired(NamedTuple):
    """What became of one draft whose time is over."""

    document: str
    result: str
    """`withdrawn`, `left: someone changed it in the EHR`, `left: attested in the EHR`, or an error code."""


async def expire(
    desk: Desk, now: datetime, *, actor: str, tell: Callable[[int, int], None] = lambda done, total: None
) -> list[Expired]:
    """Withdraw every draft that is over 72 hours old, or whose encounter has ended; return what was done.

    A draft that someone changed in the EHR is theirs, and left alone. Raises StoreError.
    """
    drafts = [d for d in await asyncio.to_thread(desk.documents.drafts) if d.server == desk.ehr.base_url]
    results = []
    for number, draft in enumerate(drafts, 1):
        try:
            result = await _expire(desk, draft, now, actor)
        except (ConnectorError, FilingError) as error:
            result = error.code
        if result:
            results.append(Expired(draft.document, result))
        tell(number, len(drafts))
    return results


async def _expire(desk: Desk, draft: FiledDocument, now: datetime, actor: str) -> str:
    reason = await _why_expired(desk, draft, now)
    if not reason:
        return ""
    there = await desk.ehr.read(draft.document)
    standing = standing_of(there)
    if standing == "draft" and expect_version(there, draft):
        await withdraw(desk, plain(there), reason=reason, by="Epicrisis", actor=actor)
        return "withdrawn"
    state = {"withdrawn": DocumentState.WITHDRAWN, "superseded": DocumentState.SUPERSEDED}
    await asyncio.to_thread(desk.keep, replace(draft, state=state.get(standing, DocumentState.FOREIGN)))
    return "left: someone changed it in the EHR" if standing == "draft" else f"left: {standing} in the EHR"


async def _why_expired(desk: Desk, draft: FiledDocument, now: datetime) -> str:
    if draft.expires_at is not None and draft.expires_at <= now:
        return EXPIRED
    if draft.encounter:
        encounter = await desk.read_if_there(draft.encounter)
        if encounter is not None and encounter.get("status") in _ENDED:
            return DISCHARGED
    return ""
