"""`epicrisis keys`: the keys under which patient text is stored, and the destruction of one patient's.

Each of these commands may be interrupted, and is then simply run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from service.errors import EpicrisisError, SettingsError
from service.ports import Action, AuditEntry
from service.settings import Settings
from service.store.keys import KeyRoom
from service.terminal import Steps, print_json, print_table, stdout
from service.wiring import open_keys, open_store, utc_now

ACTOR = "system:cli"
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")]
_ROTATE = (
    "Older copies, and a PostgreSQL server's log, still hold the destroyed key, sealed by the master key:"
    " run `epicrisis keys rotate`, and destroy every copy of the master key before."
)
Patient = Annotated[str, typer.Argument(help="The patient, as Patient/<id> or <id>.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(
        help="The keys of what is stored: state, a new master key, and shredding of one patient.",
        no_args_is_help=True,
    )
    for command in (state, rotate, reseal, shred, readmit):
        group.command()(command)
    app.add_typer(group, name="keys")


def state(context: typer.Context, as_json: AsJson = False) -> None:
    """Show how many data keys there are, which master key seals them, and what is left to do."""
    with open_keys(context.obj) as room:
        keys = room.state()
    if as_json:
        print_json(keys)
        return
    print_table(
        "",
        ("master key", "#patients", "#under another master key", "#values to reseal", "#shredded"),
        [(keys.master, str(keys.patients), str(keys.behind), str(keys.old_values), str(keys.shredded))],
    )
    if keys.exposed:
        stdout.print(f"Of {keys.exposed} destroyed keys copies would still open. {_ROTATE}")


def rotate(
    context: typer.Context,
    prepare: Annotated[
        bool,
        typer.Option(help="Only put the new key into the key file, to be copied to every other host first."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn to a new master key: every data key is sealed by it, and the one before is forgotten.

    Workers go on meanwhile. With EPICRISIS_MASTER_KEY, start them with the new key and the one before
    (EPICRISIS_MASTER_KEY_PREVIOUS), run this, and start them without it. What is not resealed yet
    (`epicrisis keys reseal`) keeps the keys that it needs in the key file.
    """
    with _recorded(context.obj, "keys:prepare" if prepare else "keys:rotate") as room:
        if prepare:
            said = {"next": room.prepare()}
        else:
            with Steps() as steps, steps.step("Sealing data keys") as step:
                said = {"resealed": str(room.rotate(lambda done: step.detail(str(done))))}
    print_json(said) if as_json else stdout.print(
        "The key file holds the key to come." if prepare else f"{said['resealed']} data keys sealed anew."
    )


def reseal(context: typer.Context, as_json: AsJson = False) -> None:
    """Seal what an earlier version stored under the patients' data keys, and write the database's files anew.

    Workers go on meanwhile; the last step needs as much room on the disk as the database itself takes.
    """
    with _recorded(context.obj, "keys:reseal") as room, Steps() as steps, steps.step("Sealing rows") as step:
        done = room.reseal(lambda done: step.detail(str(done)))
    print_json({"resealed": done}) if as_json else stdout.print(f"{done} rows sealed anew.")


def shred(
    context: typer.Context,
    patient: Patient,
    reason: Annotated[str, typer.Option("--reason", help="Why, without naming anybody; it is kept.")] = "",
    leave_drafts: Annotated[
        bool, typer.Option("--leave-drafts", help="Even where drafts of ours stand in the record system.")
    ] = False,
    despite_hold: Annotated[
        bool, typer.Option("--despite-hold", help="Even where the patient is under a legal hold.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Destroy a patient's data key: nothing about them can be read here any more, nor in later backups.

    This cannot be undone. Backups from before and the log of a PostgreSQL server still hold the key, sealed:
    rotate the master key afterwards, and destroy the copies of the one before. Nothing new is stored about
    them before `keys readmit`.
    """
    if not reason.strip():
        raise SettingsError("A patient is shredded for a reason.", "--reason TEXT")
    with _recorded(context.obj, "keys:shred:despite-hold" if despite_hold else "keys:shred") as room:
        done = room.shred(patient, reason, leave_drafts=leave_drafts, despite_hold=despite_hold)
    if as_json:
        print_json(asdict(done))
    elif done.again:
        stdout.print("This patient was shredded before; what was left of it was removed.")
    else:
        counts = f"{done.runs} summaries, {done.documents} documents, {done.snapshots} snapshots"
        stdout.print(f"Shredded: {counts}. {_ROTATE}")


def readmit(context: typer.Context, patient: Patient, as_json: AsJson = False) -> None:
    """Let something be stored again about a patient who was shredded. What was destroyed stays so."""
    with _recorded(context.obj, "keys:readmit") as room:
        was_shredded = room.readmit(patient)
    if as_json:
        print_json({"readmitted": was_shredded})
    else:
        stdout.print("Readmitted." if was_shredded else "This patient was not shredded: nothing was changed.")


@contextmanager
def _recorded(settings: Settings, what: str) -> Iterator[KeyRoom]:
    """Open the keys for an act that is on record before it happens, and again where it fails."""
    store, audit = open_store(settings)
    try:
        with open_keys(settings) as room:
            audit.append(AuditEntry(Action.CONFIGURE, ACTOR, "", utc_now(), target=what))
            try:
                yield room
            except EpicrisisError as error:
                failed = AuditEntry(Action.CONFIGURE, ACTOR, "", utc_now(), outcome=error.code, target=what)
                audit.append(failed)
                raise
    finally:
        store.close()
        audit.close()
