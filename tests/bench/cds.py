"""The card of a stored summary at 50 concurrent callers, beside a bare FastAPI route with the same bytes.

Both answer over HTTP from a process of their own, on one SQLite database. The bare route reads the same run
once and appends one audit entry; ours checks a signed token that no other call may use again, reads what is
stopped and where the document stands, compares a whole prefetch, and appends the same entry.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import uvicorn
from fastapi import FastAPI

from fixtures.servers import free_port
from service.api.app import create_app
from service.api.cds.rate import Rate
from service.ports import Action, AuditEntry, AuditLog, FilingStore, StoredRun
from service.record.facts import FactId
from service.settings import Settings, load_settings
from service.store.sweeps import SqlAdmissions
from service.wiring import open_store, utc_now
from service.wiring.cds import open_cds
from service.wiring.installation import database_of
from tests.bench.callers import BARE, COLUMNS, Call, bare_app, call_all, row, serve, serving
from tests.bench.table import Row, Table
from tests.integration.cds.conftest import EHRS
from tests.unit.api.cds.ehr import ISS, RUN, VIEW, jwks, token, whole_prefetch
from tests.unit.api.entering import OpenDoor

CALLERS = 50
CALLS = 400
ROUNDS = 3
FACTS = 400
"""Facts of the run: what the summary of an ordinary chart holds with its evidence."""
PATH = f"/cds-services/{VIEW}"
FHIR = "http://127.0.0.1:1/fhir"


def bench_cds(folder: Path) -> Table:
    """Measure both in turns, and return the table."""
    home, keys = folder / "home", free_port()
    file = folder / "ehrs.toml"
    file.write_text(EHRS.format(fhir=FHIR, root=f"http://127.0.0.1:{keys}"))
    settings = load_settings(home=home, ehrs=file, fhir_url=FHIR)
    run = _save_run(settings)
    size_kib = len(msgspec.json.encode(run)) / 1024
    with serving(_serve_keys, keys, jwks()), serving(_serve, free_port(), home, file) as address:
        asyncio.run(_ask(address, PATH, CALLERS, CALLERS))  # keys and data keys are known afterwards
        rows = [row for callers in (CALLERS, 1) for row in _compare(address, callers)]
    remark = (
        f"{ROUNDS} × {CALLS:,} calls each over HTTP (a quarter as many of one caller), a whole prefetch; "
        f"a stored run of {size_kib:,.0f} KiB with {FACTS} facts; SQLite, one process, no model."
    )
    return Table("CDS Hooks", COLUMNS, rows, [remark])


def _compare(address: str, callers: int) -> list[Row]:
    """Measure both in turns."""
    calls = CALLS if callers > 1 else CALLS // 4
    ours, bare = list[float](), list[float]()
    for _ in range(ROUNDS):
        ours += asyncio.run(_ask(address, PATH, calls, callers))
        bare += asyncio.run(_ask(address, BARE, calls, callers))
    name = "bare route: the same bytes, one read, one audit append"
    return [row("CDS card", callers, ours, bare), row(name, callers, bare, bare)]


async def _ask(address: str, path: str, calls: int, callers: int) -> list[float]:
    """Return the seconds that each call took. Tokens are signed before."""
    said = {
        "hook": "patient-view", "fhirServer": FHIR, "prefetch": whole_prefetch(),
        "context": {"userId": "Practitioner/7", "patientId": "1"},
    }  # fmt: skip
    ready = [
        Call(
            "POST", path, {"authorization": f"Bearer {_token(address)}"},
            msgspec.json.encode({**said, "hookInstance": str(uuid4())}),
        )
        for _ in range(calls)
    ]  # fmt: skip
    return await call_all(address, ready, callers, lambda answer: len(answer.json()["cards"]) == 1)


def _token(address: str) -> str:
    now = time.time()
    said = {
        "iss": ISS, "aud": f"{address}/cds-services/{VIEW}", "iat": now, "exp": now + 900,
        "jti": str(uuid4()),
    }  # fmt: skip
    return token(said, jku=None)


def _save_run(settings: Settings) -> StoredRun:
    facts = RUN.summary.facts
    more = [
        replace(facts[n % len(facts)], id=FactId(f"{facts[n % len(facts)].id}-{n}"))
        for n in range(FACTS - len(facts))
    ]
    summary = replace(RUN.summary, facts=(*facts, *more))
    run = replace(RUN, summary=summary, inputs=replace(RUN.inputs, server=FHIR))
    store, audit = open_store(settings)
    store.save(run)
    store.finish(run.run_id, run.state, run.document)
    store.close()
    audit.close()
    return run


def _serve(port: int, home: Path, file: Path) -> None:
    settings = load_settings(home=home, ehrs=file, fhir_url=FHIR)
    store, audit = open_store(settings)
    admissions = SqlAdmissions(*database_of(settings), utc_now)
    cds = open_cds(settings, store, admissions, audit, FHIR)
    assert cds is not None
    cds.rate = Rate(time.monotonic, per_s=1e9, burst=1e9)
    app = create_app(
        store=store, audit=audit, clock=utc_now, access=OpenDoor(), allowed_hosts=("127.0.0.1",), version="0",
        rooms=(cds,),
    )  # fmt: skip
    serve(port, app, _bare(store, audit))


def _bare(store: FilingStore, audit: AuditLog) -> FastAPI:
    """One read, one audit append, the bytes of a card."""
    card = msgspec.json.encode({"cards": [{"summary": "x" * 1_150}]})

    def record() -> None:
        run = store.get(RUN.run_id)
        assert run is not None
        patient = run.inputs.patient
        audit.append(
            AuditEntry(Action.VIEW, "system:bench", patient, utc_now(), run_id=run.run_id, server=FHIR)
        )

    return bare_app(record, lambda: card, "application/json")


def _serve_keys(port: int, keys: dict[str, Any]) -> None:
    app = FastAPI(openapi_url=None)
    app.add_api_route("/jwks.json", lambda: keys, methods=["GET"])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)
