"""The demonstration: a small hospital on this machine, six charts, and the whole path through them.

It needs the source checkout (the sandbox EHR and the cohort's recipe live in `fixtures/`).
"""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.fhir.client import FhirClient
from connectors.fhir.codec import decode
from service.errors import SettingsError
from service.ports import RunState
from service.settings import FhirAuth, Settings
from service.summarize import Outcome, Progress
from service.terminal import Steps
from service.wiring import open_summarizer

if TYPE_CHECKING:
    from fixtures.cohort import Chart
    from fixtures.servers import SekmetServer

ACTOR = "system:demo"
FILES_IMAGES = " What the model reads from pictures is filed too, marked as not checked."


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demonstration did: the one JSON document of `epicrisis demo --json`."""

    fhir_url: str
    new_documents: int
    message: str
    patients: tuple[dict[str, object], ...] = field(default=())


def start_ehr(settings: Settings, steps: Steps) -> SekmetServer:
    """Start the demonstration's EHR on its kept data. The caller stops it."""
    try:
        from fixtures.servers import SekmetServer  # noqa: PLC0415 - only in a checkout
    except ImportError:
        raise SettingsError(
            "The demonstration needs the source checkout with its development tools.",
            "Clone the project and type `make demo`.",
        ) from None
    folder = settings.home / "demo" / "ehr"
    with steps.step("Starting the demonstration's EHR"):
        server = SekmetServer(folder, port=_kept_port(folder))
        server.start()
    return server


async def run_demo(settings: Settings, steps: Steps, server: SekmetServer) -> DemoReport:
    """Load the cohort once, summarise every patient, and report what was filed."""
    from fixtures.cohort import make_cohort  # noqa: PLC0415 - only in a checkout

    folder = settings.home / "demo"
    with steps.step("Making six synthetic patients") as step:
        charts = await asyncio.to_thread(make_cohort, folder / "cohort", step.at)
    async with FhirClient(server.base_url) as client:
        patients = await _load(client, charts, folder / "loaded.json", steps)
    if patients.fresh:
        with steps.step("Optimising the EHR's database"):
            await asyncio.to_thread(server.analyze)
    outcomes = []
    own = demonstration_settings(settings)
    async with open_summarizer(own, server.base_url, _engine_voice(steps)) as summarizer:
        for number, patient_id in enumerate(patients.ids, 1):
            with steps.step(f"Patient {number} of {len(patients.ids)}") as step:
                outcomes.append(await summarizer.summarize(patient_id, actor=ACTOR, tell=_voice(step.detail)))
        await _prove_readable(server.base_url, outcomes)
    return _report(server.base_url, outcomes, files_images=own.images == "file")


def demonstration_settings(settings: Settings) -> Settings:
    """Return the settings for the sandbox EHR; with an image archive, what is read from pictures is filed."""
    images = "file" if settings.pacs_url else settings.images
    return settings.model_copy(
        update={"fhir_auth": FhirAuth.NONE, "fhir_allowed_origins": (), "images": images}
    )


@dataclass(frozen=True, slots=True)
class _Loaded:
    ids: tuple[str, ...]
    fresh: bool


async def _load(client: FhirClient, charts: list[Chart], marker: Path, steps: Steps) -> _Loaded:
    """Load each chart once; the server's ids are kept beside its data."""
    known = await asyncio.to_thread(_read_marker, marker)
    fresh = False
    with steps.step("Loading the charts into the EHR", total=len(charts)) as step:
        for number, chart in enumerate(charts, 1):
            if chart.identifier not in known:
                known[chart.identifier] = await _load_once(client, chart)
                await asyncio.to_thread(marker.write_text, json.dumps(known))
                fresh = True
            step.at(number, len(charts))
    return _Loaded(tuple(known[chart.identifier] for chart in charts), fresh)


def _read_marker(marker: Path) -> dict[str, str]:
    return dict(json.loads(marker.read_text())) if marker.is_file() else {}


async def _load_once(client: FhirClient, chart: Chart) -> str:
    """Return the server's id of a chart's patient; a chart that an interrupted run loaded is found again."""
    found = await client.search("Patient", [("identifier", chart.identifier)])
    if not found:
        await client.transaction(decode(await asyncio.to_thread(chart.path.read_bytes)))
        found = await client.search("Patient", [("identifier", chart.identifier)])
    if not found:
        raise SettingsError("The demonstration's EHR lost a patient.", "Type `make clean-demo`; start again.")
    return str(found[0]["id"])


async def _prove_readable(base_url: str, outcomes: list[Outcome]) -> None:
    """Read every document back by a plain GET, as anybody would."""
    async with FhirClient(base_url) as client:
        for outcome in outcomes:
            if outcome.document:
                await client.read(plain_reference(outcome.document))


def plain_reference(document: str) -> str:
    """`DocumentReference/7` of `DocumentReference/7/_history/1`."""
    return document.partition("/_history/")[0]


def _report(base_url: str, outcomes: list[Outcome], *, files_images: bool) -> DemoReport:
    new = sum(outcome.state is RunState.FILED for outcome in outcomes)
    unchanged = sum(outcome.state is RunState.UNCHANGED for outcome in outcomes)
    message = (
        f"{new} new documents were written; {unchanged} charts had not changed since their last summary."
    ) + (FILES_IMAGES if files_images else "")
    return DemoReport(base_url, new, message, tuple(_row(outcome) for outcome in outcomes))


def _row(outcome: Outcome) -> dict[str, object]:
    return {
        "patient": outcome.patient,
        "resources": outcome.resources,
        "facts": outcome.facts,
        "skipped": outcome.skipped,
        "prompt_tokens": outcome.prompt_tokens,
        "claims_published": outcome.claims_published,
        "claims_from_model": outcome.claims_from_model,
        "claims_dropped": outcome.claims_dropped,
        "document": plain_reference(outcome.document),
        "state": outcome.state,
        "run": outcome.run_id,
        "seconds": dict(outcome.seconds),
        "reason": outcome.reason,
    }


def _voice(tell: object) -> Progress:
    def speak(stage: str, detail: str) -> None:
        tell(f"{stage} {detail}".strip())  # type: ignore[operator]

    return speak


def _engine_voice(steps: Steps) -> Progress:
    from service.terminal import stderr  # noqa: PLC0415

    def speak(stage: str, detail: str) -> None:
        stderr.print(f"[dim]{stage}: {detail}[/]" if detail else f"[dim]{stage}[/]")

    return speak


def _kept_port(folder: Path) -> int:
    """Return the port of the last time where it is free, so that addresses stay what they were."""
    kept = folder / "port"
    wanted = int(kept.read_text()) if kept.is_file() else 0
    port = _free_port(wanted) or _free_port(0)
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(str(port))
    return port


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
        return int(probe.getsockname()[1])
