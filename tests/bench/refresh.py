"""Refreshing a chart of which an earlier pull is known: what it receives beside a whole pull."""

from __future__ import annotations

import asyncio
import statistics
import time
from datetime import UTC, datetime

from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from connectors.fhir.pull import Pull
from connectors.limits import Limits
from tests.bench.table import Row, Table, at_most, percent, seconds

QUICK = Limits(refresh_overlap_s=0)
"""The server's clock is ours: a refresh need not look back over what was loaded a moment ago."""
SETTLED_S = 1.1
"""The server's `lastUpdated` has whole seconds: what was loaded before must lie in an earlier one."""
ROUNDS = 5
SHARE, ORDINARY_BYTES = 0.02, 20_000
COLUMNS = ("work", "what", "bytes", "of the whole pull", "requests", "seconds", "target")


async def bench_refresh(base_url: str, patient_id: str, work: str, *, is_largest: bool) -> list[Row]:
    """Return the rows of one chart: whole, unchanged, with one new Observation. The client is connected."""
    async with FhirClient(base_url, limits=QUICK) as client:
        ehr = FhirEhr(client)
        await asyncio.sleep(SETTLED_S)
        whole, whole_s = await _timed(ehr, patient_id, None)
        await asyncio.sleep(SETTLED_S)
        unchanged = [await _timed(ehr, patient_id, whole) for _ in range(ROUNDS)]
        await client.create(new_observation(patient_id))
        changed = [await _timed(ehr, patient_id, whole) for _ in range(ROUNDS)]
    assert {pull.changed for pull, _ in unchanged} == {0}, "an unchanged chart was not recognised"
    assert {pull.changed for pull, _ in changed} == {1}, "a refresh did not bring exactly what is new"
    rows: list[Row] = [
        (work, "whole pull", f"{whole.bytes_received:,}", "", str(whole.requests), seconds(whole_s), "")
    ]
    for what, found in (("refresh, unchanged", unchanged), ("refresh, one new Observation", changed)):
        size = statistics.median(pull.bytes_received for pull, _ in found)
        share = size / whole.bytes_received
        target = (
            at_most(share, SHARE, percent(SHARE)) if is_largest else at_most(size, ORDINARY_BYTES, "20 kB")
        )
        taken = statistics.median(value for _, value in found)
        requests = str(found[0][0].requests)
        rows.append((work, what, f"{size:,.0f}", percent(share), requests, seconds(taken), target))
    return rows


def refresh_table(rows: list[Row]) -> Table:
    """Return the table of all charts."""
    remark = f"Real sekmet server, client connected, no overlap; medians of {ROUNDS} refreshes from one pull."
    return Table("Refresh", COLUMNS, rows, [remark])


async def _timed(ehr: FhirEhr, patient_id: str, known: Pull | None) -> tuple[Pull, float]:
    start = time.perf_counter()
    pull = await ehr.pull(patient_id, known=known)
    return pull, time.perf_counter() - start


def new_observation(patient_id: str) -> dict[str, object]:
    """Return a laboratory result of now, of an analyte that every chart of some size holds."""
    return {
        "resourceType": "Observation",
        "status": "final",
        "category": [{"coding": [{"system": LABORATORY, "code": "laboratory"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "2339-0"}], "text": "Glucose"},
        "subject": {"reference": f"Patient/{patient_id}"},
        "effectiveDateTime": datetime.now(UTC).isoformat(timespec="seconds"),
        "valueQuantity": {
            "value": 96,
            "unit": "mg/dL",
            "system": "http://unitsofmeasure.org",
            "code": "mg/dL",
        },
    }


LABORATORY = "http://terminology.hl7.org/CodeSystem/observation-category"
