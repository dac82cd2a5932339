"""`epicrisis recall`: find, and withdraw, every document that a model, prompt or bad source has touched.

Exit code 0: done. 11: something that was to be withdrawn still stands, and is listed.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from service.errors import FilingError
from service.ports import Wanted
from service.recall import Recall, find_recalled, parse_wanted, withdraw_recalled
from service.settings import Settings
from service.terminal import Steps, print_json, print_table, stderr
from service.wiring import open_desk

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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
    ] = False,
) -> None:
    """List every document that is concerned, from the store and the server; with --withdraw, take all back.

    An interrupted recall is begun again with the same command: what is withdrawn is passed over.
    """
    wanted = parse_wanted(model=model, prompt=prompt, source=source, between=between)
    if withdraw and not reason.strip():
        raise FilingError("A withdrawal needs a reason.", "--reason TEXT")
    found = asyncio.run(_recall(context.obj, wanted, withdraw, reason, by, fhir_url))
    print_json(_shape(found, withdraw)) if as_json else _show(found, withdraw)
    if withdraw and found.not_withdrawn:
        raise typer.Exit(FilingError.exit_code)


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
