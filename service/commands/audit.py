"""`epicrisis audit send`: what the audit log holds and the collector of AuditEvents does not, is sent.

`epicrisis audit verify`: whether the log is what was recorded. Exit code 19: it is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from service.audit.chain import Kind, Report
from service.audit.send import Sent
from service.errors import SettingsError
from service.ports import Action, AuditEntry
from service.settings import Settings
from service.terminal import Steps, print_json, print_table, stdout, tell_error
from service.wiring import audit_sender, fhir_client, open_store, utc_now

ACTOR = "system:cli"
BROKEN = 19
SHOWN = 20
_SENTENCES = {
    Kind.EDITED: "This entry is not what was recorded.",
    Kind.DELETED: "Entries from this one on were taken out.",
    Kind.INSERTED: "The database has an entry in this row that nobody recorded.",
    Kind.REORDERED: "This entry was recorded at another place.",
    Kind.FORKED: "Another trail was written from this entry on: it is not the one that was anchored.",
    Kind.TRUNCATED: "Entries from this one on were cut off after they were anchored.",
    Kind.GENESIS: "What was recorded before the chain began was changed.",
    Kind.ANCHOR_EDITED: "This line of the anchors was not written here.",
    Kind.ANCHORS_MISSING: "There are no anchors: nobody can tell whether the end was cut off.",
}
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")]
FhirUrl = Annotated[str | None, typer.Option(help="FHIR base URL [EPICRISIS_FHIR_URL].")]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    group = typer.Typer(
        help="The audit log: whether it is whole, and what of it is sent as FHIR AuditEvents.",
        no_args_is_help=True,
    )
    group.callback()(_audit)
    group.command()(send)
    group.command()(verify)
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


def record_change(settings: Settings, target: str, counts: Mapping[str, int] | None = None) -> None:
    """Put on record that somebody is about to change how this installation works. Raises StoreError."""
    store, audit = open_store(settings)
    try:
        audit.append(AuditEntry(Action.CONFIGURE, ACTOR, "", utc_now(), target=target, counts=counts or {}))
    finally:
        store.close()
        audit.close()


def verify(context: typer.Context, as_json: AsJson = False) -> None:
    """Check that the audit log is what was recorded: intact (exit 0) or broken (19).

    Every edit, deletion, insertion and change of order is found; of what was cut off at the end, all up to
    the last anchor (EPICRISIS_AUDIT_ANCHORS).
    """
    report = _verify(context.obj)
    print_json(_shape(report)) if as_json else _show(report)
    if not report.is_intact:
        raise typer.Exit(BROKEN)


def _verify(settings: Settings) -> Report:
    store, audit = open_store(settings)
    try:
        with Steps() as steps, steps.step("Audit entries") as step:
            return audit.verify(step.at)
    finally:
        store.close()
        audit.close()


def _shape(report: Report) -> dict[str, Any]:
    return {
        "intact": report.is_intact,
        "entries": report.entries,
        "head": report.head,
        "anchored_at": report.anchored_at,
        "faults": [{"kind": fault.kind, "at": fault.at} for fault in report.faults],
        "found": report.found,
        "shredded": report.shredded,
        "torn_anchors": report.torn,
    }


def _show(report: Report) -> None:
    anchored = f"{report.anchored_at:%d-%b-%Y %H:%M:%S} UTC" if report.anchored_at else "never"
    stdout.print(
        f"{report.entries} entries, {'intact' if report.is_intact else 'BROKEN'}; last anchored: {anchored}."
    )
    if report.shredded:
        stdout.print(f"{report.shredded} of them are about patients whose key was destroyed.")
    if report.torn:
        stdout.print(f"{report.torn} lines of the anchors were not written to their end.")
    if report.faults:
        rows: list[tuple[str, ...]] = [
            (fault.kind.value.replace("_", " "), str(fault.at), _SENTENCES[fault.kind])
            for fault in report.faults[:SHOWN]
        ]
        more = f" (the first {SHOWN})" if report.found > SHOWN else ""
        print_table(f"{report.found} faults{more}", ("what", "#at", "meaning"), rows)
