"""Recall: every document that a model, a prompt, a bad source or a span of time has touched.

Both memories are asked: our store, and the server's Provenance, which knows of documents that another
installation wrote or our store has lost. A recall that was interrupted is begun again: what is withdrawn is
seen as such on the server, and passed over.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from connectors.errors import ConnectorError
from connectors.fhir.reference import reference_of_write
from service.errors import FilingError, SettingsError
from service.filing.desk import Desk, identifier_of
from service.filing.withdraw import withdraw
from service.ports import ATTESTED_SYSTEM, DEVICE_SYSTEM, DOCUMENT_SYSTEM, Wanted
from service.ports.attesting import Proposal, ProposalState
from service.writeback.labels import PROMPT_SYSTEM
from service.writeback.lifecycle import standing_of

BATCH = 8
"""Documents read or withdrawn at once: a recall must not slow the hospital's record system down."""
_SOURCE = re.compile(r"([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})(?:/_history/([A-Za-z0-9\-.]{1,64}))?")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Recalled:
    """One document that a recall is about, as it is on the server now."""

    document: str
    """`DocumentReference/7`"""
    patient: str
    standing: str
    """`draft`, `attested`, `amended`, `superseded`, `withdrawn`, or an error code where it cannot be read."""
    attested_by: str
    date: str
    known_to: tuple[str, ...]
    """`store`, `server`, or both."""
    result: str = ""
    """`withdrawn`, `withdrawn before`, or why it was not."""


@dataclass(frozen=True, slots=True)
class Recall:
    """What a recall found and did."""

    documents: tuple[Recalled, ...]
    server_asked: bool
    """False where the server's Provenance could not be searched: the list is our store's alone."""

    @property
    def not_withdrawn(self) -> tuple[Recalled, ...]:
        """What still stands on the server."""
        return tuple(d for d in self.documents if d.result not in ("withdrawn", "withdrawn before"))


Tell = Callable[[int, int], None]


def parse_wanted(*, model: str = "", prompt: str = "", source: str = "", between: str = "") -> Wanted:
    """Return what is wanted. Raises SettingsError unless it is one thing, and can be read."""
    if sum(map(bool, (model, prompt, source, between))) != 1:
        raise SettingsError("Name one of --model, --prompt, --source and --between.")
    if prompt:
        name, _, version = prompt.partition("@")
        return Wanted(prompt_id=name, prompt_version=version)
    if source:
        found = _SOURCE.fullmatch(source)
        if found is None:
            raise SettingsError("A source is Type/id or Type/id/_history/version.")
        return Wanted(source=found[1], source_version=found[2] or "")
    if between:
        return _parse_between(between)
    return Wanted(model=model)


def _parse_between(between: str) -> Wanted:
    days = between.replace("..", ",").replace("/", ",").split(",")
    if len(days) != 2 or not all(day == "" or _DAY.fullmatch(day) for day in days) or not any(days):
        raise SettingsError(
            "Give two days, for example --between 2026-11-01..2026-11-08; the second is left out."
        )
    try:
        after, before = (datetime.fromisoformat(day).replace(tzinfo=UTC) if day else None for day in days)
    except ValueError:
        raise SettingsError("A day of --between does not exist.") from None
    return Wanted(after=after, before=before)


async def find_recalled(desk: Desk, wanted: Wanted, tell: Tell = lambda done, total: None) -> Recall:
    """List every document that is wanted, read anew from the server. Raises StoreError."""
    stored = [
        row.document
        for row in await asyncio.to_thread(desk.documents.find_documents, wanted)
        if row.server == desk.ehr.base_url
    ]
    try:
        on_server, asked = await _ask_server(desk, wanted), True
    except ConnectorError:
        on_server, asked = [], False
    all_of_them = list(dict.fromkeys([*stored, *on_server]))
    found = await _in_batches(
        [_look(desk, reference, reference in stored, reference in on_server) for reference in all_of_them],
        tell,
    )
    return Recall(tuple(one for one in found if one is not None), asked)


async def withdraw_recalled(
    desk: Desk, recall: Recall, *, reason: str, by: str, actor: str, tell: Tell = lambda done, total: None
) -> Recall:
    """Withdraw every document of a recall, a few at a time; each has its own Provenance and audit entry.

    What cannot be withdrawn is kept in the result with why. Raises StoreError alone.
    """
    if not reason.strip():
        raise FilingError("A withdrawal needs a reason.", "--reason TEXT")
    done = await _in_batches(
        [_withdraw(desk, document, reason, by, actor) for document in recall.documents], tell
    )
    return replace(recall, documents=tuple(done))


async def carry_out(
    desk: Desk,
    proposal: Proposal,
    *,
    by: str,
    actor: str,
    tell: Tell = lambda done, total: None,
) -> Proposal:
    """Withdraw all that an approved recall is about, and return it as it ended. Raises StoreError alone.

    Withdrawing twice does no harm: of two that carry out the same, the second finds it done.
    """
    found = await find_recalled(desk, proposal.wanted)
    ended = await withdraw_recalled(desk, found, reason=proposal.reason, by=by, actor=actor, tell=tell)
    left = tuple(f"{one.document}: {one.result or one.standing}" for one in ended.not_withdrawn)
    total = len(ended.documents)
    return replace(proposal, state=ProposalState.DONE, total=total, done=total - len(left), left=left)


