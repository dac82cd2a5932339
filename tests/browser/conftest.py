"""A real browser on the real pages: uvicorn on a free port, Chromium with nothing that calls home."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from fixtures.sample_run import CREATED, sample_run
from service.api.app import create_app
from service.api.ward import Timed, Ward
from service.ports import Admission, RunId, RunState, Standing, StoredRun
from service.scheduler import hand_tick
from service.store.cipher import Cipher
from service.store.sweeps import SqlAdmissions
from tests.conftest import ROOT, missing
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore

CHROMIUM = Path("/usr/bin/chromium")
AXE = ROOT / "tests/node/node_modules/axe-core/axe.min.js"
QUIET = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

EHR = "https://ehr.example.org/fhir"
WIDE = ViewportSize(width=1280, height=800)
NARROW = ViewportSize(width=360, height=640)


def long_names() -> StoredRun:
    """A run whose every word is longer than a phone is wide."""
    run = sample_run(run_id="long")
    endless = "Hydroxychloroquinesulfate" * 12
    facts = tuple(
        replace(fact, text=f"{endless}: {fact.text}", body=endless * 3) for fact in run.summary.facts
    )
    identity = replace(run.summary.identity, name=endless, record_number="9" * 90)
    sections = tuple(
        replace(section, title=endless, claims=tuple(replace(c, text=endless) for c in section.claims))
        for section in run.summary.sections
    )
    summary = replace(run.summary, identity=identity, facts=facts, sections=sections)
    return replace(run, summary=summary)


def a_ward(folder: Path) -> Ward:
    """A ward with a stay of each standing, and a schedule that is paused beside one that is not."""
    store = SqlAdmissions(f"sqlite:///{folder}/e.db", Cipher.from_file(folder / "key"), lambda: CREATED)
    for number, (standing, reason) in enumerate(
        [
            (Standing.FRESH, ""), (Standing.SKIPPED, "opted_out_by_flag"), (Standing.STALE, ""),
            (Standing.MISSING, ""), (Standing.FAILED, "timeout"),
        ]
    ):  # fmt: skip
        run = "" if standing is Standing.MISSING else "filed"
        store.put_admission(
            Admission(
                f"a{number}", EHR, "Patient/1", f"Encounter/{number}" + "9" * 50,
                location=f"Location/{number}", standing=standing, reason=reason, since=CREATED,
                checked_at=CREATED if run else None, run_id=run,
            )
        )  # fmt: skip
    store.pause("handover", True, "user:local", CREATED)
    timed = [
        Timed("morning", "30 5 * * *", "Europe/Berlin", CREATED),
        Timed("handover", "0 13 * * *", "UTC", None),
    ]
    names = {RunId("filed"): sample_run().summary.identity.name}
    return Ward(
        store,
        EHR,
        lambda runs: names,
        lambda: timed,
        hand_tick,
        lambda: CREATED + timedelta(minutes=5),
        "0.1.0",
        InMemoryAudit(),
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the pages with a few runs in each state."""
    store = InMemoryStore(
        sample_run(run_id="filed"),
        sample_run(run_id="part", state=RunState.INCOMPLETE, incomplete=True),
        sample_run(run_id="dead", state=RunState.DRY, deceased=True),
        long_names(),
    )
    app = create_app(
        store=store,
        audit=InMemoryAudit(),
        access=OpenDoor(),
        clock=lambda: CREATED + timedelta(minutes=5),
        allowed_hosts=("127.0.0.1",),
        version="0.1.0",
        ward=a_ward(tmp_path_factory.mktemp("ward")),
    )
    with running(app) as address:
        yield address


@contextmanager
def running(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Serve an application on loopback; yield its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)
    listener.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        missing("Chromium at /usr/bin/chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(QUIET))
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """One open page, and everything that the browser complained of meanwhile."""

    page: Page
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)


Open = Callable[..., Visit]


@pytest.fixture
def open_page(browser: Browser, site: str) -> Iterator[Open]:
    """Open a path in a fresh context; the test fails if the browser complained, CSP violations included."""
    visits: list[Visit] = []

    def visit(path: str, *, narrow: bool = False, scheme: str = "light", **more: Any) -> Visit:
        context = browser.new_context(
            viewport=NARROW if narrow else WIDE,
            color_scheme="dark" if scheme == "dark" else "light",
            has_touch=narrow,
            is_mobile=narrow,
            base_url=site,
            **more,
        )
        opened = Visit(context.new_page(), context)
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("requestfailed", lambda request: opened.complaints.append(f"failed {request.url}"))
        opened.page.goto(path)
        visits.append(opened)
        return opened

    yield visit
    complaints = [complaint for opened in visits for complaint in opened.complaints]
    for opened in visits:
        opened.context.close()
    assert complaints == []
