"""Summaries for those who wait: one for all, told as it comes, taken over, stopped, and left alone."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import ServerFailed
from connectors.fhir.pull import Gap, GapReason
from fixtures.answers import copy_lines
from fixtures.facts import NOW
from service.engine.prompt import Prompt
from service.engine.scripted import ScriptedEngine
from service.errors import EngineError, ShreddedError, StoreError
from service.filing.publish import Published
from service.grounding.summary import Origin
from service.ondemand import MOST_MAKERS, SENTENCES, OnDemand, Opener, Pace
from service.ports import Action, DocumentState, FiledDocument, RunState, StoredRun
from service.ports.images import ImageUse
from service.ports.ondemand import (
    Asked,
    Generation,
    GenerationId,
    GenerationState,
    Maker,
    Told,
    ToldKind,
)
from service.readings import Images
from service.store.cipher import Cipher
from service.store.database import open_cipher
from service.store.keys import KeyRoom
from service.store.ondemand import SqlGenerations
from service.summarize import Progress, Summarizer
from tests.conftest import CANARY
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.in_memory_vault import InMemoryVault
from tests.unit.test_image_runs import MISSED, SHOWN, STUDY, Source
from tests.unit.test_summarize import ASTHMA, EhrDouble

ASKED = Asked(
    "http://127.0.0.1:1/fhir", "Patient/1", "history", "", "system:none", "user:1", "Practitioner/7"
)
QUICK = Pace(poll_s=0.01, beat_s=0.02, look_s=0.01, lost_s=0.02)
ENDS = {ToldKind.DONE, ToldKind.FAILED, ToldKind.CANCELLED}


class Hands:
    """A clock that a test moves on; else it runs."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


