"""`epicrisis retain`: deletes the text of summaries that are older than the site keeps them.

The audit log stays whole, and so does everything about patients under a legal hold (`epicrisis hold`).
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from service.ports import Action, AuditEntry
from service.ports.holds import Expired
from service.settings import Settings
from service.store.retention import Retention
from service.terminal import print_json, stdout
from service.wiring import open_store, utc_now

ACTOR = "system:cli"
TARGET = "retain"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(retain)


def retain(
    context: typer.Context,
    days: Annotated[
        int | None, typer.Option(min=1, help="Keep this many days [EPICRISIS_RETENTION_DAYS].")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
    ] = False,
) -> None:
    """Delete the text of summaries, and all that quotes them, once it is older than the site keeps it.

    Models, versions, counts and the audit log stay, so that recall and the trail still find every document.
    What the record system holds is untouched. A timer with this command keeps to the rule.
    """
    kept_days = days or context.obj.retention_days
    found = _retain(context.obj, kept_days, dry_run) if kept_days else Expired()
    if as_json:
        print_json({"days": kept_days, "dry_run": dry_run, **asdict(found)})
        return
    if not kept_days:
        stdout.print("Everything is kept: EPICRISIS_RETENTION_DAYS is 0.")
        return
    verb = "would lose their text" if dry_run else "lost their text"
    stdout.print(
        f"Older than {kept_days} days: {found.runs} summaries {verb}, with {found.others} other entries;"
        f" {found.held} are kept for a legal hold."
    )


def _retain(settings: Settings, days: int, dry_run: bool) -> Expired:
    store, audit = open_store(settings)
    try:
        retention, before = Retention(store.database), utc_now() - timedelta(days=days)
        found = retention.count(before)
        if dry_run:
            return found
        counts = {"days": days, "runs": found.runs, "held": found.held}
        audit.append(AuditEntry(Action.CONFIGURE, ACTOR, "", utc_now(), target=TARGET, counts=counts))
        return retention.delete(before)
    finally:
        store.close()
        audit.close()
