"""The sidebar's page of a stored summary at 50 concurrent users, beside a bare FastAPI route with its bytes.

Both answer over HTTP from one process on one SQLite database. The bare route reads the same run once and
appends one audit entry; the page reads, as its user, what they may see of the sources now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.fhir.client import FhirClient
from fixtures.servers import SekmetServer, free_port
from service.api.app import create_app
from service.api.cookies import LAUNCH
from service.ports import Action, AuditEntry, RunId, StoredRun
from service.ports.launches import Charts as LaunchCharts
from service.ports.launches import Launch, Tokens
from service.settings import Settings, load_settings
from service.store.launches import SqlLaunches
from service.wiring import open_store, utc_now
from service.wiring.asking import open_said
from service.wiring.engines import open_summarizer
from service.wiring.installation import database_of, open_vault
from service.wiring.launches import open_launches
from service.wiring.ondemand import Serving
from service.wiring.sidebar import open_sidebar
from tests.bench.callers import BARE, COLUMNS, Call, bare_app, call_all, row, serve, serving
from tests.bench.charts import Chart, Charts, post
from tests.bench.table import Row, Table, percent
from tests.browser.bedside import scripted_server
from tests.unit.api.entering import OpenDoor

USERS = 50
PAGES = 100
ROUNDS = 2
PAUSE_S = 10.0
"""How long a reader reads before they open the next page."""
PROCESSES = 2
SCOPE = "launch patient/*.rs user/Practitioner.rs"
SHOWN = "values match the source"
CUT = "could not be checked now"
SPENT = f"{BARE}/spent"
EHR = """
[[ehr]]
name = "{name}"
iss = "{iss}"
client_id = "epicrisis"
frame_ancestors = ["http://127.0.0.1:1"]
allow_plain_http = true
"""


def bench_page(charts: Charts, folder: Path) -> Table:
    """Measure the page over a record server that answers at once, over a real one, and while it warms."""
    with SekmetServer(folder / "sekmet") as sekmet, scripted_server(folder) as engine:
        for data in charts.before:
            post(sekmet, data)
        patient = f"Patient/{post(sekmet, charts.ordinary.data)}"
        sekmet.analyze()
        with serving(_serve_kept, free_port(), sekmet.base_url) as kept:
            places = (f"{kept}/fhir", sekmet.base_url)
            file = folder / "ehrs.toml"
            file.write_text("".join(EHR.format(name=f"ehr-{n}", iss=iss) for n, iss in enumerate(places)))
            settings = load_settings(
                home=folder / "home", ehrs=file, fhir_url=sekmet.base_url, engine_url=engine,
                model="scripted", second_pass="off",
            )  # fmt: skip
            run = asyncio.run(_make(settings, patient))
            seats = [_sit_down(settings, iss, patient, f"ehr-{n}") for n, iss in enumerate(places)]
            for n, iss in reversed([*enumerate(places)]):
                _keep(settings, run, iss, n)
            return _measured(settings, folder, run, seats, charts.ordinary)


def _measured(
    settings: Settings, folder: Path, run: StoredRun, seats: Sequence[Sequence[Call]], chart: Chart
) -> Table:
    table = Table("Sidebar: the page of a stored summary", (*COLUMNS, "CPU ms", "record ms", "cut short"))
    seen = _Seen()
    bare = [Call("GET", BARE, {})]
    at_once, real = seats
    with serving(_serve, free_port(), settings, folder / "page.html", run.run_id, False) as address:
        for some in (real, at_once):  # the first answers may take longer than a reader waits
            asyncio.run(call_all(address, some[:9], 1, seen.has_come))
            asyncio.run(call_all(address, some[9:11], 1, seen.is_whole))
        (folder / "page.html").write_bytes(b"x" * seen.size)
        rounds = ((USERS, PAGES), (1, PAGES // 4))
        for users, calls in rounds:
            turns = [
                ("page, the record answers at once", at_once, seen.has_come),
                ("page, a real record server", real, seen.has_come),
                ("bare route: the same bytes, one read, one audit append", bare, _is_there),
            ]
            table.rows += _compare(address, turns, calls, users, seen)
        calm = _compare(address, turns[1:], PAGES, USERS, seen, PAUSE_S)
        table.rows += [(f"{one[0]}; {PAUSE_S:.0f} s between a reader's pages", *one[1:]) for one in calm]
    table.rows += _together(settings, folder, run, real, seen)
    with serving(_serve, free_port(), settings, folder / "page.html", run.run_id, True) as address:
        turns = [("page that has the chart read ahead", real, seen.has_come)]
        for users, calls in ((USERS, PAGES // 2), (1, PAGES // 8)):
            for one in _compare(address, turns, calls, users, seen):
                table.rows.append((*one[:5], "–", *one[6:7], "–", *one[8:]))
    claims = sum(1 for _ in run.summary.published)
    table.remarks = [
        f"{ROUNDS} × {PAGES} pages each over HTTP (a quarter as many of one user), "
        f"{seen.size / 1024:,.0f} KiB, {claims} statements, of the {chart.work}; {USERS} launches of as many "
        "users, who open one page after the other without a pause where none is named. SQLite, one process "
        "where no other number is named; callers and record server share the machine's cores with it.",
        "`CPU` is the server process's own time for each call, `record` the mean time of a page during which "
        "it waits for the record system: that is asked, as the user, who the patient is and what of the "
        "sources they may read now. `at once` is a server that gives the real one's answers out of its "
        "memory. Launches stand in the store; the tests' OAuth gateway is not between: it would be what is "
        "measured.",
        "`cut short` are pages that said of some sources that they could not be checked in time.",
        "Read ahead, as an installation has it: every page opened also pulls the chart and has the engine "
        "(scripted) read it. That is in its figures where it falls into the same seconds.",
    ]
    return table


@dataclass
class _Seen:
    """What pages hold, and how often not all of it because time ran out."""

    size: int = 0
    cut: int = 0

    def has_come(self, answer: httpx.Response) -> bool:
        """Tell whether the page came; one that is not whole is counted."""
        self.size = max(self.size, len(answer.content))
        self.cut += not self.is_whole(answer)
        return answer.status_code == 200

    def is_whole(self, answer: httpx.Response) -> bool:
        """Tell whether the page shows all that its user may read, which is everything."""
        return answer.status_code == 200 and SHOWN in answer.text and CUT not in answer.text


def _together(
    settings: Settings, folder: Path, run: StoredRun, real: Sequence[Call], seen: _Seen
) -> list[Row]:
    """Measure the page with several processes behind one port, each with a first page behind it."""
    served = (_serve, free_port(), settings, folder / "page.html", run.run_id, False)
    with serving(*served, processes=PROCESSES) as address:
        asyncio.run(call_all(address, [real[n % USERS] for n in range(USERS)], 9, seen.has_come))
        cut, taken = seen.cut, list[float]()
        for _ in range(ROUNDS):
            ready = [real[n % USERS] for n in range(PAGES)]
            taken += asyncio.run(call_all(address, ready, USERS, seen.has_come))
        name = f"page, a real record server, {PROCESSES} processes"
        short = percent((seen.cut - cut) / len(taken))
        return [(*row(name, USERS, taken, taken)[:5], "–", "–", "–", short)]


Turn = tuple[str, Sequence[Call], Callable[[httpx.Response], bool]]


def _compare(
    address: str, turns: Sequence[Turn], calls: int, users: int, seen: _Seen, pause_s: float = 0.0
) -> list[Row]:
    """Measure all in turns; the last is the bare one."""
    taken = [list[float]() for _ in turns]
    spent, cut = [_Spent() for _ in turns], [0 for _ in turns]
    for _ in range(ROUNDS):
        for n, (_, kinds, is_good) in enumerate(turns):
            ready = [kinds[k % len(kinds)] for k in range(calls)]
            before, cut_before = _spent(address), seen.cut
            taken[n] += asyncio.run(call_all(address, ready, users, is_good, pause_s))
            spent[n] = spent[n].plus(_spent(address), before)
            cut[n] += seen.cut - cut_before
    rows = []
    for (name, _, _), times_taken, cost, short in zip(turns, taken, spent, cut, strict=True):
        each = 1000 / len(times_taken)
        figures = (
            f"{cost.cpu_s * each:.1f}",
            f"{cost.record_s * each:.1f}",
            percent(short / len(times_taken)),
        )
        rows.append((*row(name, users, times_taken, taken[-1]), *figures))
    return rows


def _is_there(answer: httpx.Response) -> bool:
    return answer.status_code == 200


@dataclass
class _Spent:
    """What a server's process has spent: its own work, and pages' waiting for the record."""

    cpu_s: float = 0.0
    record_s: float = 0.0

    def plus(self, now: _Spent, before: _Spent) -> _Spent:
        """Return this and what was spent between two looks."""
        return _Spent(self.cpu_s + now.cpu_s - before.cpu_s, self.record_s + now.record_s - before.record_s)


def _spent(address: str) -> _Spent:
    return _Spent(**httpx.get(f"{address}{SPENT}", trust_env=False).json())


@dataclass(frozen=True)
class _Watched:
    """Charts, and how long pages wait for their server: while at least one request of a page is out."""

    charts: LaunchCharts
    spent: _Spent

    @asynccontextmanager
    async def open(self, launch: Launch) -> AsyncIterator[FhirClient]:
        """Open a chart as its user."""
        out, since = 0, 0.0

        async def ask(request: httpx.Request) -> None:
            nonlocal out, since
            since = since if out else time.perf_counter()
            out += 1

        async def hear(response: httpx.Response) -> None:
            nonlocal out
            out -= 1
            self.spent.record_s += 0.0 if out else time.perf_counter() - since

        async with self.charts.open(launch) as client:
            client.session.wire.event_hooks = {"request": [ask], "response": [hear]}
            yield client


def _serve(port: int, settings: Settings, body: Path, run_id: RunId, warms: bool) -> None:
    store, audit = open_store(settings)
    plugged = Serving(settings, store, audit, open_vault(settings))
    launching = open_launches(settings, audit)
    assert launching is not None
    said = open_said(settings, store, audit, plugged, launching)

    async def ask(run: StoredRun, actor: str) -> Any:
        raise NotImplementedError

    room = open_sidebar(settings, store, audit, plugged, launching, said, ask)
    spent = _Spent()
    if not warms:
        room.charts = _Watched(room.charts, spent)
        room._warm = lambda launch, kind: None  # type: ignore[method-assign]
    assert said.room is not None
    app = create_app(
        store=store, audit=audit, clock=utc_now, access=OpenDoor(), allowed_hosts=("127.0.0.1",), version="0",
        rooms=(launching.door, said.room, room), launched=launching.door, closing=(plugged.aclose,),
        feedback=said.feedback, feedbacks=said.feedbacks,
    )  # fmt: skip

    def record() -> None:
        run = store.get(run_id)
        assert run is not None
        inputs = run.inputs
        audit.append(
            AuditEntry(
                Action.VIEW, "system:bench", inputs.patient, utc_now(), run_id=run_id, server=inputs.server
            )
        )

    bare = bare_app(record, body.read_bytes, "text/html")
    bare.add_api_route(
        SPENT, lambda: {"cpu_s": time.process_time(), "record_s": spent.record_s}, methods=["GET"]
    )
    serve(port, app, bare)


def _serve_kept(port: int, upstream: str) -> None:
    """Give another server's answers, each asked for once."""
    kept: dict[str, Response] = {}

    async def answer(request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        address = f"{upstream}/{request.path_params['path']}{query}"
        if address not in kept:
            async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
                found = await client.get(address, headers={"accept-encoding": "identity"})
            content = found.content.replace(upstream.encode(), f"http://127.0.0.1:{port}/fhir".encode())
            kept[address] = Response(
                content, found.status_code, {"content-type": found.headers["content-type"]}
            )
        return kept[address]

    app = Starlette(routes=[Route("/fhir/{path:path}", answer)])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


async def _make(settings: Settings, patient: str) -> StoredRun:
    """Have the system make the summary, with the engine that has no model."""
    async with open_summarizer(settings, None, lambda stage, detail: None) as summarizer:
        run_id = (await summarizer.summarize(patient.removeprefix("Patient/"), dry_run=True)).run_id
    store, audit = open_store(settings)
    run = store.get(RunId(run_id))
    store.close()
    audit.close()
    assert run is not None
    return run


def _keep(settings: Settings, run: StoredRun, iss: str, number: int) -> None:
    """Keep a run as one of another server's."""
    store, audit = open_store(settings)
    try:
        inputs = replace(run.inputs, server=iss, key=f"{run.inputs.key[:-1]}{number}")
        store.save(replace(run, run_id=RunId(f"{run.run_id}-{number}"), inputs=inputs, created_at=utc_now()))
    finally:
        store.close()
        audit.close()


def _sit_down(settings: Settings, iss: str, patient: str, ehr: str) -> list[Call]:
    """Launch every user, and return the address of each one's page."""
    launches, now = SqlLaunches(*database_of(settings)), utc_now()
    calls = []
    for n in range(USERS):
        visit, browser = f"{ehr}-{n:02}".ljust(22, "v"), f"{ehr}-{n:02}".ljust(43, "s")
        launch = Launch(
            visit=visit, ehr=ehr, server=iss, patient=patient, encounter="", actor=f"user:{n}",
            fhir_user=f"Practitioner/{n}", scope=SCOPE, access_profile=f"user:{ehr}-{n}", needs_banner=True,
            context={}, messaging=("", ""), tokens=Tokens(f"token-{n}", "", now + timedelta(hours=2)),
        )  # fmt: skip
        launches.put_launch(browser, launch, now)
        calls.append(Call("GET", f"/sidebar?visit={visit}", {"cookie": f"{LAUNCH}={browser}"}))
    launches.close()
    return calls
