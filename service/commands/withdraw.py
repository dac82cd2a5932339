"""`epicrisis withdraw` and `epicrisis expire`: a document is taken back, or a draft's time is over."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from service.filing.withdraw import Expired, Withdrawn
from service.filing.withdraw import expire as expire_drafts
from service.filing.withdraw import withdraw as withdraw_document
from service.settings import Settings
from service.terminal import print_json, print_table, stdout
from service.wiring import open_desk, utc_now

ACTOR = "system:cli"
FhirUrl = Annotated[str | None, typer.Option(help="FHIR base URL [EPICRISIS_FHIR_URL].")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(withdraw)
    app.command()(expire)


def withdraw(
    context: typer.Context,
    document: Annotated[str, typer.Argument(help="DocumentReference/<id> of a document that we wrote.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is written into the Provenance.")],
    by: Annotated[str, typer.Option("--by", help="Who, as Practitioner/<id>; else Epicrisis.")] = "Epicrisis",
    fhir_url: FhirUrl = None,
    as_json: AsJson = False,
) -> None:
    """Withdraw a document in both its statuses. Its text, and what others changed in it, stays.

    With an attested text goes the superseded draft that it was made from.
    """
    done = asyncio.run(_withdraw(context.obj, document, reason, by, fhir_url))
    if as_json:
        print_json(done._asdict())
        return
    for one in (done.document, *done.origins):
        stdout.print(f"withdrawn: {one}")
    for one in done.not_withdrawn:
        stdout.print(f"NOT withdrawn: {one}")


def expire(context: typer.Context, fhir_url: FhirUrl = None, as_json: AsJson = False) -> None:
    """Withdraw every draft that nobody attested within 72 hours, or whose encounter has ended."""
    done = asyncio.run(_expire(context.obj, fhir_url))
    if as_json:
        print_json({"drafts": [one._asdict() for one in done]})
    else:
        print_table("Expired drafts", ("document", "result"), [tuple(one) for one in done])


async def _withdraw(
    settings: Settings, document: str, reason: str, by: str, fhir_url: str | None
) -> Withdrawn:
    async with open_desk(settings, fhir_url) as desk:
        return await withdraw_document(desk, document, reason=reason, by=by, actor=ACTOR)


async def _expire(settings: Settings, fhir_url: str | None) -> list[Expired]:
    async with open_desk(settings, fhir_url) as desk:
        return await expire_drafts(desk, utc_now(), actor=ACTOR)
