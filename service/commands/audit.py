"""`epicrisis audit send`: what the audit log holds and the collector of AuditEvents does not, is sent.

`epicrisis audit verify`: whether the log is what was recorded. Exit code 19: it is not.

`epicrisis audit export`: the log as lines of JSON, for what watches over many systems.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from service.audit.chain import Kind, Report
from service.audit.lines import line_of
from service.audit.send import Sent
from service.errors import SettingsError, StoreError
from service.ports import Action, AuditEntry
from service.ports.trail import Checked, Sought
from service.settings import Settings
from service.store.ledger import SqlLedger
from service.terminal import Steps, print_json, print_table, stderr, stdout, tell_error
from service.wiring import audit_sender, fhir_client, open_store, utc_now

_log = logging.getLogger("epicrisis.audit")

ACTOR = "system:cli"
BROKEN = 19
EXPORTED = "trail"
"""What the audit entry of an export names."""
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
    group.command()(export)
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
            report = audit.verify(step.at)
        _keep(SqlLedger(audit.database), report)
        return report
    finally:
        store.close()
        audit.close()


def _keep(ledger: SqlLedger, report: Report) -> None:
    """Keep what the check came to, for the auditor's page; a database that takes nothing was checked too."""
    try:
        ledger.keep_check(Checked(utc_now(), report.entries, report.found, report.anchored_at))
    except StoreError as error:
        _log.warning("what this check came to is not kept: %s", error.message)


def export(
    context: typer.Context,
    since: Annotated[
        str, typer.Option(help="From this day or instant on (ISO 8601; UTC unless it says).")
    ] = "",
    until: Annotated[
        str, typer.Option(help="Until before this instant, or with the whole of this day.")
    ] = "",
    after: Annotated[int, typer.Option(min=0, help="Only entries with a higher number: goes on.")] = 0,
    out: Annotated[
        str, typer.Option(help="A new file, which its owner alone may read; - is standard output.")
    ] = "-",
    references: Annotated[
        bool,
        typer.Option("--references", help="Also name patients, documents and people by their references."),
    ] = False,
) -> None:
    """Write the audit log as NDJSON, one entry a line, oldest first, with its number and hash in the chain.

    Numbers have no gaps: whoever collects the lines sees whether one is missing. Patients stand in it as
    keyed hashes. The last line is the entry of this export, where it is within the span that was asked for.
    """
    sought = Sought(since=_instant(since, "--since"), until=_instant(until, "--until", whole_day=True))
    count, last = _export(context.obj, sought, after, out, references)
    stderr.print(f"{count} entries; go on with --after {last}.")


def _export(settings: Settings, sought: Sought, after: int, out: str, references: bool) -> tuple[int, int]:
    """Write what is wanted; return how many entries, and the number that the next export goes on after."""
    store, audit = open_store(settings)
    try:
        ledger = SqlLedger(audit.database)
        with _opened(out) as file:
            counts = {"after": after, "references": int(references)}
            audit.append(AuditEntry(Action.EXPORT, ACTOR, "", utc_now(), target=EXPORTED, counts=counts))
            head, count = ledger.head()[0], 0
            for recorded in ledger.oldest(sought, after, head):
                file.write(line_of(recorded, references=references))
                count += 1
            return count, max(after, head)
    finally:
        store.close()
        audit.close()


@contextmanager
def _opened(out: str) -> Iterator[BinaryIO]:
    """Open where an export goes; a file is new, and is on the disk when this ends. Raises SettingsError."""
    if out == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(Path(out), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "unknown reason"
        raise SettingsError(f"The export's file cannot be made ({reason}).", "Name a new file.") from None
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(descriptor)


def _instant(text: str, option: str, *, whole_day: bool = False) -> datetime | None:
    """Return an aware instant; of a day its beginning, or its end. Raises SettingsError."""
    if not text:
        return None
    try:
        if len(text) == len("2026-11-28"):
            day = datetime.combine(date.fromisoformat(text), time(), UTC)
            return day + timedelta(days=1) if whole_day else day
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise SettingsError(f"{option} is no day and no instant.", "For example 2026-11-28.") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


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
