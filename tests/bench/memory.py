"""Charts of up to 60,000 resources: what is held of the pages, what of the facts, each in its own process.

`python -m tests.bench.memory packed 60000` is one measurement, told as JSON.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from connectors.fhir.codec import decode, encode
from connectors.fhir.packed import HELD_BYTES, Packed
from service.record.assemble import assemble_record
from tests.bench.table import Table, seconds

SIZES = {"packed": (6_000, 20_000, 60_000, 120_000), "list": (6_000, 20_000, 60_000)}
PAGE = 500
HOLDERS = {"packed": "Epicrisis: compressed pages", "list": "plain list of dicts"}
START = datetime(2024, 1, 1, tzinfo=UTC)
FLOWSHEET = (
    ("8867-4", "Heart rate", "/min", 60, 130),
    ("9279-1", "Respiratory rate", "/min", 10, 32),
    ("2708-6", "Oxygen saturation in Arterial blood", "%", 86, 100),
    ("8310-5", "Body temperature", "Cel", 35, 40),
    ("8480-6", "Systolic blood pressure", "mm[Hg]", 80, 180),
    ("9269-2", "Glasgow coma score total", "{score}", 3, 15),
)
LABS = (("2823-3", "Potassium", "mmol/L", 3, 6), ("2160-0", "Creatinine", "mg/dL", 1, 4))
DRUGS = ("norepinephrine 4 MG/4 ML Injection", "propofol 10 MG/ML Injection", "heparin 5000 UNT/ML Injection")
SENTENCES = (
    "Overnight the patient remained on ventilatory support.", "Vasopressors were weaned.",
    "Urine output was adequate.", "Antibiotics were continued.", "Family was updated at the bedside.",
    "Sedation was lightened and the patient followed commands.", "No new rash was seen.",
)  # fmt: skip


def bench_memory() -> Table:
    """Measure each size by each holder, one process after another."""
    columns = (
        "resources", "held as", "JSON, MB", "held after reading, MB", "peak while reading, MB",
        "assembly adds, MB", "peak in all, MB", "read, s", "assemble, s", "facts",
    )  # fmt: skip
    table = Table("Memory", columns)
    for holder, sizes in SIZES.items():
        for size in sizes:
            command = [sys.executable, "-m", "tests.bench.memory", holder, str(size)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            table.rows.append(_row(size, holder, json.loads(done.stdout)))
    table.remarks += [
        "A chart of flowsheet values (90 %), results, administrations, encounters and notes, read page by "
        f"page ({PAGE} a page). All above what the process took before the first page. Up to "
        f"{HELD_BYTES >> 20} MiB of JSON stays decoded, so that small charts are read fast: "
        "that bounds the peak while reading. "
        "What assembly adds are the facts, which grow with the chart, and its working memory.",
    ]
    return table


def _row(size: int, holder: str, told: dict[str, float]) -> tuple[str, ...]:
    def mb(key: str) -> str:
        return f"{(told[key] - told['before']) / 1e6:.0f}"

    facts = f"{(told['peak_assembled'] - told['held']) / 1e6:.0f}"
    return (
        f"{size:,}", HOLDERS[holder], f"{told['json'] / 1e6:.0f}", mb("held"), mb("peak_read"), facts,
        mb("peak_assembled"), seconds(told["read_s"]), seconds(told["assemble_s"]), f"{told['facts']:,.0f}",
    )  # fmt: skip


def measure(holder: str, size: int) -> dict[str, float]:
    """Read a chart page by page and assemble it; bytes and seconds of both."""
    assemble_record([patient()])  # everything is imported and warm
    told: dict[str, float] = {"before": _resident(), "json": 0}
    held: Any = Packed() if holder == "packed" else []
    start = time.perf_counter()
    for page in pages(size):
        told["json"] += len(page)
        if holder == "packed":
            held.extend(decode(page), len(page))
        else:
            held.extend(decode(page))
    told["read_s"] = time.perf_counter() - start
    told["held"], told["peak_read"] = _resident(), _peak()
    start = time.perf_counter()
    record = assemble_record(held)
    told["assemble_s"] = time.perf_counter() - start
    told["peak_assembled"], told["facts"] = _peak(), len(record.facts)
    assert record.kept == size, record.skipped
    return told


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak() -> float:
    """Return the most that was ever resident. `ru_maxrss` would tell the parent's where that was more."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def patient() -> dict[str, Any]:
    """Return the patient of the chart."""
    return {
        "resourceType": "Patient", "id": "p", "birthDate": "1951-05-04", "gender": "female",
        "name": [{"family": "Benchmark", "given": ["Icu"]}],
    }  # fmt: skip


