"""`epicrisis audit send`: what the audit log holds and the collector of AuditEvents does not, is sent."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from service.audit.send import Sent
from service.errors import SettingsError
from service.settings import Settings
from service.terminal import print_json, stdout, tell_error
from service.wiring import audit_sender, fhir_client, open_store

FhirUrl = Annotated[str | None, typer.Option(help="FHIR base URL [EPICRISIS_FHIR_URL].")]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    group = typer.Typer(
        help="The audit log, and what of it is sent as FHIR AuditEvents.", no_args_is_help=True
    )
    group.callback()(_audit)
    group.command()(send)
    app.add_typer(group, name="audit")


def _audit() -> None:
    pass  # without a callback Typer makes a group of one command that command


def send(
    context: typer.Context,
    fhir_url: FhirUrl = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
    ] = False,
) -> None:
    """Send every audit entry that is due as a FHIR AuditEvent, once each (EPICRISIS_AUDIT_EVENTS).

    Commands that write send a part of it by themselves; a timer with this command sends the rest.
    """
    done = asyncio.run(_send(context.obj, fhir_url))
    if as_json:
        print_json({"sent": done.sent, "due": done.due, "failed": done.failed})
    else:
        stdout.print(f"{done.sent} sent, {done.due} due, {done.failed} refused.")
    if done.error is not None:
        tell_error(done.error.message, done.error.advice)
        raise typer.Exit(done.error.exit_code)


async def _send(settings: Settings, fhir_url: str | None) -> Sent:
    if settings.audit_events == "off":
        raise SettingsError(
            "No AuditEvents are sent from here.",
            "Set EPICRISIS_AUDIT_EVENTS to ehr, or to the base URL of a collector.",
        )
    if settings.audit_events != "ehr":
        fhir_url = fhir_url or settings.fhir_url or settings.audit_events
    store, audit = open_store(settings)
    try:
        async with (
            fhir_client(settings, fhir_url) as client,
            audit_sender(settings, client, audit) as sender,
        ):
            assert sender is not None
            return await sender.send()
    finally:
        store.close()
        audit.close()
