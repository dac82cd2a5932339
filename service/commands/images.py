"""`epicrisis images find`: a patient's pictures by words, among those that were looked at for a summary.

Exit code 8: there is no image encoder, or it failed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import typer

from service.album import Hit
from service.errors import SettingsError
from service.imaging.labels import NO_FINDING
from service.ports import Action, AuditEntry
from service.ports.pictures import Whose
from service.settings import Settings
from service.terminal import Steps, print_json, print_table, stderr, stdout
from service.wiring import open_store, open_vault, utc_now
from service.wiring.album import open_album
from service.wiring.ehr import reader_of

ACTOR = "system:cli"
_REFERENCE = re.compile(r"(?:Patient/)?([A-Za-z0-9.-]{1,64})")
_MOST = 100


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    group = typer.Typer(help="Linked pictures: find a patient's by words.", no_args_is_help=True)
    group.callback()(_images)
    group.command()(find)
    app.add_typer(group, name="images")


def _images() -> None:
    pass  # without a callback Typer makes a group of one command that command


def find(
    context: typer.Context,
    patient: Annotated[str, typer.Argument(help="The patient, as Patient/<id> or <id>.")],
    words: Annotated[str, typer.Argument(help="What to look for, for example: left lower lobe opacity.")],
    most: Annotated[int, typer.Option("--most", min=1, max=_MOST, help="Pictures to show.")] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
    ] = False,
) -> None:
    """Find a patient's pictures by words, among those that were looked at: the most alike first."""
    named = _REFERENCE.fullmatch(patient)
    if named is None or not words.strip():
        raise SettingsError("A patient's id and some words are needed.", 'epicrisis images find ID "words"')
    with Steps() as steps, steps.step("Looking for pictures"):
        hits = _find(context.obj, f"Patient/{named[1]}", words.strip(), most)
    if as_json:
        print_json({"note": NO_FINDING, "pictures": [shape_of(hit) for hit in hits]})
        return
    _show(hits)


def _find(settings: Settings, patient: str, words: str, most: int) -> Sequence[Hit]:
    whose = Whose(*reader_of(settings), patient)
    store, audit = open_store(settings)
    vault = open_vault(settings)
    try:
        album = open_album(settings, vault)
        try:
            audit.append(
                AuditEntry(Action.VIEW, ACTOR, patient, utc_now(), target="pictures", server=whose.server)
            )
            return album.find(whose, words, most)
        finally:
            album.close()
    finally:
        audit.close()
        store.close()
        if vault is not None:
            vault.close()


def shape_of(hit: Hit) -> dict[str, object]:
    """Return a hit as it is handed out: where it is, what it is of, and how well it fits."""
    entry = hit.entry
    return {
        "source": entry.source,
        "study": entry.study if entry.instance else "",
        "series": entry.series,
        "instance": entry.instance,
        "frame": entry.frame,
        "modality": entry.modality,
        "taken": entry.taken,
        "what": entry.what,
        "likeness": round(hit.likeness, 4),
        "score": round(hit.score, 4),
        "suggested_labels": [
            {"words": label.words, "score": round(label.score, 4)} for label in entry.labels
        ],
    }


def _show(hits: Sequence[Hit]) -> None:
    if not hits:
        stdout.print("No picture of this patient was looked at yet by this image encoder.")
        return
    print_table(
        f"{len(hits)} pictures, the most alike first",
        ("what", "taken", "source", "instance", "#frame", "#likeness"),
        [
            (
                f"{hit.entry.modality} {hit.entry.what}".strip(),
                hit.entry.taken,
                hit.entry.source,
                hit.entry.instance,
                str(hit.entry.frame),
                f"{hit.likeness:.3f}",
            )
            for hit in hits
        ],
    )
    stderr.print("Something is always most alike: look at the pictures before you say what they show.")