def pages(size: int) -> Iterator[bytes]:
    """Yield `size` resources of one long stay as JSON pages; the same for every call."""
    chance = random.Random(size)
    page: list[dict[str, Any]] = [patient()]
    for number in range(1, size):
        if len(page) == PAGE:
            yield encode(page)
            page = []
        page.append(_resource(number, START + timedelta(minutes=5 * number), chance))
    yield encode(page)


def _resource(number: int, at: datetime, chance: random.Random) -> dict[str, Any]:
    place = number % 100
    shared = {
        "id": f"r{number}", "meta": {"versionId": "1", "lastUpdated": at.isoformat()},
        "subject": {"reference": "Patient/p"},
    }  # fmt: skip
    if place == 0:
        return _encounter(shared, at)
    if place == 1:
        return _note(shared, at, number, chance)
    if place < 6:
        return _administration(shared, at, DRUGS[number % len(DRUGS)])
    if place < 10:
        return _observation(shared, at, LABS[number % len(LABS)], "laboratory", chance)
    return _observation(shared, at, FLOWSHEET[number % len(FLOWSHEET)], "vital-signs", chance)


def _observation(
    shared: dict[str, Any],
    at: datetime,
    what: tuple[str, str, str, int, int],
    category: str,
    chance: random.Random,
) -> dict[str, Any]:
    code, name, unit, low, high = what
    value = round(chance.uniform(low, high), 1)
    system = "http://terminology.hl7.org/CodeSystem/observation-category"
    return {
        "resourceType": "Observation", **shared, "status": "final",
        "category": [{"coding": [{"system": system, "code": category, "display": category}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": name}], "text": name},
        "encounter": {"reference": "Encounter/r100"},
        "effectiveDateTime": at.isoformat(), "issued": at.isoformat(),
        "performer": [{"reference": "Practitioner/7", "display": "Nurse Adams"}],
        "valueQuantity": {
            "value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit,
        },
    }  # fmt: skip


def _administration(shared: dict[str, Any], at: datetime, drug: str) -> dict[str, Any]:
    return {
        "resourceType": "MedicationAdministration", **shared, "status": "completed",
        "medicationCodeableConcept": {"text": drug}, "effectiveDateTime": at.isoformat(),
        "dosage": {"text": f"{at.minute % 9 + 1} mL/h"},
    }  # fmt: skip


def _encounter(shared: dict[str, Any], at: datetime) -> dict[str, Any]:
    end = at + timedelta(hours=8)
    return {
        "resourceType": "Encounter", **shared, "status": "finished", "class": {"code": "IMP"},
        "type": [{"text": "Intensive care"}], "period": {"start": at.isoformat(), "end": end.isoformat()},
    }  # fmt: skip


def _note(shared: dict[str, Any], at: datetime, number: int, chance: random.Random) -> dict[str, Any]:
    said = " ".join(f"{chance.choice(SENTENCES)} Shift {number}, item {item}." for item in range(20))
    attachment = {"contentType": "text/plain", "data": b64encode(f"Plan:\n{said}\n".encode()).decode()}
    return {
        "resourceType": "DocumentReference", **shared, "status": "current", "date": at.isoformat(),
        "type": {"text": "Progress note"}, "author": [{"display": "Dr. Adams"}],
        "content": [{"attachment": attachment}],
    }  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
