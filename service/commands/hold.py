"""`epicrisis hold`: legal holds. Nothing stored of a patient under one is deleted, and nobody shreds them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from service.errors import EpicrisisError, SettingsError
from service.ports import Action, AuditEntry
from service.ports.holds import LONGEST_REASON, LegalHold
from service.settings import Settings
from service.store.holds import SqlHolds
from service.terminal import print_json, print_table, stdout
from service.wiring import open_store, utc_now
from service.wiring.installation import database_of

ACTOR = "system:cli"
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")]
Patient = Annotated[str, typer.Argument(help="The patient, as Patient/<id> or <id>.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept, encrypted.")]
_REFERENCE = re.compile(r"Patient/[A-Za-z0-9.-]{1,64}")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(
        help="Legal holds: patients of whom nothing stored may be deleted or shredded.", no_args_is_help=True
    )
    group.command()(add)
    group.command()(lift)
    group.command("list")(show)
    app.add_typer(group, name="hold")


def add(context: typer.Context, patient: Patient, reason: Reason = "", as_json: AsJson = False) -> None:
    """Hold a patient: `epicrisis retain` passes them over, and `epicrisis keys shred` refuses."""
    hold = LegalHold(0, _known(patient), _given(reason), ACTOR, utc_now())
    with _recorded(context.obj, "hold:add", hold.patient) as holds:
        kept = holds.add(hold)
    if as_json:
        print_json(_shape(kept))
    else:
        stdout.print(f"Held, as number {kept.number}.")


def lift(
    context: typer.Context,
    patient: Patient,
    reason: Reason = "",
    number: Annotated[
        int, typer.Option(min=0, help="Which hold, where there are several: see `epicrisis hold list`.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """End a patient's hold. What is older than the site keeps it goes with the next `epicrisis retain`."""
    patient, reason = _known(patient), _given(reason)
    with _recorded(context.obj, "hold:lift", patient) as holds:
        lifted = holds.lift(patient, ACTOR, reason, number)
        if not lifted:
            raise SettingsError("There is no such hold.", "`epicrisis hold list` shows those that last.")
    if as_json:
        print_json({"lifted": [_shape(one) for one in lifted]})
    else:
        stdout.print("Lifted.")


def show(
    context: typer.Context,
    patient: Annotated[str, typer.Argument(help="One patient; without, all.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the holds that last."""
    patient = _known(patient) if patient else ""
    with _recorded(context.obj, "hold:list", patient, Action.VIEW) as store:
        holds = store.holds(patient)
    if as_json:
        print_json({"holds": [_shape(one) for one in holds]})
        return
    rows: list[tuple[str, ...]] = [
        (str(one.number), one.patient, f"{one.since:%d-%b-%Y %H:%M} UTC", one.by, one.reason) for one in holds
    ]
    title = "Legal holds" if rows else "Nobody is under a legal hold"
    print_table(title, ("#number", "patient", "since", "by", "why"), rows)


@contextmanager
def _recorded(
    settings: Settings, what: str, patient: str, action: Action = Action.CONFIGURE
) -> Iterator[SqlHolds]:
    """Open the holds for an act that is on record before it happens, and again where it fails."""
    store, audit = open_store(settings)
    holds = SqlHolds(*database_of(settings), utc_now)
    try:
        audit.append(AuditEntry(action, ACTOR, patient, utc_now(), target=what))
        try:
            yield holds
        except EpicrisisError as error:
            audit.append(AuditEntry(action, ACTOR, patient, utc_now(), error.code, target=what))
            raise
    finally:
        holds.close()
        store.close()
        audit.close()


def _shape(hold: LegalHold) -> dict[str, Any]:
    return {
        "number": hold.number,
        "patient": hold.patient,
        "since": hold.since,
        "by": hold.by,
        "reason": hold.reason,
    }


def _given(reason: str) -> str:
    if not reason.strip() or len(reason) > LONGEST_REASON:
        raise SettingsError(
            f"A hold begins and ends for a reason of at most {LONGEST_REASON} characters.", "--reason TEXT"
        )
    return reason.strip()


def _known(patient: str) -> str:
    """Return `Patient/1` of `Patient/1` or `1`. Raises SettingsError, without what was given."""
    reference = patient if patient.startswith("Patient/") else f"Patient/{patient}"
    if not _REFERENCE.fullmatch(reference):
        raise SettingsError("This is no patient's id.", "Name them as Patient/<id>.")
    return reference
