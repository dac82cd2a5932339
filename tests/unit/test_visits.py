"""One visit, over doubles: what is made, what is left, and what a crash between two steps may repeat."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from connectors.errors import (
    ConnectorError,
    Forbidden,
    RequestRejected,
    ServerFailed,
    Throttled,
    TimedOut,
    UnknownPatient,
)
from connectors.fhir.pull import Gap, GapReason
from fixtures.answers import copy_lines
from fixtures.facts import NOW
from service.engine.counted import CountedEngine
from service.engine.scripted import ScriptedEngine
from service.errors import EngineError, EpicrisisError, FilingError, RecordError, SettingsError, StoreError
from service.filing.withdraw import DISCHARGED, EXPIRED
from service.imaging.picture import Picture
from service.ports import Admission, DocumentState, Standing, StoredRun
from service.ports.images import ImageUse, Unseen
from service.readings import Images
from service.summarize import Ready
from service.visits import MOST_KEPT, OUTDATED, Everyone, Visits, concluded, may_pass
from tests.conftest import CANARY
from tests.unit.in_memory_admissions import InMemoryAdmissions
from tests.unit.in_memory_vault import InMemoryVault
from tests.unit.test_image_runs import DIGEST, MISSED, SHOWN, STUDY, Source
from tests.unit.test_staleness import Chart, allergy, observation
from tests.unit.test_summarize import Bench, Filed

STAY = {
    "resourceType": "Encounter", "id": "9", "status": "in-progress", "class": {"code": "IMP"},
    "subject": {"reference": "Patient/1"}, "period": {"start": "2026-11-20T08:00:00Z"},
}  # fmt: skip
KIND = "history"


class Shelf(Chart):
    """An EHR that gives each document a number of its own."""

    async def file(self, bundle: dict[str, Any]) -> Filed:
        filed = await super().file(bundle)
        document = f"DocumentReference/{len(self.written)}/_history/1"
        return replace(filed, document=document)


@dataclass
class Fence(Everyone):
    """Leaves out whom a test says."""

    why_before: str = ""
    why_after: str = ""

    async def before(self, admission: Admission) -> str:
        return self.why_before

    def after(self, admission: Admission, ready: Ready) -> str:
        return self.why_after


@dataclass
class Round:
    """Visits over one chart in one stay."""

    chart: Chart = field(default_factory=Shelf)
    fence: Fence = field(default_factory=Fence)
    keeps: bool = False
    vault: InMemoryVault = field(default_factory=InMemoryVault)
    failures: tuple[EngineError, ...] = ()
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.chart.more = [STAY]
        self.scripted = ScriptedEngine(copy_lines, failures=self.failures)
        self.bench = Bench(self.chart, self.scripted, vault=self.vault)
        self.bench.summarizer._engine = CountedEngine(self.scripted)
        self.admissions = InMemoryAdmissions()
        self.admissions.put_admission(Admission("a1", self.chart.base_url, "Patient/1", "Encounter/9"))
        self.visits = self.process()

    def process(self) -> Visits:
        """Another process at work on the same store."""
        return Visits(
            self.bench.summarizer, self.chart, self.admissions, self.bench.store, self.fence,
            lambda: self.now, keeps=self.keeps,
        )  # fmt: skip

    async def visit(self) -> dict[str, Any]:
        """Do what the durable visit does, without a crash between."""
        found = await self.visits.read("a1", KIND)
        if "key" not in found:
            return dict(found.get("outcome", found))
        made = await self.visits.draft("a1", KIND, found["key"])
        if "run" not in made:
            return dict(made)
        filed = await self.visits.file("a1", KIND, made["run"])
        outcome: dict[str, Any] = filed["outcome"]
        return await self.visits.conclude("a1", {**outcome, "engine_calls": made["engine_calls"]})

    @property
    def admission(self) -> Admission:
        return self.admissions.stays["a1"]

    @property
    def run(self) -> StoredRun:
        """The newest run."""
        return self.bench.store.runs[-1]

    def withdraw(self, reason: str) -> None:
        """Take the newest document back."""
        row = next(reversed(self.bench.store.filed.values()))
        self.bench.store.put_document(replace(row, state=DocumentState.WITHDRAWN, reason=reason))
        self.chart.documents.clear()


async def test_a_chart_is_read_drafted_filed_and_the_admission_is_fresh() -> None:
    one = Round()
    outcome = await one.visit()
    assert outcome["state"] == "filed"
    assert outcome["engine_calls"] == len(one.scripted.prompts) > 0
    assert len(one.chart.written) == 1
    assert (one.admission.standing, one.admission.run_id) == (Standing.FRESH, outcome["run"])
    assert (one.admission.checked_at, one.admission.tried_at, one.admission.since) == (NOW, NOW, NOW)
    assert one.run.inputs.encounter == "Encounter/9"


async def test_an_unchanged_chart_asks_the_engine_nothing_and_moves_checked_at() -> None:
    one = Round()
    first = await one.visit()
    calls, one.now = len(one.scripted.prompts), NOW + timedelta(hours=12)
    found = await one.visits.read("a1", KIND)
    assert found["outcome"] == {"state": "unchanged", "run": first["run"]}
    await one.visits.conclude("a1", found["outcome"])
    assert len(one.scripted.prompts) == calls
    assert len(one.chart.written) == 1
    assert one.admission.checked_at == one.now
    assert one.admission.since == NOW


async def test_a_change_that_touches_nothing_required_or_cited_is_no_new_run() -> None:
    one = Round()
    first = await one.visit()
    one.chart.more = [STAY, observation("new")]
    assert await one.visit() == {"state": "unchanged", "run": first["run"]}
    assert len(one.bench.store.runs) == 1


@pytest.mark.parametrize("more", [allergy("new"), observation("u2", code={"text": "Urate"})])
async def test_a_change_of_what_is_required_or_cited_is_a_new_run(more: dict[str, Any]) -> None:
    one = Round()
    first = await one.visit()
    one.chart.more = [STAY, more]
    second = await one.visit()
    assert second["state"] == "filed"
    assert second["run"] != first["run"]


async def test_an_immaterial_change_is_a_new_run_where_the_document_is_not_there_any_more() -> None:
    one = Round()
    await one.visit()
    one.chart.documents.clear()
    one.chart.more = [STAY, observation("new")]
    assert (await one.visit())["state"] == "filed"
    assert len(one.bench.store.runs) == 2


@pytest.mark.parametrize("reason", [EXPIRED, DISCHARGED, OUTDATED])
async def test_a_draft_that_lapsed_is_made_anew_from_the_same_chart(reason: str) -> None:
    one = Round()
    first = await one.visit()
    for attempt in (2, 3):
        one.withdraw(reason)
        again = await one.visit()
        assert again["state"] == "filed"
        assert again["run"] != first["run"]
        assert one.run.inputs.attempt == attempt


def seen(one: Round, *pictures: Picture, unseen: tuple[Unseen, ...] = ()) -> None:
    """What an archive shows from now on."""
    one.chart.more = [STAY, STUDY]
    one.bench.summarizer._images = Images(Source(*pictures, unseen=unseen), ImageUse.SHOW, 8)


AWAY = replace(MISSED, why="the image archive cannot be reached", is_for_now=True)
AWAY_OTHERWISE = replace(MISSED, why="the image archive did not answer in time", is_for_now=True)


async def test_a_text_with_pictures_stands_while_their_archive_is_away() -> None:
    one = Round()
    seen(one, SHOWN)
    first = await one.visit()
    calls = len(one.scripted.prompts)
    for missed in (AWAY, AWAY_OTHERWISE):
        seen(one, unseen=(missed,))
        assert await one.visit() == {"state": "unchanged", "run": first["run"]}
    assert (len(one.chart.written), len(one.scripted.prompts)) == (1, calls)
    assert [run.inputs.images for run in one.bench.store.runs] == [(DIGEST,)]


async def test_an_archive_that_comes_back_is_a_new_run_and_one_that_goes_again_is_none() -> None:
    one = Round()
    seen(one, unseen=(AWAY,))
    first = await one.visit()
    seen(one, unseen=(AWAY_OTHERWISE,))
    assert await one.visit() == {"state": "unchanged", "run": first["run"]}
    seen(one, SHOWN)
    second = await one.visit()
    assert second["state"] == "filed"
    assert one.run.inputs.images == (DIGEST,)
    seen(one, unseen=(AWAY,))
    assert await one.visit() == {"state": "unchanged", "run": second["run"]}
    assert len(one.bench.store.runs) == 2


@pytest.mark.parametrize("missed", [MISSED, replace(MISSED, why="the image names another patient")])
async def test_pictures_that_are_gone_for_good_are_a_new_run(missed: Unseen) -> None:
    one = Round()
    seen(one, SHOWN)
    await one.visit()
    seen(one, unseen=(missed,))
    assert (await one.visit())["state"] == "filed"
    assert len(one.bench.store.runs) == 2


async def test_an_archive_that_is_away_hides_no_change_of_the_chart() -> None:
    one = Round()
    seen(one, SHOWN)
    await one.visit()
    seen(one, unseen=(AWAY,))
    one.chart.more = [*one.chart.more, allergy("new")]
    assert (await one.visit())["state"] == "filed"
    assert any(left.reason == f"not seen: {AWAY.why}" for left in one.run.summary.left_out)


async def test_more_pictures_than_before_are_a_new_run_though_others_are_away() -> None:
    one = Round()
    seen(one, unseen=(AWAY,))
    await one.visit()
    seen(one, SHOWN, unseen=(AWAY,))
    assert (await one.visit())["state"] == "filed"


async def test_what_a_person_withdrew_is_not_filed_again_and_says_so() -> None:
    one = Round()
    await one.visit()
    one.withdraw("Wrong patient.")
    outcome = await one.visit()
    assert outcome == {"state": "skipped", "reason": "withdrawn"}
    await one.visits.conclude("a1", outcome)
    assert (one.admission.standing, one.admission.reason) == (Standing.SKIPPED, "withdrawn")
    assert len(one.bench.store.runs) == 1


async def test_an_incomplete_chart_is_stored_not_filed_and_skipped_as_such() -> None:
    one = Round(Chart((Gap("AllergyIntolerance", GapReason.REFUSED),)))
    assert (await one.visit())["reason"] == "incomplete"
    assert one.chart.written == []
    calls = len(one.scripted.prompts)
    assert (await one.visit())["reason"] == "incomplete"
    assert len(one.scripted.prompts) == calls
    assert one.admission.standing is Standing.SKIPPED


@pytest.mark.parametrize("side", ["why_before", "why_after"])
async def test_who_is_left_out_costs_nothing(side: str) -> None:
    one = Round()
    setattr(one.fence, side, "minor")
    assert await one.visit() == {"state": "skipped", "reason": "minor"}
    assert len(one.chart.known) == (side == "why_after")
    assert one.scripted.prompts == []


async def test_a_site_that_files_attested_texts_only_makes_one_run_and_waits() -> None:
    one = Round(keeps=True)
    found = await one.visits.read("a1", KIND)
    made = await one.visits.draft("a1", KIND, found["key"])
    found = await one.visits.read("a1", KIND)
    assert found["outcome"] == {"state": "unchanged", "run": made["run"]}


async def test_a_document_that_another_store_filed_is_found_before_anything_is_made() -> None:
    one = Round()
    found = await one.visits.read("a1", KIND)
    one.chart.documents[found["key"]] = "DocumentReference/7/_history/1"
    found = await one.visits.read("a1", KIND)
    assert found["outcome"]["state"] == "unchanged"
    assert one.bench.store.runs == []


async def test_a_draft_that_is_asked_for_twice_is_made_once() -> None:
    one = Round()
    key = (await one.visits.read("a1", KIND))["key"]
    first = await one.visits.draft("a1", KIND, key)
    calls = len(one.scripted.prompts)
    again = await one.process().draft("a1", KIND, key)
    assert again == {"run": first["run"], "requests": 0, "engine_calls": 0}
    assert len(one.scripted.prompts) == calls


async def test_a_run_that_another_process_takes_up_uses_the_chart_as_it_was_read() -> None:
    one = Round()
    key = (await one.visits.read("a1", KIND))["key"]
    reads = len(one.chart.known)
    made = await one.process().draft("a1", KIND, key)
    assert "run" in made
    assert len(one.chart.known) == reads


async def test_a_chart_that_was_read_anew_meanwhile_has_moved() -> None:
    one = Round()
    key = (await one.visits.read("a1", KIND))["key"]
    one.chart.more = [STAY, allergy("new")]
    await one.process().read("a1", KIND)
    assert (await one.process().draft("a1", KIND, key))["moved"] is True


async def test_a_chart_that_is_kept_no_more_is_read_again_by_the_next_try() -> None:
    one = Round()
    key = (await one.visits.read("a1", KIND))["key"]
    one.vault.kept.clear()
    assert await one.process().draft("a1", KIND, key) == {
        "failed": "store", "again": True, "requests": 0, "engine_calls": 0,
    }  # fmt: skip


async def test_no_more_charts_than_a_few_wait_in_memory() -> None:
    one = Round()
    for number in range(MOST_KEPT + 5):
        one.chart.more = [STAY, allergy(f"a{number}")]
        await one.visits.read("a1", KIND)
    assert len(one.visits._ready) == MOST_KEPT


async def test_a_write_that_failed_is_filed_with_the_same_bytes() -> None:
    one = Round()
    one.chart.failures.append(ServerFailed("The server failed."))
    key = (await one.visits.read("a1", KIND))["key"]
    run = (await one.visits.draft("a1", KIND, key))["run"]
    assert (await one.visits.file("a1", KIND, run))["failed"] == "server_failed"
    assert (await one.visits.file("a1", KIND, run))["outcome"]["state"] == "filed"
    assert one.chart.written[0] == one.chart.written[1]


async def test_a_stay_that_ended_meanwhile_is_neither_drafted_nor_filed() -> None:
    one = Round()
    key = (await one.visits.read("a1", KIND))["key"]
    run = (await one.visits.draft("a1", KIND, key))["run"]
    one.admissions.stays["a1"] = replace(one.admission, standing=Standing.ENDED)
    ended = {"outcome": {"state": "skipped", "reason": "ended"}, "requests": 0}
    assert await one.visits.read("a1", KIND) == ended
    assert await one.visits.draft("a1", KIND, key) == {**ended, "engine_calls": 0}
    assert await one.visits.file("a1", KIND, run) == ended
    assert one.chart.written == []


async def test_a_run_or_an_admission_that_is_gone_is_a_failure_with_a_code() -> None:
    one = Round()
    assert (await one.visits.file("a1", KIND, "gone"))["failed"] == "store"
    assert (await one.visits.read("gone", KIND))["failed"] == "store"
    assert (await one.visits.conclude("gone", {"state": "filed"}))["failed"] == "store"


async def test_an_older_draft_is_not_filed_over_one_of_a_later_reading() -> None:
    one = Round()
    key = (await one.visits.read("a1", KIND))["key"]
    older = (await one.visits.draft("a1", KIND, key))["run"]
    one.chart.more = [STAY, allergy("new")]
    newer = (await one.visit())["run"]
    store = one.bench.store
    store.runs = [
        replace(run, read_at=NOW + timedelta(hours=1)) if run.run_id == newer else run for run in store.runs
    ]
    filed = await one.visits.file("a1", KIND, older)
    assert filed["outcome"] == {"state": "unchanged", "run": newer}
    assert len(one.chart.written) == 1
    store.runs = [replace(run, read_at=NOW - timedelta(hours=1)) for run in store.runs]  # time goes by
    one.chart.more = [STAY]
    again = await one.visit()
    assert again["state"] == "filed", "the older chart is there again, and told anew"
    assert again["run"] not in (older, newer)


async def test_what_a_crash_left_of_an_overtaken_run_on_the_server_is_known_here() -> None:
    one = Round()
    key = (await one.visits.read("a1", KIND))["key"]
    older = (await one.visits.draft("a1", KIND, key))["run"]
    await one.visits.file("a1", KIND, older)
    one.bench.store.filed.clear()  # killed between the write and the note of it
    one.chart.more = [STAY, allergy("new")]
    newer = (await one.visit())["run"]
    store = one.bench.store
    store.runs = [
        replace(run, read_at=NOW + timedelta(hours=1)) if run.run_id == newer else run for run in store.runs
    ]
    filed = await one.visits.file("a1", KIND, older)
    assert filed["outcome"] == {"state": "unchanged", "run": newer}
    assert {row.run_id for row in store.documents_of("Patient/1")} == {older, newer}


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ServerFailed("x"), True),
        (Throttled("x"), True),
        (TimedOut("x"), True),
        (Forbidden("x"), False),
        (UnknownPatient("x"), False),
        (RequestRejected("x"), False),
        (EngineError("x"), True),
        (StoreError("x"), True),
        (RecordError("x"), False),
        (FilingError("x"), False),
        (SettingsError("x"), False),
    ],
)
async def test_what_may_pass_is_tried_again_and_what_will_not_is_not(
    error: ConnectorError | EpicrisisError, passes: bool
) -> None:
    assert may_pass(error) is passes
    one = Round()
    one.chart.failure = error
    assert await one.visits.read("a1", KIND) == {"failed": error.code, "again": passes, "requests": 0}


async def test_what_fails_says_nothing_of_a_patient() -> None:
    one = Round()
    one.chart.failure = ServerFailed(f"503 for {CANARY}")
    assert CANARY not in str(await one.visits.read("a1", KIND))


async def test_a_generation_that_failed_is_counted_and_tried_again() -> None:
    one = Round(failures=(EngineError("The engine is away."),))
    key = (await one.visits.read("a1", KIND))["key"]
    failed = await one.visits.draft("a1", KIND, key)
    assert (failed["failed"], failed["again"]) == ("engine", True)
    assert failed["engine_calls"] >= 1
    assert "run" in await one.visits.draft("a1", KIND, key)


ADMISSION = Admission(
    "a1", "s", "Patient/1", "Encounter/9", standing=Standing.FRESH, since=NOW, run_id="run-1", checked_at=NOW
)
LATER = NOW + timedelta(days=1)


def test_a_failure_counts_and_the_next_run_has_another_id() -> None:
    once = concluded(ADMISSION, {"state": "failed", "reason": "engine"}, LATER)
    assert (once.standing, once.reason, once.since) == (Standing.FAILED, "engine", LATER)
    assert (once.failures, once.epoch, once.checked_at, once.run_id) == (1, 1, NOW, "run-1")
    twice = concluded(once, {"state": "failed", "reason": "engine"}, LATER + timedelta(days=1))
    assert (twice.failures, twice.epoch, twice.since) == (2, 2, LATER)
    assert twice.tried_at == LATER + timedelta(days=1)
    other = concluded(once, {"state": "failed", "reason": "timeout"}, LATER + timedelta(days=1))
    assert other.since == LATER + timedelta(days=1)


def test_a_success_ends_the_failures() -> None:
    failed = concluded(ADMISSION, {"state": "failed", "reason": "engine"}, LATER)
    done = concluded(failed, {"state": "filed", "run": "run-2"}, LATER)
    assert (done.standing, done.reason, done.failures, done.run_id) == (Standing.FRESH, "", 0, "run-2")
    assert concluded(failed, {"state": "unchanged", "run": ""}, LATER).run_id == "run-1"


def test_what_is_left_out_is_no_failure() -> None:
    failed = concluded(ADMISSION, {"state": "failed", "reason": "engine"}, LATER)
    left = concluded(failed, {"state": "skipped", "reason": "minor"}, LATER)
    assert (left.standing, left.reason, left.failures, left.epoch) == (Standing.SKIPPED, "minor", 0, 2)
    assert left.checked_at == NOW


def test_a_stay_that_has_ended_stays_so() -> None:
    ended = replace(ADMISSION, standing=Standing.ENDED, reason="discharged")
    assert concluded(ended, {"state": "filed", "run": "run-2"}, LATER) == ended


async def test_everyone_leaves_nobody_out() -> None:
    everyone = Everyone()
    assert await everyone.renew() == frozenset()
    assert await everyone.before(ADMISSION) == ""
