"""`epicrisis quality`: how good summaries are, week by week; and attested edits as a training set."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from service.errors import SettingsError, ShreddedError
from service.ports import Action, AuditEntry, RunId, StoredRun
from service.ports.attesting import Act, Attested, Edit
from service.quality.backlog import count_backlog
from service.quality.consent import find_refusals
from service.quality.drift import find_drift
from service.quality.told import trends_shape
from service.quality.training import rows_of
from service.quality.trends import KINDS, Trends, Wanted, read_trends, since_of
from service.settings import Settings
from service.terminal import Steps, print_json, print_table, stderr, stdout
from service.wiring import fhir_client, open_store, utc_now
from service.wiring.installation import zone_of
from service.wiring.quality import Opened, open_quality, thresholds, wishes_of

ACTOR = "system:cli"
TARGET = "training set"
ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
OTHER_SERVER = "other_server"
DESTROYED = "destroyed"
NOT_OF_THE_MODEL = "not_of_the_model"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")]

commands = typer.Typer(help="How good summaries are, week by week.", invoke_without_command=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(commands, name="quality")


@commands.callback()
def quality(
    context: typer.Context,
    model: Annotated[str, typer.Option("--model", help="A model's digest.")] = "",
    prompt: Annotated[str, typer.Option("--prompt", help="ID@VERSION.")] = "",
    ward: Annotated[str, typer.Option("--ward", help="A place, as the record names it.")] = "",
    weeks: Annotated[int, typer.Option("--weeks", min=1, max=104)] = 12,
    as_json: AsJson = False,
) -> None:
    """Show support, coverage, what reviewers and clinicians found, and alarms, by week."""
    if context.invoked_subcommand is not None:
        return
    settings: Settings = context.obj
    limits, wanted = thresholds(settings).drift, Wanted(model, prompt, ward, weeks)
    with open_quality(settings) as opened:
        _count(settings, opened)
        now = utc_now()
        today = now.astimezone(zone_of(settings)).date()
        since = since_of(wanted, today)
        trends, _ = read_trends(
            opened.quality, wanted, today,
            opened.reviews.reviews(since, now), opened.attesting.attestations(since, now),
        )  # fmt: skip
    watched = find_drift(trends, limits)
    if as_json:
        print_json(trends_shape(trends, watched))
        return
    for alarm in watched.alarms:
        stdout.print(f"Alarm: {alarm.sentence}", markup=False)
    if not watched.alarms:
        stdout.print(f"No alarm, of {watched.compared} comparisons.")
    _show(trends)


@commands.command()
def export(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="The file to write; it must not be there yet.")],
    fhir_url: Annotated[str | None, typer.Option(help="FHIR base URL [EPICRISIS_FHIR_URL].")] = None,
    as_json: AsJson = False,
) -> None:
    """Write attested edits as a training set in chat format (JSONL). It holds patient data.

    Patients who said no, or of whom it cannot be read whether they did, are left out and counted.
    """
    if out.exists():
        raise _is_there()
    report = asyncio.run(_export(context.obj, out, fhir_url))
    if as_json:
        print_json(report)
        return
    stdout.print(f"{report['rows']} rows of {report['patients']} patients: {out}", markup=False)
    for why, count in report["left_out"].items():
        stdout.print(f"Left out: {count} × {why.replace('_', ' ')}", markup=False)
    stderr.print("The file holds patient data: keep it where charts may be kept.")


def _count(settings: Settings, opened: Opened) -> None:
    """Count what is not counted yet."""
    waiting = opened.quality.count_uncounted()
    if not waiting:
        return
    store, audit = open_store(settings)
    try:
        with Steps() as steps, steps.step("Counting", waiting):
            count_backlog(store, opened.quality, zone_of(settings), utc_now)
    finally:
        store.close()
        audit.close()


def _show(trends: Trends) -> None:
    if not trends.series:
        stdout.print("Nothing is counted yet: no summary was made in these weeks.")
        return
    for kind in KINDS:
        rows: list[tuple[str, ...]] = [
            (week, one.name, _number(kind.is_share, found.value),
             f"{_number(kind.is_share, found.low)} to {_number(kind.is_share, found.high)}", f"{found.n:,}")
            for one in trends.series
            for week in trends.weeks
            if (found := trends.estimate(kind.key, one, week)) is not None
        ]  # fmt: skip
        if rows:
            title = f"{kind.title}: {kind.what}"
            print_table(title, ("week", "model and prompt", "#figure", "#95 % interval", "#of"), rows)


def _number(is_share: bool, value: float) -> str:
    return f"{value:.1%}" if is_share else f"{value:.1f}"


async def _export(settings: Settings, out: Path, fhir_url: str | None) -> dict[str, Any]:
    left_out: Counter[str] = Counter()
    with open_quality(settings) as opened:
        now = utc_now()
        attested = {one.run_id: one for one in opened.attesting.attestations(ALWAYS, now)}
        edits: dict[RunId, list[Edit]] = defaultdict(list)
        for edit in opened.attesting.edits(ALWAYS, now):
            edits[edit.run_id].append(edit)
        rejected = {run_id: _rejected(opened, attested[run_id]) for run_id in edits if run_id in attested}
        runs = await _allowed(settings, fhir_url, sorted(rejected), left_out)
        rows = [(run, row) for run in runs for row in rows_of(run, edits[run.run_id], rejected[run.run_id])]
    taught = {run.run_id for run, _ in rows}
    left_out[NOT_OF_THE_MODEL] += sum(run.run_id not in taught for run in runs)
    _record(settings, [run for run in runs if run.run_id in taught])
    _write(out, [row for _, row in rows])
    patients = len({run.inputs.patient for run, _ in rows})
    return {"rows": len(rows), "runs": len(taught), "patients": patients, "left_out": dict(+left_out)}


def _rejected(opened: Opened, attested: Attested) -> frozenset[int]:
    decided = opened.attesting.disposals(attested.run_id, attested.actor)
    return frozenset(one.ordinal for one in decided if one.act is Act.REJECTED and one.ordinal is not None)


async def _allowed(
    settings: Settings, fhir_url: str | None, run_ids: Sequence[RunId], left_out: Counter[str]
) -> list[StoredRun]:
    """Return the runs of patients who did not say no, and count the others by reason."""
    if not run_ids:
        return []
    wishes, listed = wishes_of(settings)
    store, audit = open_store(settings)
    try:
        async with fhir_client(settings, fhir_url) as client:
            runs: list[StoredRun] = []
            for run_id in run_ids:
                with suppress(ShreddedError):
                    if (run := store.get(run_id)) is not None:
                        runs.append(run)
            left_out[DESTROYED] += len(run_ids) - len(runs)
            ours = [run for run in runs if run.inputs.server.rstrip("/") == client.base_url.rstrip("/")]
            left_out[OTHER_SERVER] += len(runs) - len(ours)
            patients = sorted({run.inputs.patient for run in ours})
            refused = await find_refusals(client, wishes, listed, patients, utc_now())
    finally:
        store.close()
        audit.close()
    left_out.update(refused.values())  # patients, each by what is told first
    return [run for run in ours if run.inputs.patient not in refused]


def _record(settings: Settings, runs: Sequence[StoredRun]) -> None:
    """Put on record whose text is handed out, before it is."""
    store, audit = open_store(settings)
    try:
        for run in runs:
            audit.append(
                AuditEntry(
                    Action.EXPORT, ACTOR, run.inputs.patient, utc_now(), run_id=run.run_id, target=TARGET,
                    server=run.inputs.server,
                )
            )  # fmt: skip
    finally:
        store.close()
        audit.close()


def _write(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the file for its owner alone. Raises SettingsError where it is there, or cannot be made."""
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise _is_there() from None
    except OSError as error:
        raise SettingsError(f"The file cannot be made ({error.strerror}).", "Give another --out.") from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _is_there() -> SettingsError:
    return SettingsError("The file is there already, and is not overwritten.", "Give another --out.")
