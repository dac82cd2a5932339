"""`epicrisis admissions`: who is admitted, and how their summary stands. `epicrisis retry`: once more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from service.admissions.words import sentence_for
from service.commands.audit import record_change
from service.errors import SettingsError
from service.ports import Admission, Standing
from service.settings import Settings
from service.terminal import Steps, print_json, print_table, stdout
from service.wiring import fhir_client, open_admissions, open_rounds
from service.wiring.quality import check_gate

SOME_FAILED = 18
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")]
FhirUrl = Annotated[str | None, typer.Option("--fhir-url", help="FHIR base URL [EPICRISIS_FHIR_URL].")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(admissions)
    app.command()(retry)


def admissions(
    context: typer.Context,
    standing: Annotated[
        Standing | None, typer.Option("--standing", help="Only those whose summary stands so.")
    ] = None,
    fhir_url: FhirUrl = None,
    as_json: AsJson = False,
) -> None:
    """List who is admitted: fresh, stale, failed or missing, since when, and why."""
    found = [one for one in _open(context.obj, fhir_url) if standing is None or one.standing is standing]
    if as_json:
        print_json({"admissions": [shape(one) for one in found]})
        return
    rows: list[tuple[str, ...]] = [
        (one.id, one.standing.value, _when(one.since), _when(one.checked_at), sentence_for(one.reason))
        for one in found
    ]
    print_table(f"{len(found)} admissions", ("id", "summary", "since", "checked", "why"), rows)


def retry(
    context: typer.Context,
    admission: Annotated[str, typer.Argument(help="An admission's id; empty with --all.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every admission whose summary failed.")] = False,
    fhir_url: FhirUrl = None,
    as_json: AsJson = False,
) -> None:
    """Try again what failed. Exit code 18: something failed again."""
    if everything == bool(admission):
        raise SettingsError("Say which admission, or --all.", "`epicrisis admissions --standing failed`")
    failed = [one for one in _open(context.obj, fhir_url) if one.standing is Standing.FAILED]
    chosen = failed if everything else [one for one in failed if one.id == admission]
    if not chosen and not everything:
        raise SettingsError("This admission is not among those that failed.", "`epicrisis admissions`")
    if chosen:
        check_gate(context.obj, [context.obj.sweep_kind])
        record_change(context.obj, f"admission:{admission or 'all'}:retry", {"admissions": len(chosen)})
    outcomes = asyncio.run(_retry(context.obj, chosen, fhir_url)) if chosen else []
    again = sum(one.get("state") == "failed" for one in outcomes)
    if as_json:
        print_json({"tried": len(outcomes), "failed": again})
    else:
        stdout.print(f"{len(outcomes)} tried, {again} of them failed again.")
    if again:
        raise typer.Exit(SOME_FAILED)


async def _retry(
    settings: Settings, chosen: Sequence[Admission], fhir_url: str | None
) -> list[dict[str, Any]]:
    with Steps() as steps, steps.step("Admissions", len(chosen)) as step:
        async with open_rounds(settings, fhir_url, lambda stage, detail: None) as rounds:
            visits = [await rounds.order(one, settings.sweep_kind) for one in chosen]
            outcomes = []
            for number, visit in enumerate(visits, 1):
                outcomes.append(await rounds.durable.outcome(visit))
                step.at(number)
    return outcomes


def shape(admission: Admission) -> dict[str, Any]:
    """Return the JSON of one admission."""
    return {
        "id": admission.id,
        "patient": admission.patient,
        "encounter": admission.encounter,
        "standing": admission.standing,
        "since": admission.since,
        "reason": admission.reason,
        "why": sentence_for(admission.reason),
        "checked_at": admission.checked_at,
        "tried_at": admission.tried_at,
        "failures": admission.failures,
        "run": admission.run_id,
    }


def _open(settings: Settings, fhir_url: str | None) -> list[Admission]:
    server = fhir_client(settings, fhir_url).base_url
    with open_admissions(settings) as store:
        return list(store.admissions(server))


def _when(instant: Any) -> str:
    return f"{instant:%d-%b %H:%M} UTC" if instant else ""
