"""`epicrisis stale`: whether a stored summary still says what the chart says. It asks no engine.

Exit code 0: fresh. 12: stale. 13: unknown, the chart could not be read well enough to tell. Other codes are
those of every command (`service.errors`).
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from connectors.fhir.ehr import FhirEhr
from service.errors import SettingsError
from service.ports import RunId, Store, StoredRun
from service.settings import Settings
from service.staleness import Freshness, Lookout, Staleness, shape_of
from service.terminal import print_json, print_table, stdout
from service.wiring import fhir_client, open_store, open_vault, policy, utc_now

STALE, UNKNOWN = 12, 13
EXIT_CODES = {Freshness.FRESH: 0, Freshness.STALE: STALE, Freshness.UNKNOWN: UNKNOWN}


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(stale)


def stale(
    context: typer.Context,
    run_or_patient: Annotated[
        str, typer.Argument(help="A run's id, or a patient's: then the newest filed summary is meant.")
    ],
    fhir_url: Annotated[
        str | None, typer.Option(help="FHIR base URL; else the one that the summary was made from.")
    ] = None,
    kind: Annotated[str, typer.Option("--kind", help="Of a patient's summaries, which kind.")] = "history",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
    ] = False,
) -> None:
    """Tell whether a stored summary is fresh (exit 0), stale (12) or unknown (13), and what changed."""
    found = asyncio.run(_ask(context.obj, run_or_patient, fhir_url, kind))
    print_json(shape_of(found)) if as_json else _show(found)
    if found.freshness is not Freshness.FRESH:
        raise typer.Exit(EXIT_CODES[found.freshness])


async def _ask(settings: Settings, run_or_patient: str, fhir_url: str | None, kind: str) -> Staleness:
    store, audit = open_store(settings)
    vault = open_vault(settings)
    try:
        run = find_run(store, run_or_patient, kind)
        client = fhir_client(settings, fhir_url or settings.fhir_url or run.inputs.server)
        try:
            ehr = FhirEhr(client, now=utc_now)
            return await Lookout(ehr, audit, utc_now, policy(settings), vault).ask(run)
        finally:
            await client.aclose()
    finally:
        if vault is not None:
            vault.close()
        audit.close()
        store.close()


def find_run(store: Store, run_or_patient: str, kind: str) -> StoredRun:
    """Return the run of this id, else the newest filed one of this patient. Raises SettingsError for none."""
    patient = f"Patient/{run_or_patient.removeprefix('Patient/')}"
    found = store.get(RunId(run_or_patient)) or store.find_latest(patient, kind)
    if found is None:
        raise SettingsError("There is no such run, and no filed summary of such a patient.",
                            "`epicrisis runs` lists the runs.")  # fmt: skip
    return found


def _show(found: Staleness) -> None:
    stdout.print(f"The summary {found.run_id} is {found.freshness.value}{_why(found)}.")
    if found.changes:
        rows: list[tuple[str, ...]] = [
            (one.kind, one.reference, one.what.value, "required" if one.is_required else "",
             "cited" if one.is_cited else "")
            for one in found.changes
        ]  # fmt: skip
        print_table("", ("kind", "resource", "what", "is required", "is cited"), rows)
    if found.statements_gone:
        stdout.print(f"Statements of then that are changed or gone: {found.statements_gone}.")


def _why(found: Staleness) -> str:
    return f": {found.reason.rstrip('.')}" if found.reason else ""
