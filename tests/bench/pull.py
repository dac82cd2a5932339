"""Pulling the largest chart from a real FHIR server, beside plain paging and a common FHIR client."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome

from connectors.fhir.client import FhirClient
from connectors.fhir.compartment import COMPARTMENT
from connectors.fhir.patient import pull_patient
from connectors.limits import Limits
from tests.bench.rounds import compare_async
from tests.bench.table import Table, seconds, times

PAGE_SIZE = 500
LIMITS = Limits(page_size=PAGE_SIZE)
ROUNDS = 5
OURS, FLOOR, FHIRPY = "Epicrisis", "httpx + orjson", "fhirpy"


async def bench_pull(base_url: str, patient_id: str) -> Table:
    """Our pull beside plain httpx + orjson paging (the floor) and fhirpy, on the same server and pages."""

    async def ours(everything: bool) -> int:
        async with FhirClient(base_url, limits=LIMITS) as client:
            if not everything:
                offers = await client.capabilities()
                client._capabilities = replace(offers, everything=False)  # as on a server without it
            return len((await pull_patient(client, patient_id, now=lambda: datetime.now(UTC))).resources)

    async def floor(urls: list[str]) -> int:
        async with httpx.AsyncClient(timeout=120) as client:
            return sum([len(await floor_pages(client, url)) for url in urls])

    everything = [f"{base_url}/Patient/{patient_id}/$everything?_count={PAGE_SIZE}"]
    searches = [
        f"{base_url}/{kind}?{parameter}=Patient/{patient_id}&_count={PAGE_SIZE}"
        for kind, parameter in COMPARTMENT.items()
    ]
    whole = await compare_async({OURS: lambda: ours(True), FLOOR: lambda: floor(everything)}, ROUNDS)
    searched = await compare_async(
        {
            OURS: lambda: ours(False),
            FLOOR: lambda: floor(searches),
            FHIRPY: lambda: fhirpy_search(base_url, patient_id),
        },
        ROUNDS,
    )
    table = Table("Pull", ("work", "who", "seconds", "ours / theirs", "resources"))
    for work, (taken, counts) in (
        ("largest chart, $everything", whole),
        (f"largest chart, one search a type, pages of {PAGE_SIZE}", searched),
    ):
        for who, value in taken.items():
            ratio = times(taken[OURS] / value) if who != OURS else ""
            table.rows.append((work, who, seconds(value), ratio, str(counts[who])))
    table.remarks.append(f"Medians of {ROUNDS} rounds, taking turns.")
    return table


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


async def fhirpy_search(base_url: str, patient_id: str) -> int:
    """Search the same types by a common FHIR client."""
    client = AsyncFHIRClient(base_url)
    total = 0
    for kind, parameter in COMPARTMENT.items():
        search = client.resources(kind).search(**{parameter: f"Patient/{patient_id}"}).limit(PAGE_SIZE)
        try:
            total += len(await search.fetch_all())
        except OperationOutcome:
            continue
    return total
