"""`epicrisis schedule list|pause|resume|run`: when admissions are summarised, and by hand when not."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from service.commands.audit import record_change
from service.commands.sweep import sweep
from service.errors import SettingsError
from service.ports import Tick
from service.scheduler import Schedule, next_tick, wall_of
from service.settings import Settings
from service.terminal import print_json, print_table
from service.wiring import open_admissions, schedules, utc_now

Name = Annotated[str, typer.Argument(help="The schedule's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")]

commands = typer.Typer(help="When admissions are summarised.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class Line:
    """What is told of one schedule."""

    schedule: Schedule
    following: datetime | None
    last: Tick | None
    paused_by: str
    paused_since: datetime | None

    def shape(self) -> dict[str, Any]:
        """Return the JSON of one schedule."""
        last = self.last
        return {
            "name": self.schedule.name,
            "cron": self.schedule.cron,
            "time_zone": self.schedule.zone.key,
            "kind": self.schedule.kind,
            "next": None if self.paused_by else self.following,
            "paused_by": self.paused_by,
            "paused_since": self.paused_since,
            "last": None
            if last is None
            else {
                "tick": last.id,
                "started_at": last.started_at,
                "finished_at": last.finished_at,
                **last.report,
            },
        }


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(commands, name="schedule")


@commands.command("list")
def list_schedules(context: typer.Context, as_json: AsJson = False) -> None:
    """List every schedule: when it comes next, and what its last pass came to."""
    lines = _lines(context.obj)
    if as_json:
        print_json({"schedules": [line.shape() for line in lines]})
        return
    rows = [_row(line) for line in lines]
    title = "Schedules" if rows else "There are no schedules: set EPICRISIS_SCHEDULES, see ops/schedules.toml"
    print_table(title, ("name", "cron", "next", "last", "filed", "unchanged", "failed"), rows)


@commands.command()
def pause(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Let a schedule rest until it is resumed; what runs is not interrupted."""
    _set(context.obj, name, True)
    list_schedules(context, as_json)


@commands.command()
def resume(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Let a schedule go on; a tick that was missed meanwhile is made up for."""
    _set(context.obj, name, False)
    list_schedules(context, as_json)


@commands.command()
def run(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Make a schedule's pass now, as `epicrisis sweep --schedule` does; the schedule goes on as before."""
    _record(context.obj, name, "run")
    sweep(context, schedule=name, kind="", listed=None, group="", fhir_url=None, as_json=as_json)


def _set(settings: Settings, name: str, is_paused: bool) -> None:
    _record(settings, name, "pause" if is_paused else "resume")
    with open_admissions(settings) as store:
        store.pause(name, is_paused, getpass.getuser(), utc_now())


def _record(settings: Settings, name: str, act: str) -> None:
    """Put on record what is about to be done to a schedule. Raises SettingsError where there is none."""
    if name not in schedules(settings):
        raise SettingsError("There is no such schedule.", "`epicrisis schedule list` lists them.")
    record_change(settings, f"schedule:{name}:{act}")


def _lines(settings: Settings) -> list[Line]:
    now = utc_now()
    with open_admissions(settings) as store:
        paused = store.paused()
        return [
            Line(one, next_tick(one, now), store.last_tick(one.name), *paused.get(one.name, ("", None)))
            for one in schedules(settings).values()
        ]


def _row(line: Line) -> tuple[str, ...]:
    zone = line.schedule.zone
    following = f"{line.following.astimezone(zone):%a %d-%b %H:%M}" if line.following else "never"
    if line.paused_by:
        following = f"paused by {line.paused_by}"
    last = line.last
    if last is None:
        return (line.schedule.name, line.schedule.cron, following, "never", "", "", "")
    counts = [str(last.report.get(name, "")) for name in ("runs", "unchanged", "failed")]
    told = wall_of(last) if last.finished_at else f"{wall_of(last)} (at work)"
    return (line.schedule.name, line.schedule.cron, following, told, *counts)