class Gate(ScriptedEngine):
    """An engine that writes its first claims and then waits to be let on."""

    def __init__(self, **more: Any) -> None:
        super().__init__(copy_lines, **more)
        self.open = asyncio.Event()
        self.begun = asyncio.Event()

    async def generate(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Any:
        self.running += 1
        try:
            if on_text is not None:
                text = copy_lines(prompt)
                on_text(text[: text.index("}") + 1])
            self.begun.set()
            await self.open.wait()
        finally:
            self.running -= 1
        if on_text is not None:
            on_text("")
        return await super().generate(prompt, on_text)


@dataclass
class Ward:
    """Processes that share a database, a chart and an engine."""

    folder: Path
    engine: ScriptedEngine = field(default_factory=lambda: ScriptedEngine(copy_lines))
    ehr: EhrDouble = field(default_factory=EhrDouble)
    runs: InMemoryStore = field(default_factory=InMemoryStore)
    audit: InMemoryAudit = field(default_factory=InMemoryAudit)
    vault: InMemoryVault = field(default_factory=InMemoryVault)
    clock: Hands = field(default_factory=Hands)
    filed: list[tuple[str, str]] = field(default_factory=list)
    refusal: Exception | None = None
    opened: int = 0
    made: list[tuple[OnDemand, SqlGenerations]] = field(default_factory=list)
    images: Images | None = None

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/epicrisis.db"

    @property
    def cipher(self) -> Cipher:
        return open_cipher(self.folder / "key", self.url)

    def process(self, pace: Pace = QUICK) -> OnDemand:
        """One more process."""
        store = SqlGenerations(self.url, self.cipher)
        one = OnDemand(
            store=store, runs=self.runs, clock=lambda: NOW, file=self.file, pace=pace, monotonic=self.clock
        )
        self.made.append((one, store))
        return one

    @property
    def opener(self) -> Opener:
        @asynccontextmanager
        async def opened(tell: Progress) -> AsyncIterator[Summarizer]:
            self.opened += 1
            yield Summarizer(
                ehr=self.ehr, engine=self.engine, store=self.runs, audit=self.audit, clock=lambda: NOW,
                software_version="0", vault=self.vault, images=self.images,
            )  # fmt: skip

        return opened

    async def file(self, run: StoredRun, asked: Asked) -> Published:
        if self.refusal is not None:
            raise self.refusal
        self.filed.append((run.run_id, asked.by))
        self.runs.finish(run.run_id, RunState.FILED, "DocumentReference/1/_history/1")
        return Published(RunState.FILED, "DocumentReference/1/_history/1", "")

    async def aclose(self) -> None:
        for one, store in self.made:
            await one.aclose()
            store.close()


@pytest.fixture
async def ward(tmp_path: Path) -> AsyncIterator[Ward]:
    one = Ward(tmp_path)
    yield one
    await one.aclose()


async def all_of(following: AsyncIterator[Told]) -> list[Told]:
    async with asyncio.timeout(20):
        return [told async for told in following]


def kinds(told: list[Told]) -> list[str]:
    return [one.kind.value for one in told]


def claims(told: list[Told]) -> list[str]:
    return [one.data["text"] for one in told if one.kind is ToldKind.CLAIM]


def claims_by_model(ward: Ward) -> set[str]:
    """What the stored run publishes of the model's own sentences."""
    return {
        claim.text
        for claim in ward.runs.runs[0].summary.published
        if claim.origin is Origin.MODEL and not claim.repaired
    }


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - a thread or another process tells no event
            await asyncio.sleep(0.01)


async def state_of(one: OnDemand, generation: Generation) -> Generation:
    found = await one.get(generation.id)
    assert found is not None
    return found


async def test_stages_and_claims_are_told_and_then_the_stored_run(ward: Ward) -> None:
    one = ward.process()
    told = await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert [kind in ENDS for kind in kinds(told)] == [False] * (len(told) - 1) + [True]
    run = ward.runs.runs[0]
    assert told[-1].data == {"run_id": run.run_id, "state": "filed"}
    assert len(claims(told)) >= 5
    assert claims_by_model(ward) <= set(claims(told))
    assert set(claims(told)) <= {claim.text for claim in (*run.summary.published, *run.summary.refused)}
    assert ward.filed == [(run.run_id, "Practitioner/7")]
    assert {entry.actor for entry in ward.audit.entries} == {"user:1"}
    first = next(event for event in told if event.kind is ToldKind.CLAIM)
    assert set(first.data) == {"section", "text", "cites"}


async def test_two_tabs_on_two_processes_cause_one_generation_and_see_the_same_events(ward: Ward) -> None:
    ward.engine = gate = Gate()
    one, other = ward.process(), ward.process()
    first, second = await asyncio.gather(one.want(ASKED, ward.opener), other.want(ASKED, ward.opener))
    assert first.id == second.id
    followers = [asyncio.create_task(all_of(p.follow(first.id))) for p in (one, other, other)]
    await gate.begun.wait()
    gate.open.set()
    told = await asyncio.gather(*followers)
    assert told[0] == told[1] == told[2]
    assert claims(told[0])
    assert len(ward.runs.runs) == 1
    assert len(gate.prompts) == 1
    assert ward.opened == 1


async def test_who_comes_back_is_told_what_follows_without_a_gap_and_nothing_twice(ward: Ward) -> None:
    one, other = ward.process(), ward.process()
    generation = await one.want(ASKED, ward.opener)
    seen: list[Told] = []
    for process in (one, other) * 20:
        following = process.follow(generation.id, seen[-1].seq if seen else 0)
        async for event in following:
            seen.append(event)
            break  # the connection is lost after each event
        if seen[-1].kind.is_last:
            break
    rest = await all_of(other.follow(generation.id, seen[-1].seq))
    whole = await all_of(one.follow(generation.id))
    assert seen + rest == whole


async def test_what_has_not_changed_costs_no_engine_time(ward: Ward) -> None:
    one = ward.process()
    first = await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    asked = len(ward.engine.prompts)
    again = await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    assert again[-1].data["run_id"] == first[-1].data["run_id"]
    assert len(ward.engine.prompts) == asked
    assert len(ward.filed) == 1


async def test_a_wanted_regeneration_is_the_next_attempt_each_time(ward: Ward) -> None:
    one = ward.process()
    anew = replace(ASKED, attempt_wanted=True)
    for asked in (ASKED, anew, anew, ASKED):
        told = await all_of(one.follow((await one.want(asked, ward.opener)).id))
        ward.runs.runs = [
            replace(run, created_at=NOW.replace(minute=run.inputs.attempt)) for run in ward.runs.runs
        ]
    assert [run.inputs.attempt for run in ward.runs.runs] == [1, 2, 3]
    assert len({run.inputs.key for run in ward.runs.runs}) == 3
    assert told[-1].data["run_id"] == ward.runs.runs[2].run_id  # what was asked for again is the newest


async def test_two_tabs_that_ask_anew_cause_one_attempt(ward: Ward) -> None:
    ward.engine = gate = Gate()
    one, other = ward.process(), ward.process()
    anew = replace(ASKED, attempt_wanted=True)
    first, second = [await process.want(anew, ward.opener) for process in (one, other)]
    assert first.id == second.id
    gate.open.set()
    await all_of(other.follow(first.id))
    assert len(ward.runs.runs) == 1


async def test_what_was_withdrawn_is_written_anew_when_somebody_asks(ward: Ward) -> None:
    one = ward.process()
    await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    run = ward.runs.runs[0]
    ward.runs.put_document(
        FiledDocument(
            "DocumentReference/1", ASKED.server, "1", run.run_id, "Patient/1", DocumentState.WITHDRAWN, NOW
        )
    )
    await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    assert [run.inputs.attempt for run in ward.runs.runs] == [1, 2]


async def test_a_changed_chart_is_written_anew_as_the_first_attempt(ward: Ward) -> None:
    one = ward.process()
    await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    ward.ehr.more.append(ASTHMA)
    await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    assert [run.inputs.attempt for run in ward.runs.runs] == [1, 1]


async def test_another_reader_shares_nothing(ward: Ward) -> None:
    one = ward.process()
    first = await one.want(ASKED, ward.opener)
    second = await one.want(replace(ASKED, access_profile="user:other"), ward.opener)
    assert first.id != second.id
    told = await all_of(one.follow(second.id))
    assert told[-1].data == {"error": "access_changed", "text": SENTENCES["access_changed"]}
    assert [run.inputs.access_profile for run in ward.runs.runs] in ([], ["system:none"])


async def test_what_is_only_kept_is_not_filed(ward: Ward) -> None:
    one = ward.process()
    kept = replace(ASKED, only_kept=True)
    told = await all_of(one.follow((await one.want(kept, ward.opener)).id))
    assert told[-1].data["state"] == "dry"
    assert (ward.filed, ward.runs.runs[0].state) == ([], RunState.DRY)
    told = await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    assert told[-1].data["state"] == "filed"
    assert len(ward.runs.runs) == 1


@pytest.mark.parametrize(
    ("reader", "reason", "state"),
    [
        ("user:1", GapReason.REFUSED, "dry"),
        ("user:1", GapReason.SUPPRESSED, "dry"),
        ("user:1", GapReason.NOT_SUPPORTED, "filed"),
        ("system:none", GapReason.REFUSED, "filed"),
    ],
)
async def test_what_one_user_may_not_read_is_missing_from_nobody_elses_draft(
    ward: Ward, reader: str, reason: GapReason, state: str
) -> None:
    ward.ehr.access_profile, ward.ehr.gaps = reader, (Gap("Immunization", reason),)
    one = ward.process()
    asked = replace(ASKED, access_profile=reader)
    told = await all_of(one.follow((await one.want(asked, ward.opener)).id))
    assert told[-1].data["state"] == state
    assert bool(ward.filed) is (state == "filed")


async def test_a_server_that_takes_no_document_takes_no_text_from_who_waits(ward: Ward) -> None:
    ward.refusal = ServerFailed(f"It said {CANARY}.")
    one = ward.process()
    told = await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    assert told[-1].kind is ToldKind.DONE
    assert told[-1].data == {
        "run_id": ward.runs.runs[0].run_id, "state": "generated", "error": "server_failed",
    }  # fmt: skip
    ward.refusal = None
    asked = len(ward.engine.prompts)
    await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    assert len(ward.filed) == 1
    assert len(ward.engine.prompts) == asked


@pytest.mark.parametrize(
    ("failure", "code"),
    [(EngineError(f"of {CANARY}"), "engine"), (KeyError(CANARY), "internal")],
    ids=["foreseen", "unforeseen"],
)
async def test_a_failure_is_told_as_a_code_and_a_sentence_and_can_be_asked_for_again(
    ward: Ward, failure: Any, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ward.engine = ScriptedEngine(copy_lines, failures=[failure])
    one = ward.process()
    failed = await one.want(ASKED, ward.opener)
    told = await all_of(one.follow(failed.id))
    assert told[-1].data == {"error": code, "text": SENTENCES[code]}
    assert (await state_of(one, failed)).error == code
    assert CANARY not in caplog.text
    again = await one.want(ASKED, ward.opener)
    assert again.id != failed.id
    assert (await all_of(one.follow(again.id)))[-1].kind is ToldKind.DONE


async def test_without_a_follower_it_is_cancelled_at_the_engine_after_fifteen_seconds(ward: Ward) -> None:
    ward.engine = gate = Gate()
    one, other = ward.process(), ward.process()
    generation = await one.want(ASKED, ward.opener)
    following = asyncio.create_task(all_of(other.follow(generation.id)))
    await gate.begun.wait()
    for _ in range(4):  # as long as somebody follows, on whatever process, it goes on
        ward.clock.ahead += 14.0
        await asyncio.sleep(0.1)
    assert gate.running == 1
    following.cancel()
    await asyncio.wait({following})
    await asyncio.sleep(0.1)
    ward.clock.ahead += 14.5
    await asyncio.sleep(0.1)
    assert gate.running == 1
    ward.clock.ahead += 1.0
    await until(lambda: gate.running == 0)
    await until(lambda: not one._made)
    assert (await state_of(one, generation)).state is GenerationState.CANCELLED
    assert ward.runs.runs == []
    gate.open.set()
    again = await one.want(ASKED, ward.opener)
    assert (await all_of(one.follow(again.id)))[-1].kind is ToldKind.DONE


async def test_looking_again_and_again_keeps_it_going_too(ward: Ward) -> None:
    ward.engine = gate = Gate()
    one, other = ward.process(), ward.process()
    generation = await one.want(ASKED, ward.opener)
    await gate.begun.wait()
    for _ in range(4):
        ward.clock.ahead += 12.0
        assert await other.attend(generation.id) is not None
        await asyncio.sleep(0.1)
    assert gate.running == 1


@pytest.mark.parametrize("where", ["here", "there"])
async def test_stop_ends_it_for_everybody_and_at_the_engine(ward: Ward, where: str) -> None:
    ward.engine = gate = Gate()
    one, other = ward.process(), ward.process()
    generation = await one.want(ASKED, ward.opener)
    following = asyncio.create_task(all_of(other.follow(generation.id)))
    await gate.begun.wait()
    await (one if where == "here" else other).cancel(generation.id)
    told = await following
    assert told[-1].kind is ToldKind.CANCELLED
    assert gate.running == 0
    assert ward.runs.runs == []
    await one.cancel(generation.id)  # and once more
    assert [event.kind for event in await all_of(one.follow(generation.id))].count(ToldKind.CANCELLED) == 1


async def test_a_process_that_ends_hands_over_to_who_follows_elsewhere(ward: Ward) -> None:
    ward.engine = gate = Gate()
    one, other = ward.process(), ward.process()
    generation = await one.want(ASKED, ward.opener)
    await other.want(ASKED, ward.opener)
    following = asyncio.create_task(all_of(other.follow(generation.id)))
    await gate.begun.wait()
    await until(lambda: len(claims(list(ward.made[1][1].told(generation.id)[0]))) == 1)
    await one.aclose()
    await until(lambda: generation.id in other._made)
    gate.open.set()
    told = await following
    assert told[-1].kind is ToldKind.DONE
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert len(set(claims(told))) == len(claims(told))
    assert len(ward.runs.runs) == 1


def abandoned(ward: Ward, makers: int = 1) -> tuple[SqlGenerations, Generation]:
    """A generation whose maker's process is gone."""
    store = SqlGenerations(ward.url, ward.cipher)
    one = Generation(GenerationId("0" * 31 + "1"), ASKED, GenerationState.QUEUED, NOW)
    store.join(one, Maker("gone", 7))
    store.begin(one.id, "gone")
    for number in range(1, makers):
        store.take_over(
            one.id, Maker("gone" if number == 1 else f"gone{number}", 7), Maker(f"gone{number + 1}", 7)
        )
    return store, one


async def test_who_asks_for_an_abandoned_one_makes_it(ward: Ward) -> None:
    store, gone = abandoned(ward)
    one = ward.process()
    assert (await one.want(ASKED, ward.opener)).id == gone.id
    assert (await all_of(one.follow(gone.id)))[-1].kind is ToldKind.DONE
    store.close()


async def test_an_abandoned_one_is_made_by_one_of_those_who_follow_it(ward: Ward) -> None:
    store, gone = abandoned(ward)
    processes = [ward.process() for _ in range(3)]
    told = await asyncio.gather(*(all_of(one.follow(gone.id, 0, ward.opener)) for one in processes))
    assert told[0] == told[1] == told[2]
    assert told[0][-1].kind is ToldKind.DONE
    assert len(ward.runs.runs) == 1
    store.close()


async def test_who_goes_while_taking_over_leaves_no_lock_behind(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, gone = abandoned(ward)
    one, other = ward.process(), ward.process()
    mine = ward.made[0][1]
    real, holding, let_on = mine.hold_slot, threading.Event(), threading.Event()

    def hold_slot(slot: int) -> Any:
        right = real(slot)
        holding.set()
        let_on.wait(20)
        return right

    monkeypatch.setattr(mine, "hold_slot", hold_slot)
    following = asyncio.create_task(all_of(one.follow(gone.id, 0, ward.opener)))
    await until(holding.is_set)
    following.cancel()
    await asyncio.wait({following})
    let_on.set()
    assert (await all_of(other.follow(gone.id, 0, ward.opener)))[-1].kind is ToldKind.DONE
    store.close()


async def test_who_cannot_make_an_abandoned_one_is_told_that_it_ended(ward: Ward) -> None:
    store, gone = abandoned(ward)
    one = ward.process()
    told = await all_of(one.follow(gone.id))
    assert told[-1].data == {"error": "orphaned", "text": SENTENCES["orphaned"]}
    assert (await one.want(ASKED, ward.opener)).id != gone.id
    store.close()


async def test_one_that_ended_so_many_processes_is_given_up(ward: Ward) -> None:
    store, gone = abandoned(ward, MOST_MAKERS)
    one = ward.process()
    told = await all_of(one.follow(gone.id, 0, ward.opener))
    assert told[-1].data["error"] == "orphaned"
    assert ward.opened == 0
    store.close()


async def test_stopping_an_abandoned_one_ends_it(ward: Ward) -> None:
    store, gone = abandoned(ward)
    one = ward.process()
    await one.cancel(gone.id)
    assert (await state_of(one, gone)).state is GenerationState.CANCELLED
    store.close()


async def test_one_that_was_taken_for_gone_stops_and_says_nothing_more(ward: Ward) -> None:
    ward.engine = gate = Gate()
    one = ward.process(replace(QUICK, gone_s=1000.0))
    generation = await one.want(ASKED, ward.opener)
    await gate.begun.wait()
    store = ward.made[0][1]
    await until(lambda: claims(list(store.told(generation.id)[0])))  # all that is said is in the log
    maker = store.maker_of(generation.id)
    assert maker is not None
    assert store.take_over(generation.id, maker, Maker("next", maker.slot)) is not None
    await until(lambda: gate.running == 0)
    await until(lambda: not one._made)
    assert (await state_of(one, generation)).state is GenerationState.RUNNING
    assert ToldKind.CANCELLED not in [event.kind for event in store.told(generation.id)[0]]


async def test_of_a_shredded_patient_nothing_is_begun_and_what_is_under_way_ends(
    ward: Ward, tmp_path: Path
) -> None:
    ward.engine = gate = Gate()
    one = ward.process()
    generation = await one.want(ASKED, ward.opener)
    following = asyncio.create_task(all_of(one.follow(generation.id)))
    await gate.begun.wait()
    KeyRoom(ward.made[0][1].database, lambda: NOW, tmp_path / "key").shred("Patient/1", "asked for")
    await following
    await until(lambda: gate.running == 0)
    assert await one.get(generation.id) is None
    with pytest.raises(ShreddedError):
        await one.want(ASKED, ward.opener)


async def test_a_log_that_cannot_be_written_for_a_while_has_no_gap_and_lacks_nothing(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ward.process()
    store = ward.made[0][1]
    real, seen = store.tell, set[ToldKind]()

    def tell(generation_id: GenerationId, maker: str, events: list[Told]) -> bool:
        new = {event.kind for event in events} - seen
        seen.update(new)
        if new:  # whatever is said for the first time cannot be written
            raise StoreError("The disk is full.")
        return real(generation_id, maker, events)

    monkeypatch.setattr(store, "tell", tell)
    told = await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert told[-1].kind is ToldKind.DONE
    assert seen == {ToldKind.STAGE, ToldKind.CLAIM}
    assert claims_by_model(ward) <= set(claims(told))


async def test_opening_a_patient_has_the_chart_read_once_and_a_summary_finds_it(ward: Ward) -> None:
    one = ward.process()
    for _ in range(3):
        await one.warm(ASKED, ward.opener)
        await one.warmed()
    chart, warming = ward.engine.prompts
    assert chart.sampling.max_tokens == warming.sampling.max_tokens == 1
    await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    asked = ward.engine.prompts[2]
    assert asked.messages[0] == chart.messages[0] == warming.messages[0]
    assert asked.messages[1].content.startswith(warming.messages[1].content)
    assert warming.messages[1].content.startswith(chart.messages[1].content)
    assert warming.priority > asked.priority
    assert ward.runs.runs[0].prompts == (asked,)


async def test_nothing_is_looked_at_while_a_chart_is_read_ahead(ward: Ward) -> None:
    source = Source(SHOWN)
    ward.ehr.more.append(STUDY)
    ward.images = Images(source, ImageUse.SHOW, 8)
    one = ward.process()
    await one.warm(ASKED, ward.opener)
    await one.warmed()
    assert ward.opened == 1
    assert source.wanted == []


async def test_a_summary_with_pictures_serves_again_while_their_archive_is_away(ward: Ward) -> None:
    ward.ehr.more.append(STUDY)
    ward.images = Images(Source(SHOWN), ImageUse.SHOW, 8)
    one = ward.process()
    await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    asked = len(ward.engine.prompts)
    away = replace(MISSED, is_for_now=True)
    ward.images = Images(Source(unseen=(away,)), ImageUse.SHOW, 8)
    again = await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    assert again[-1].data["run_id"] == ward.runs.runs[0].run_id
    assert (len(ward.runs.runs), len(ward.engine.prompts)) == (1, asked)


async def test_a_changed_chart_is_read_ahead_anew_and_so_is_one_that_was_read_long_ago(ward: Ward) -> None:
    one = ward.process()
    await one.warm(ASKED, ward.opener)
    await one.warmed()
    ward.ehr.more.append(ASTHMA)
    ward.clock.ahead += 59
    await one.warm(ASKED, ward.opener)
    await one.warmed()
    assert ward.opened == 1, "a chart that was opened just now is not fetched again"
    ward.clock.ahead += 2
    await one.warm(ASKED, ward.opener)
    await one.warmed()
    assert len(ward.engine.prompts) == 4
    ward.clock.ahead += 601
    await one.warm(ASKED, ward.opener)
    await one.warmed()
    assert len(ward.engine.prompts) == 6


@pytest.mark.parametrize("failure", [EngineError(CANARY), KeyError(CANARY)])
async def test_reading_ahead_never_fails(ward: Ward, failure: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ward.engine = ScriptedEngine(copy_lines, failures=[failure])
    one = ward.process()
    await one.warm(ASKED, ward.opener)
    await one.warmed()
    assert CANARY not in caplog.text
    await one.warm(ASKED, ward.opener)
    await one.warmed()
    assert len(ward.engine.prompts) == 3


async def test_every_act_is_recorded_by_who_asked(ward: Ward) -> None:
    one = ward.process()
    await all_of(one.follow((await one.want(ASKED, ward.opener)).id))
    assert [(entry.action, entry.actor) for entry in ward.audit.entries] == [
        (Action.READ, "user:1"), (Action.GENERATE, "user:1"),
    ]  # fmt: skip
