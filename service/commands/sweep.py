"""`epicrisis sweep`: one pass over everybody who is admitted. Exit code 18: some admissions failed.

What is cut off goes on with the next pass, or in a worker.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from service.admissions.words import sentence_for
from service.errors import SettingsError
from service.scheduler import hand_tick
from service.settings import Settings
from service.sweep import Report, Watch
from service.terminal import Steps, print_json, print_table, stderr
from service.wiring import check_kind, open_rounds, schedules, utc_now, watch_of_schedule
from service.wiring.quality import check_gate

SOME_FAILED = 18
BY_HAND = "hand"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(sweep)


def sweep(
    context: typer.Context,
    schedule: Annotated[str, typer.Option("--schedule", help="Whom this schedule looks after.")] = "",
    kind: Annotated[str, typer.Option("--kind", help="Which template set [EPICRISIS_SWEEP_KIND].")] = "",
    listed: Annotated[
        Path | None, typer.Option("--list", help="A file of Patient/ID or Encounter/ID, one a line.")
    ] = None,
    group: Annotated[
        str, typer.Option("--group", help="Group/ID: take its admissions from a Bulk Data export.")
    ] = "",
    fhir_url: Annotated[str | None, typer.Option(help="FHIR base URL [EPICRISIS_FHIR_URL].")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
    ] = False,
) -> None:
    """Look who is admitted, and give everybody a fresh draft: once, and only where something changed."""
    settings: Settings = context.obj
    watched = replace(watch_of(settings, schedule, kind), listed=listed, group=group)
    check_kind(settings, watched.kind, "This pass cannot be made")
    check_gate(settings, [watched.kind])
    report = asyncio.run(_sweep(settings, watched, fhir_url))
    print_json(report.shape()) if as_json else show(report)
    if report.failed:
        raise typer.Exit(SOME_FAILED)


def watch_of(settings: Settings, schedule: str, kind: str = "") -> Watch:
    """Return what a pass looks after. Raises SettingsError for a schedule that is not there."""
    if not schedule:
        return Watch(BY_HAND, kind or settings.sweep_kind)
    known = schedules(settings)
    if schedule not in known:
        raise SettingsError("There is no such schedule.", "`epicrisis schedule list` lists them.")
    watched = watch_of_schedule(known[schedule])
    return replace(watched, kind=kind) if kind else watched


async def _sweep(settings: Settings, watched: Watch, fhir_url: str | None) -> Report:
    with Steps() as steps, steps.step("Admissions") as step:

        def tell(what: str, done: int, total: int) -> None:
            step.detail(what)
            step.at(done, total or None)

        async with open_rounds(settings, fhir_url, lambda stage, detail: None) as rounds:
            rounds.sweep.tell = tell
            stop = asyncio.Event()
            pulse = asyncio.create_task(rounds.pulse.keep(stop))
            try:
                report = await rounds.sweep.run(watched, hand_tick(watched.name, utc_now()))
            finally:
                stop.set()
                await pulse
    assert report is not None  # a tick by hand is always a new one
    return report


def show(report: Report) -> None:
    """Show what a pass came to, as a table."""
    rows: list[tuple[str, ...]] = [
        ("filed anew", str(report.runs), ""),
        ("unchanged", str(report.unchanged), ""),
        *[("left out", str(count), sentence_for(why)) for why, count in sorted(report.skipped.items())],
        *[("failed", str(count), sentence_for(why)) for why, count in sorted(report.failures.items())],
    ]
    title = f"{report.admissions} admissions in {report.seconds:.0f} s"
    print_table(title, ("what", "#how many", "why"), rows)
    stderr.print(
        f"{report.engine_calls} requests to the model, {report.fhir_requests} to the record system; "
        f"{report.withdrawn} lapsed drafts withdrawn."
    )
    if report.odd:
        stderr.print("Of the sources: " + ", ".join(f"{why} {n}" for why, n in sorted(report.odd.items())))
