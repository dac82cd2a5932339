"""`epicrisis stop`: halts publishing, and hides what is stored, at once; with --lift, no longer."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from service.errors import SettingsError
from service.ports import Action, AuditEntry, Stop, StopScope
from service.settings import Settings
from service.terminal import print_json, print_table
from service.wiring import open_store, tell_collector, utc_now

ACTOR = "system:cli"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(stop)


def stop(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="All publishing.")] = False,
    model: Annotated[str, typer.Option("--model", help="A model's digest or name.")] = "",
    prompt: Annotated[str, typer.Option("--prompt", help="ID, or ID@VERSION.")] = "",
    ward: Annotated[str, typer.Option("--ward", help="A place, as the record names it.")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="Go on again.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
    ] = False,
) -> None:
    """Halt publishing and hide what is stored, at once; without an option, list what is halted."""
    chosen = _chosen(everything, model, prompt, ward)
    if chosen is None and lift:
        raise SettingsError("Say what to lift: --all, --model, --prompt or --ward.")
    stops = _carry_out(context.obj, chosen, lift, reason)
    if chosen is not None:
        asyncio.run(tell_collector(context.obj))
    if as_json:
        print_json({"stopped": stops})
        return
    rows: list[tuple[str, ...]] = [
        (s.scope.value, s.value, f"{s.since:%d-%b-%Y %H:%M} UTC", s.by, s.reason) for s in stops
    ]
    print_table("Stopped" if rows else "Nothing is stopped", ("what", "which", "since", "by", "why"), rows)


def _chosen(everything: bool, model: str, prompt: str, ward: str) -> tuple[StopScope, str] | None:
    given = [
        (scope, value)
        for scope, value, is_given in (
            (StopScope.ALL, "", everything),
            (StopScope.MODEL, model, bool(model)),
            (StopScope.PROMPT, prompt, bool(prompt)),
            (StopScope.WARD, ward, bool(ward)),
        )
        if is_given
    ]
    if len(given) > 1:
        raise SettingsError("Name one of --all, --model, --prompt and --ward at a time.")
    return given[0] if given else None


def _carry_out(
    settings: Settings, chosen: tuple[StopScope, str] | None, lift: bool, reason: str
) -> list[Stop]:
    store, audit = open_store(settings)
    try:
        if chosen is not None:
            scope, value = chosen
            outcome = f"{'lifted' if lift else 'stopped'}:{scope.value}"
            audit.append(AuditEntry(Action.STOP, ACTOR, "", utc_now(), outcome=outcome))
            if not lift:
                store.add_stop(Stop(scope, value, utc_now(), ACTOR, reason))
            elif not store.lift_stop(scope, value, ACTOR, utc_now()):
                raise SettingsError("Nothing is stopped so.", "`epicrisis stop` lists what is.")
        return list(store.stops())
    finally:
        store.close()
        audit.close()
