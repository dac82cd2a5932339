"""`make bench`: our work beside a baseline on the same work, in one run, as a table.

Each row is the median of several rounds, ours and the baselines taking turns, so that a noisy machine
disturbs all of them alike. The table goes to stdout and to `bench-results/`.
"""

from __future__ import annotations

import asyncio
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
from fhir.resources.R4B.bundle import Bundle
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome

from connectors.fhir.client import FhirClient
from connectors.fhir.codec import decode
from connectors.fhir.compartment import COMPARTMENT
from connectors.fhir.patient import pull_patient
from connectors.limits import Limits
from fixtures.cohort import Chart, make_cohort
from fixtures.servers import SekmetServer
from service.record.assemble import assemble_record, resources_of
from service.settings import load_settings
from service.terminal import Steps, stderr
from service.wiring import open_summarizer

ROUNDS = 9
PAGE_SIZE = 500
HOME = Path(".epicrisis")


@dataclass
class Row:
    """One line of the table: what was done, by whom, and how long it took (seconds, median)."""

    work: str
    who: str
    seconds: float
    ratio: float | None
    note: str = ""


def main() -> None:
    """Run every benchmark and print the table."""
    rows: list[Row] = []
    with Steps() as steps:
        with steps.step("Making the cohort") as step:
            charts = make_cohort(HOME / "demo" / "cohort", step.at)
        largest = max(charts, key=lambda chart: chart.resources)
        with steps.step("Assembling the largest chart"):
            rows += bench_assembly(largest)
        with tempfile.TemporaryDirectory() as folder, SekmetServer(Path(folder)) as server:
            with steps.step("Pulling the largest chart"):
                patient_id = asyncio.run(load(server.base_url, largest))
                server.analyze()
                rows += asyncio.run(bench_pull(server.base_url, patient_id))
            smallest = min(charts, key=lambda chart: chart.resources)
            with steps.step("Summarising one chart with the real engine"):
                other = asyncio.run(load(server.base_url, smallest))
                rows += asyncio.run(bench_stages(server.base_url, other, Path(folder) / "home"))
    table = render(rows)
    print(table)
    results = Path("bench-results")
    results.mkdir(exist_ok=True)
    (results / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.md").write_text(table)


def bench_assembly(chart: Chart) -> list[Row]:
    """Our assembly of a bundle's bytes, beside parsing the same bytes and no more."""
    data = chart.path.read_bytes()
    times = compare(
        {
            "Epicrisis: decode and assemble": lambda: assemble_record(resources_of(decode(data))),
            "orjson: parse": lambda: orjson.loads(data),
            "fhir.resources R4B: parse": lambda: Bundle.model_validate_json(data),
        }
    )
    work = f"read one bundle, {len(data) / 1e6:.1f} MB, {chart.resources} resources"
    return table_of(work, times, "Epicrisis: decode and assemble")


async def bench_pull(base_url: str, patient_id: str) -> list[Row]:
    """Our pull beside plain httpx + orjson paging (the floor) and fhirpy, on the same server and pages."""
    limits = Limits(page_size=PAGE_SIZE)

    async def ours_everything() -> int:
        async with FhirClient(base_url, limits=limits) as client:
            return len((await pull_patient(client, patient_id, now=lambda: datetime.now(UTC))).resources)

    async def ours_search() -> int:
        async with FhirClient(base_url, limits=limits) as client:
            offers = await client.capabilities()
            client._capabilities = replace(offers, everything=False)  # as on a server without the operation
            return len((await pull_patient(client, patient_id, now=lambda: datetime.now(UTC))).resources)

    async def floor_everything() -> int:
        async with httpx.AsyncClient(timeout=120) as client:
            return len(
                await floor_pages(client, f"{base_url}/Patient/{patient_id}/$everything?_count={PAGE_SIZE}")
            )

    async def floor_search() -> int:
        async with httpx.AsyncClient(timeout=120) as client:
            found: list[Any] = []
            for resource_type, parameter in COMPARTMENT.items():
                url = f"{base_url}/{resource_type}?{parameter}=Patient/{patient_id}&_count={PAGE_SIZE}"
                found += await floor_pages(client, url)
            return len(found)

    async def fhirpy_search() -> int:
        client = AsyncFHIRClient(base_url)
        total = 0
        for resource_type, parameter in COMPARTMENT.items():
            search = (
                client.resources(resource_type)
                .search(**{parameter: f"Patient/{patient_id}"})
                .limit(PAGE_SIZE)
            )
            try:
                total += len(await search.fetch_all())
            except OperationOutcome:
                continue
        return total

    everything = await compare_async({"Epicrisis": ours_everything, "httpx + orjson": floor_everything})
    search = await compare_async(
        {"Epicrisis": ours_search, "httpx + orjson": floor_search, "fhirpy": fhirpy_search}
    )
    return table_of("pull one chart, $everything", everything, "Epicrisis") + table_of(
        f"pull one chart, one search a type, pages of {PAGE_SIZE}", search, "Epicrisis"
    )


async def floor_pages(client: httpx.AsyncClient, url: str) -> list[Any]:
    """Page to the end, and nothing else."""
    found: list[Any] = []
    next_url: str | None = url
    while next_url:
        answer = await client.get(next_url)
        if answer.status_code != 200:
            return found
        bundle = orjson.loads(answer.content)
        found += [entry["resource"] for entry in bundle.get("entry", ())]
        next_url = next((link["url"] for link in bundle.get("link", ()) if link["relation"] == "next"), None)
    return found


async def bench_stages(base_url: str, patient_id: str, home: Path) -> list[Row]:
    """Seconds and tokens of each stage of one summary, by the demonstration's model."""
    settings = load_settings(home=home, model=None)
    models = HOME / "models"
    if models.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        (home / "models").symlink_to(models.resolve())
    async with open_summarizer(settings, base_url, lambda stage, detail: None) as summarizer:
        outcome = await summarizer.summarize(patient_id, dry_run=True, actor="system:bench")
    notes = {
        "fetch": f"{outcome.resources} resources",
        "assemble": f"{outcome.facts} facts",
        "choose": "the engine's start is in this stage",
        "generate": f"{outcome.prompt_tokens} prompt tokens ({outcome.cached_tokens} from the prefix cache), "
        f"{outcome.completion_tokens} written",
        "verify": f"{outcome.claims_from_model} model claims published, {outcome.claims_dropped} dropped",
    }
    return [
        Row("summarise one chart", stage, seconds, None, notes.get(stage, ""))
        for stage, seconds in outcome.seconds.items()
    ]


def compare(contenders: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each contender, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


async def compare_async(contenders: dict[str, Callable[[], Awaitable[int]]]) -> dict[str, float]:
    """The same for coroutines. Each says how many resources it got: they must not differ by much."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    counts: dict[str, int] = {}
    for _ in range(ROUNDS):
        for name, work in contenders.items():
            start = time.perf_counter()
            counts[name] = await work()
            times[name].append(time.perf_counter() - start)
    stderr.print(f"[dim]resources: {counts}[/]")
    return {name: statistics.median(found) for name, found in times.items()}


def table_of(work: str, times: dict[str, float], ours: str) -> list[Row]:
    """Return rows with the ratio of ours to each."""
    return [
        Row(work, name, seconds, times[ours] / seconds if name != ours else None)
        for name, seconds in times.items()
    ]


async def load(base_url: str, chart: Chart) -> str:
    """Load one chart and return the server's id of its patient."""
    async with FhirClient(base_url) as client:
        await client.transaction(decode(chart.path.read_bytes()))
        (patient,) = await client.search("Patient", [("identifier", chart.identifier)])
        return str(patient["id"])


def render(rows: list[Row]) -> str:
    """Return the table in Markdown."""
    lines = [f"{platform.machine()}, Python {platform.python_version()}, {ROUNDS} rounds, medians", ""]
    lines += ["| work | who | seconds | ours / theirs | note |", "| --- | --- | ---: | ---: | --- |"]
    for row in rows:
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        lines.append(f"| {row.work} | {row.who} | {row.seconds:.3f} | {ratio} | {row.note} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