async def _in_batches(works: Sequence[Any], tell: Tell) -> list[Any]:
    results: list[Any] = []
    try:
        for start in range(0, len(works), BATCH):
            results += await asyncio.gather(*works[start : start + BATCH])
            tell(len(results), len(works))
    finally:
        for work in works[len(results) :]:
            work.close()
    return results


async def _look(desk: Desk, reference: str, stored: bool, on_server: bool) -> Recalled | None:
    known_to = tuple(who for who, knows in (("store", stored), ("server", on_server)) if knows)
    try:
        document = await desk.ehr.read(reference)
    except ConnectorError as error:
        return Recalled(reference, "", error.code, "", "", known_to)
    if not any(identifier_of(document, system) for system in (DOCUMENT_SYSTEM, ATTESTED_SYSTEM)):
        return None
    authenticator = document.get("authenticator")
    subject = document.get("subject")
    return Recalled(
        reference,
        str(subject.get("reference", "")) if isinstance(subject, dict) else "",
        standing_of(document),
        str(authenticator.get("reference", "")) if isinstance(authenticator, dict) else "",
        str(document.get("date", "")),
        known_to,
    )


async def _withdraw(desk: Desk, document: Recalled, reason: str, by: str, actor: str) -> Recalled:
    try:
        # What it was made from is of the same run, and stands in the list itself.
        done = await withdraw(desk, document.document, reason=reason, by=by, actor=actor, with_origins=False)
    except (ConnectorError, FilingError) as error:
        return replace(document, result=f"not withdrawn: {error.code}")
    result = "withdrawn" if done.done_now else "withdrawn before"
    return replace(document, standing="withdrawn", result=result)


async def _ask_server(desk: Desk, wanted: Wanted) -> list[str]:
    provenances = await _provenances(desk, wanted)
    found = []
    for provenance in provenances:
        for target in provenance.get("target") or []:
            reference = reference_of_write(str(target.get("reference", "")), "", None)
            if reference is not None and reference.resource_type == "DocumentReference":
                found.append(str(reference._replace(version="")))
    return list(dict.fromkeys(found))


async def _provenances(desk: Desk, wanted: Wanted) -> list[dict[str, Any]]:
    if wanted.model:
        devices = await _find(desk, "Device", DEVICE_SYSTEM, await asyncio.to_thread(_digests, desk, wanted))
        return await _about(desk, "agent", devices)
    if wanted.prompt_id:
        templates = await asyncio.to_thread(
            desk.documents.find_templates, wanted.prompt_id, wanted.prompt_version
        )
        prompts = await _find(desk, "DocumentReference", PROMPT_SYSTEM, templates)
        return await _about(desk, "entity", prompts)
    if wanted.source:
        version = f"/_history/{wanted.source_version}" if wanted.source_version else ""
        return await _about(desk, "entity", [f"{wanted.source}{version}"])
    days = [("ge", wanted.after), ("lt", wanted.before)]
    query = [("recorded", f"{prefix}{day:%Y-%m-%d}") for prefix, day in days if day]
    return await desk.ehr.search("Provenance", query)


def _digests(desk: Desk, wanted: Wanted) -> list[str]:
    """Return the model's digest, also where it was named: our runs know which digests the name had."""
    runs = (desk.runs.get(row.run_id) for row in desk.documents.find_documents(wanted))
    return list(dict.fromkeys([wanted.model, *(run.inputs.model_digest for run in runs if run)]))


async def _find(desk: Desk, kind: str, system: str, values: Iterable[str]) -> list[str]:
    found = []
    for value in values:
        for one in await desk.ehr.search(kind, (("identifier", f"{system}|{_escape(value)}"),)):
            if identifier_of(one, system) == value:
                found.append(f"{kind}/{one['id']}")
    return found


async def _about(desk: Desk, parameter: str, references: Iterable[str]) -> list[dict[str, Any]]:
    return [
        provenance
        for reference in references
        for provenance in await desk.ehr.search("Provenance", ((parameter, reference),))
        if _names(provenance, parameter, reference)
    ]


def _names(provenance: dict[str, Any], parameter: str, reference: str) -> bool:
    """Some servers ignore a parameter and send everything: look for the reference in what came."""
    element = {"agent": "who", "entity": "what"}[parameter]
    named = (str((one.get(element) or {}).get("reference", "")) for one in provenance.get(parameter) or [])
    return any(f"/{name}/".find(f"/{reference}/") >= 0 for name in named)


def _escape(value: str) -> str:
    """Escape what separates values in a search (R4 search 3.1.1.5.8)."""
    for special in "\\,|$":
        value = value.replace(special, f"\\{special}")
    return value
