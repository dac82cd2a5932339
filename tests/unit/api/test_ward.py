from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from fixtures.sample_run import sample_run
from service.api.app import create_app
from service.api.ward import ORDER, WORDS, Timed, Ward
from service.ports import Action, Admission, RunId, Standing, Tick
from service.scheduler import hand_tick
from service.store.cipher import Cipher
from service.store.sweeps import SqlAdmissions
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.api.markup import Markup

NOW = datetime(2026, 11, 28, 6, 0, tzinfo=UTC)
EHR = "https://ehr.example.org/fhir"
HERE = {"sec-fetch-site": "same-origin"}
RUN = sample_run()


@dataclass
class Site:
    store: SqlAdmissions
    client: httpx.AsyncClient
    audit: InMemoryAudit

    def admit(self, standing: Standing, number: int = 1, **more: object) -> None:
        one = Admission(f"a{number}", EHR, "Patient/1", f"Encounter/{number}", standing=standing, since=NOW)
        self.store.put_admission(replace(one, **more))  # type: ignore[arg-type]

    async def page(self) -> Markup:
        return Markup((await self.client.get("/ward")).text)

    async def post(self, path: str, **headers: str) -> int:
        return (await self.client.post(path, headers=headers or HERE)).status_code


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    store = SqlAdmissions(f"sqlite:///{tmp_path}/e.db", Cipher.from_file(tmp_path / "key"), lambda: NOW)
    timed = [Timed("morning", "30 5 * * *", "Europe/Berlin", NOW + timedelta(hours=1))]
    names = {RunId(RUN.run_id): RUN.summary.identity.name}
    audit = InMemoryAudit()
    ward = Ward(store, EHR, lambda runs: names, lambda: timed, hand_tick, lambda: NOW, "0.1.0", audit)
    app = create_app(
        store=InMemoryStore(RUN), audit=audit, access=OpenDoor(), clock=lambda: NOW,
        allowed_hosts=("127.0.0.1",), version="0.1.0", ward=ward,
    )  # fmt: skip
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1")
    yield Site(store, client, audit)
    store.close()


async def test_what_is_wrong_stands_first(site: Site) -> None:
    for number, standing in enumerate(reversed(ORDER)):
        site.admit(standing, number)
    words = (await site.page()).words
    places = [words.rindex(f" {WORDS[standing]} since") for standing in ORDER]
    assert places == sorted(places)
    assert "5 stays in progress, as of 28-Nov-2026 06:00 UTC: 1 failed, 1 not made yet" in words


async def test_a_row_says_since_when_and_why_and_leads_to_the_summary(site: Site) -> None:
    site.admit(Standing.FAILED, reason="timeout", run_id=RUN.run_id, checked_at=NOW - timedelta(days=1))
    page = await site.page()
    assert RUN.summary.identity.name in page.words
    assert "Failed since 28-Nov-2026 06:00 UTC The record system did not answer in time." in page.words
    assert "Chart last checked 27-Nov-2026 06:00 UTC" in page.words
    assert f'href="/runs/{RUN.run_id}"' in (await site.client.get("/ward")).text


async def test_without_a_summary_no_name_is_known(site: Site) -> None:
    site.admit(Standing.MISSING)
    assert "Name not read yet" in (await site.page()).words


async def test_those_who_left_and_those_of_another_server_are_not_shown(site: Site) -> None:
    site.admit(Standing.ENDED)
    site.admit(Standing.FRESH, 2, server="https://other.example.org/fhir")
    assert "Nobody is known to be admitted" in (await site.page()).words


async def test_a_schedule_is_paused_and_goes_on(site: Site) -> None:
    assert await site.post("/ward/schedules/morning/pause") == 303
    assert "Paused by user:local since 28-Nov-2026 06:00 UTC" in (await site.page()).words
    assert await site.post("/ward/schedules/morning/resume") == 303
    assert "Next 28-Nov-2026 07:00 UTC" in (await site.page()).words


@pytest.mark.parametrize("act", ["pause", "resume", "run"])
async def test_what_is_done_to_a_schedule_is_on_record_and_what_cannot_be_is_not_done(
    site: Site, act: str
) -> None:
    assert await site.post(f"/ward/schedules/morning/{act}") == 303
    recorded = [(entry.action, entry.actor, entry.target) for entry in site.audit.entries]
    assert recorded == [(Action.CONFIGURE, "user:local", f"schedule:morning:{act}")]
    paused, tick = site.store.paused(), site.store.last_tick("morning")
    site.audit.break_down()
    assert await site.post("/ward/schedules/morning/pause") == 503
    assert (site.store.paused(), site.store.last_tick("morning")) == (paused, tick)


async def test_a_pass_that_is_asked_for_waits_for_the_scheduler(site: Site) -> None:
    assert await site.post("/ward/schedules/morning/run") == 303
    tick = site.store.last_tick("morning")
    assert tick is not None
    assert tick.finished_at is None
    assert "At work since 28-Nov-2026 06:00 UTC" in (await site.page()).words


async def test_the_last_pass_is_told_in_counts(site: Site) -> None:
    site.store.begin_tick(Tick("morning@1", "morning", NOW))
    site.store.end_tick("morning@1", NOW, {"runs": 3, "unchanged": 4, "failed": 1})
    assert "ended 28-Nov-2026 06:00 UTC: 3 filed anew, 4 unchanged, 1 failed." in (await site.page()).words


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"x-nothing": "1"},
    ],
)
async def test_a_form_from_elsewhere_changes_nothing(site: Site, headers: dict[str, str]) -> None:
    assert await site.post("/ward/schedules/morning/pause", **headers) == 403
    assert site.store.paused() == {}


async def test_a_browser_without_fetch_metadata_is_known_by_its_origin(site: Site) -> None:
    assert await site.post("/ward/schedules/morning/pause", origin="http://127.0.0.1") == 303
    assert "morning" in site.store.paused()


@pytest.mark.parametrize("path", ["/ward/schedules/evening/pause", "/ward/schedules/morning/delete"])
async def test_what_is_not_there_is_not_changed(site: Site, path: str) -> None:
    assert await site.post(path) in (400, 404)
    assert site.store.paused() == {}
