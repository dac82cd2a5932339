"""Filing a run's draft: exactly once, beside what is attested, and not where it is stopped."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import NamedTuple

from connectors.errors import ConnectorError
from service.filing.desk import Desk, references
from service.filing.stopped import find_stop
from service.ports import Action, DocumentState, FiledDocument, Receipt, RunState, StoredRun
from service.writeback.document import encounter_of
from service.writeback.lifecycle import standing_beside, standing_of
from service.writeback.moment import DRAFT_LIFE
from service.writeback.transaction import build_transaction, refusal


class Published(NamedTuple):
    """What became of a run."""

    state: RunState
    document: str
    reason: str
    is_stopped: bool = False
    """True where a stop keeps it from being filed."""


async def publish(desk: Desk, run: StoredRun, actor: str) -> Published:
    """File a stored run as a draft, or say why not. Raises ConnectorError, FilingError or StoreError.

    After an error the run is still GENERATED: published again, it is completed with the same text.
    """
    why_not = refusal(run.summary)
    if why_not:
        return Published(RunState.INCOMPLETE if run.summary.incomplete else RunState.WITHHELD, "", why_not)
    if desk.manner.file_when == "attested":
        return Published(RunState.GENERATED, "", "Kept here until a clinician attests it; nothing is filed.")
    async with desk.alone(run.inputs.key):
        stop = find_stop(run, await asyncio.to_thread(desk.documents.stops))
        if stop is not None:
            since = f"{stop.scope.value}, since {stop.since:%d-%b-%Y %H:%M} UTC"
            reason = f"Publishing is stopped ({since}): the summary is kept here, and filed by the next run"
            return Published(RunState.GENERATED, "", f"{reason} after the stop is lifted.", is_stopped=True)
        return await _file(desk, run, actor)


async def _file(desk: Desk, run: StoredRun, actor: str) -> Published:
    manner, patient = desk.manner, run.inputs.patient
    bundle = await asyncio.to_thread(
        build_transaction, run, software_version=manner.software_version, profile=manner.profile,
        sign=manner.sign,
    )  # fmt: skip
    try:
        beside = await desk.attested_of(run)
        receipt, dropped = await desk.file(standing_beside(bundle, references(beside)))
        withdrawn = not receipt.created and await _is_withdrawn(desk, receipt)
    except ConnectorError as error:
        desk.record(Action.WRITE, actor, patient, outcome=error.code, run_id=run.run_id)
        desk.runs.finish(run.run_id, RunState.GENERATED, "", error.code)
        raise
    desk.record(Action.WRITE, actor, patient, run_id=run.run_id, target=receipt.document)
    await asyncio.to_thread(_keep, desk, run, receipt, dropped, withdrawn)
    if withdrawn:
        return Published(
            RunState.UNCHANGED, receipt.document, "This draft was withdrawn; --attempt 2 writes anew."
        )
    if receipt.created:
        return Published(RunState.FILED, receipt.document, "")
    return Published(RunState.UNCHANGED, receipt.document, "The document was already there.")


async def _is_withdrawn(desk: Desk, receipt: Receipt) -> bool:
    document = await desk.read_if_there(receipt.document.partition("/_history")[0])
    return document is None or standing_of(document) == "withdrawn"


def _keep(desk: Desk, run: StoredRun, receipt: Receipt, dropped: tuple[str, ...], withdrawn: bool) -> None:
    document, _, version = receipt.document.partition("/_history/")
    known = desk.known(document)
    if known is not None:
        if withdrawn and known.state is not DocumentState.WITHDRAWN:  # by someone else, in the EHR
            desk.keep(replace(known, state=DocumentState.WITHDRAWN, version=version))
        return
    desk.keep(
        FiledDocument(
            document=document,
            server=desk.ehr.base_url,
            version=version,
            run_id=run.run_id,
            patient=run.inputs.patient,
            state=DocumentState.WITHDRAWN if withdrawn else DocumentState.DRAFT,
            filed_at=desk.clock(),
            expires_at=run.created_at + DRAFT_LIFE,
            encounter=encounter_of(run),
            dropped=dropped,
        )
    )
