"""`epicrisis recall`: find, and withdraw, every document that a model, prompt or bad source has touched.

Exit code 0: done. 11: something that was to be withdrawn still stands, and is listed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from service.errors import FilingError, SettingsError
from service.ports import Action, AuditEntry, Wanted
from service.ports.attesting import Proposal, ProposalId, ProposalState
from service.recall import Recall, carry_out, find_recalled, parse_wanted, withdraw_recalled
from service.settings import Settings
from service.store.attesting import SqlAttesting
from service.terminal import Steps, print_json, print_table, stderr, stdout
from service.wiring import open_desk, open_store, utc_now
from service.wiring.installation import database_of
from service.writeback.sources import LITERAL

ACTOR = "system:cli"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(recall)


def recall(
    context: typer.Context,
    model: Annotated[str, typer.Option("--model", help="Digest of the model, or its name.")] = "",
    prompt: Annotated[str, typer.Option("--prompt", help="ID@VERSION, or ID for all versions.")] = "",
    source: Annotated[str, typer.Option("--source", help="Type/id, or Type/id/_history/version.")] = "",
    between: Annotated[str, typer.Option("--between", help="FIRST..AFTER: days, the second left out.")] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Withdraw what is found.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; written into every Provenance.")] = "",
    by: Annotated[str, typer.Option("--by", help="Who, as Practitioner/<id>; else Epicrisis.")] = "Epicrisis",
    fhir_url: Annotated[str | None, typer.Option(help="FHIR base URL [EPICRISIS_FHIR_URL].")] = None,
    propose: Annotated[
        bool, typer.Option("--propose", help="Keep it for another person to approve.")
    ] = False,
    approve: Annotated[str, typer.Option("--approve", help="Carry out what another person proposed.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
    ] = False,
) -> None:
    """List every document that is concerned, from the store and the server; with --withdraw, take all back.

    An interrupted recall is begun again with the same command: what is withdrawn is passed over.
    With --propose and --approve two people do it, each named by --by; the pages have the same proposals.
    """
    if approve:
        _approve(context.obj, approve, by, fhir_url, as_json=as_json)
        return
    wanted = parse_wanted(model=model, prompt=prompt, source=source, between=between)
    if withdraw and not reason.strip():
        raise FilingError("A withdrawal needs a reason.", "--reason TEXT")
    if propose:
        _propose(context.obj, wanted, reason, by, as_json=as_json)
        return
    found = asyncio.run(_recall(context.obj, wanted, withdraw, reason, by, fhir_url))
    print_json(_shape(found, withdraw)) if as_json else _show(found, withdraw)
    if withdraw and found.not_withdrawn:
        raise typer.Exit(FilingError.exit_code)


def _person(by: str) -> str:
    """Return who acts, as proposals name them. Raises SettingsError where --by names nobody."""
    if LITERAL.fullmatch(by) is None:
        raise SettingsError("Say who does this.", "--by Practitioner/<id>")
    return f"{ACTOR}:{by}"


def _propose(settings: Settings, wanted: Wanted, reason: str, by: str, *, as_json: bool) -> None:
    """Keep a recall for another person to approve, and print its id."""
    actor = _person(by)
    if not reason.strip():
        raise FilingError("A withdrawal needs a reason.", "--reason TEXT")
    proposal = Proposal(ProposalId(secrets.token_hex(16)), wanted, actor, utc_now(), reason.strip())
    with _kept(settings) as kept:
        _note(settings, f"recall:{proposal.id}:propose", by)
        kept.propose(proposal)
    print_json({"proposal": proposal.id}) if as_json else stdout.print(f"proposed: {proposal.id}")


def _approve(settings: Settings, proposal_id: str, by: str, fhir_url: str | None, *, as_json: bool) -> None:
    """Carry out what another person proposed; one that was approved and cut off goes on."""
    actor = _person(by)
    with _kept(settings) as kept:
        proposal = kept.proposal(ProposalId(proposal_id))
        if proposal is None:
            raise SettingsError("There is no such recall.", "`epicrisis recall … --propose` prints the id.")
        if proposal.by == actor:
            raise FilingError("You proposed this recall: somebody else must approve it.")
        _note(settings, f"recall:{proposal.id}:approve", by)
        if proposal.state is ProposalState.WAITING:
            proposal = kept.decide(proposal.id, ProposalState.APPROVED, actor, utc_now())
        if proposal is None or proposal.state is not ProposalState.APPROVED:
            raise FilingError("This recall was decided already.")
        ended = asyncio.run(_carry_out(settings, proposal, by, fhir_url))
        kept.advance(ended)
    if as_json:
        told = {"proposal": ended.id, "documents": ended.total, "withdrawn": ended.done}
        print_json({**told, "not_withdrawn": list(ended.left)})
    else:
        stdout.print(f"{ended.done} of {ended.total} documents are withdrawn")
        for line in ended.left:
            stderr.print(line)
    if ended.left:
        raise typer.Exit(FilingError.exit_code)


async def _carry_out(settings: Settings, proposal: Proposal, by: str, fhir_url: str | None) -> Proposal:
    async with open_desk(settings, fhir_url) as desk:
        with Steps() as steps, steps.step("Withdrawing") as step:
            return await carry_out(desk, proposal, by=by, actor=ACTOR, tell=step.at)


@contextmanager
def _kept(settings: Settings) -> Iterator[SqlAttesting]:
    kept = SqlAttesting(*database_of(settings))
    try:
        yield kept
    finally:
        kept.close()


def _note(settings: Settings, target: str, by: str) -> None:
    store, audit = open_store(settings)
    try:
        audit.append(AuditEntry(Action.WITHDRAW, ACTOR, "", utc_now(), target=target, by=by))
    finally:
        store.close()
        audit.close()


async def _recall(
    settings: Settings, wanted: Wanted, withdraw: bool, reason: str, by: str, fhir_url: str | None
) -> Recall:
    async with open_desk(settings, fhir_url) as desk:
        with Steps() as steps:
            with steps.step("Looking for documents") as step:
                found = await find_recalled(desk, wanted, step.at)
            if not withdraw:
                return found
            with steps.step("Withdrawing", len(found.documents)) as step:
                return await withdraw_recalled(desk, found, reason=reason, by=by, actor=ACTOR, tell=step.at)


def _shape(found: Recall, withdraw: bool) -> dict[str, object]:
    return {
        "documents": [asdict(document) for document in found.documents],
        "server_asked": found.server_asked,
        "not_withdrawn": [document.document for document in found.not_withdrawn] if withdraw else None,
    }


def _show(found: Recall, withdraw: bool) -> None:
    print_table(
        f"{len(found.documents)} documents",
        ("document", "stands", "attested by", "date", "known to", "result"),
        [
            (d.document, d.standing, d.attested_by, d.date, " and ".join(d.known_to), d.result)
            for d in found.documents
        ],
    )
    if not found.server_asked:
        stderr.print("The server's Provenance could not be searched: this is what the store knows.")
    if withdraw and found.not_withdrawn:
        stderr.print(f"{len(found.not_withdrawn)} documents could not be withdrawn: see the last column.")
