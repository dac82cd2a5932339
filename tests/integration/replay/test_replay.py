"""A run, stored with what it was made of, and replayed: the same bytes, the same verdicts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, update
from sqlmodel import col

import service.edition
import service.replay
from connectors.fhir.pull import Gap, GapReason
from fixtures.answers import change_numbers, copy_lines
from fixtures.facts import NOW
from service.context.render import requests_for
from service.context.templates import open_library
from service.engine.prompt import Prompt
from service.engine.scripted import SCRIPTED_PROFILE, ScriptedEngine
from service.entailment import SecondPass
from service.errors import EngineError, StoreError
from service.grounding.check import Checker
from service.grounding.summary import Verdict
from service.ports import Action, RunId, StoredRun
from service.ports.inputs import Made
from service.record.assemble import Policy
from service.replay import NOT_KEPT, Replay, Replayer, shape_of
from service.store.database import open_cipher
from service.store.inputs import InputPartTable, RunInputTable, SqlInputs
from service.store.sql import SqlStore
from service.summarize import Summarizer
from tests.conftest import CANARY
from tests.unit.api.in_memory import InMemoryAudit
from tests.unit.test_summarize import NOTE, EhrDouble, doubting

PROMPTS = Path(__file__).parents[3] / "prompts"


class House:
    """A Summarizer whose runs are kept in a real database, and what replays them."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder / 'epicrisis.db'}"
        self.store = SqlStore(url, open_cipher(folder / "key", url))
        self.inputs = SqlInputs(self.store)
        self.audit = InMemoryAudit()
        self.ehr = EhrDouble()

    async def make(
        self, engine: ScriptedEngine, *, kind: str = "history", attempt: int = 1, **more: Any
    ) -> StoredRun:
        summarizer = Summarizer(
            ehr=self.ehr, engine=engine, store=self.store, audit=self.audit, clock=lambda: NOW,
            software_version="1", **{"inputs": self.inputs, **more},
        )  # fmt: skip
        outcome = await summarizer.summarize("1", kind=kind, attempt=attempt)
        run = self.store.get(RunId(outcome.run_id))
        assert run is not None
        return run

    async def replay(
        self, run: StoredRun, *, software: str = "1", site: Path | None = None, **more: Any
    ) -> Replay:
        library = open_library(site)
        replayer = Replayer(self.store, self.inputs, self.audit, lambda: NOW, software, library)
        found = await replayer.replay(run.run_id, "user:reviewer", **more)
        assert found is not None
        return found


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.store.close()


def guided(**more: Any) -> ScriptedEngine:
    profile = replace(SCRIPTED_PROFILE, mode="guided", facts_per_request=2)
    return ScriptedEngine(copy_lines, profile=profile, **more)


def broken_off() -> Callable[[Prompt], str]:
    """Half of the sentences wrong, so that some go back to be repaired; a cut answer at last."""
    said = iter(range(10_000))

    def answer(prompt: Prompt) -> str:
        whole = (change_numbers if next(said) % 2 else copy_lines)(prompt)
        return whole[:-20] if next(said) % 5 == 4 else whole

    return answer


def identical(found: Replay, run: StoredRun) -> bool:
    assert found.is_replayable, found.reason
    assert len(found.prompts) == len(run.prompts)
    assert all(one.stored and one.rebuilt for one in found.prompts)
    return found.is_identical and not found.versions


@pytest.mark.parametrize(
    "engine",
    [
        lambda: ScriptedEngine(copy_lines),
        lambda: ScriptedEngine(change_numbers),
        lambda: ScriptedEngine(broken_off()),
        lambda: ScriptedEngine(lambda prompt: "no JSON at all"),
        guided,
        lambda: ScriptedEngine(broken_off(), profile=replace(SCRIPTED_PROFILE, mode="guided")),
    ],
)
async def test_a_run_comes_out_the_same(house: House, engine: Callable[[], ScriptedEngine]) -> None:
    run = await house.make(engine())
    assert identical(await house.replay(run), run)


async def test_a_run_is_replayed_from_the_chart_as_it_was_whatever_it_holds_now(house: House) -> None:
    first = await house.make(ScriptedEngine(copy_lines))
    house.ehr.more.append(
        {"resourceType": "Condition", "id": "new", "subject": {"reference": "Patient/1"},
         "code": {"text": "Asthma"}, "onsetDateTime": "2026-11-01"}
    )  # fmt: skip
    house.ehr.gaps = (Gap("Observation", GapReason.TIMED_OUT),)
    second = await house.make(ScriptedEngine(copy_lines), policy=Policy(time_zone="Pacific/Auckland"))
    assert second.inputs.record_digest != first.inputs.record_digest
    assert second.summary.sections[0].key == "since"  # compared with the first one
    for run in (first, second):
        assert identical(await house.replay(run), run)


async def test_what_the_second_pass_said_is_what_it_says_again_without_its_probe(house: House) -> None:
    house.ehr.more.append(NOTE)
    run = await house.make(doubting("Wound", "no"), second_pass=SecondPass())
    assert any(claim.is_lowered for claim in run.summary.refused)
    assert any(claim.entailed for claim in (*run.summary.published, *run.summary.refused))
    assert identical(await house.replay(run), run)


async def test_a_request_that_was_not_answered_then_is_no_difference(house: House) -> None:
    def fails_to_repair(prompt: Prompt) -> str:
        if "These sentences were refused" in prompt.messages[-1].content:
            raise EngineError("It does not answer.")
        return change_numbers(prompt)

    engine = ScriptedEngine(fails_to_repair)
    run = await house.make(engine)
    assert len(run.prompts) < len(engine.prompts)
    assert identical(await house.replay(run), run)


async def test_digests_are_told_as_they_were_and_choosing_asks_no_engine(house: House) -> None:
    house.ehr.more += [
        {"resourceType": "Observation", "id": f"o{n}", "status": "final",
         "subject": {"reference": "Patient/1"}, "code": {"text": f"Thing {n % 40}"},
         "effectiveDateTime": f"{1990 + n % 30}-0{1 + n % 9}-11",
         "valueQuantity": {"value": n, "unit": "mg"}}
        for n in range(400)
    ]  # fmt: skip
    run = await house.make(ScriptedEngine(copy_lines), budget_tokens=2500, digest_windows=4)
    made = house.inputs.inputs_of(run)
    assert made is not None
    assert any(digest.told for digest in made.decided.digests)
    assert identical(await house.replay(run), run)


def own_set(folder: Path, word: str, version: str) -> Path:
    """A site's set of one task of its own."""
    site = folder / "site"
    shutil.copytree(PROMPTS / "history", site / "ours", dirs_exist_ok=True)
    settings = site / "ours" / "prompt.toml"
    text = (PROMPTS / "history" / "prompt.toml").read_text().replace('id = "history"', 'id = "ours"')
    settings.write_text(text.replace('version = "1.1.0"', f'version = "{version}"'))
    task = (PROMPTS / "history" / "task.j2").read_text()
    (site / "ours" / "task.j2").write_text(f"{word}\n{task}")
    return site


async def test_a_run_by_an_older_template_is_replayed_from_the_kept_one(house: House, tmp_path: Path) -> None:
    site = own_set(tmp_path, "Write plainly.", "1.1.0")
    run = await house.make(ScriptedEngine(copy_lines), kind="ours", library=open_library(site))
    assert "Write plainly." in run.prompts[0].messages[-1].content
    own_set(tmp_path, "Write in verse.", "1.2.0")
    found = await house.replay(run, site=site)
    assert found.is_identical
    assert [one.what for one in found.versions] == ["templates"]
    assert found.versions[0].then.startswith("ours 1.1.0 (")
    assert found.versions[0].now.startswith("ours 1.2.0 (")
    shutil.rmtree(site)
    gone = await house.replay(run)
    assert gone.is_identical
    assert [(one.what, one.now) for one in gone.versions] == [("templates", "not there any more")]


async def test_other_software_code_and_rules_are_named(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await house.make(ScriptedEngine(copy_lines))
    monkeypatch.setattr(service.replay, "RULES_VERSION", "7")
    monkeypatch.setattr(service.replay, "code_digest", lambda: "other")
    found = await house.replay(run, software="2")
    assert [(one.what, one.now) for one in found.versions] == [
        ("software", "2"),
        ("code", "other"),
        ("rules", "7"),
    ]
    assert found.is_identical


async def test_rules_that_judge_otherwise_are_told_claim_by_claim(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await house.make(ScriptedEngine(copy_lines))

    class Stricter(Checker):
        def check(self, draft: Any) -> Any:
            claim = super().check(draft)
            return replace(claim, verdict=Verdict.UNSUPPORTED, reasons=("number_not_in_source:8.2",))

    monkeypatch.setattr("service.verify.Checker", Stricter)
    found = await house.replay(run)
    assert found.verdicts is not None
    assert all(prompt.identical for prompt in found.prompts[:1])
    assert not found.is_identical
    assert {(one.then, one.now) for one in found.verdicts.changed} & {
        ("supported", "unsupported (number_not_in_source)")
    }
    assert CANARY not in json.dumps(shape_of(found))
    assert "8.2" not in json.dumps(shape_of(found)["verdicts"])


async def test_code_that_renders_otherwise_is_located_without_a_word_or_said_not_to_be_replayable(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await house.make(guided())
    chosen = requests_for

    def otherwise(*given: Any, **more: Any) -> Any:
        first, *others = chosen(*given, **more)
        *turns, last = first.prompt.messages
        turns.append(replace(last, content=f"{last.content[:-1]}!"))
        return (replace(first, prompt=replace(first.prompt, messages=tuple(turns))), *others)

    monkeypatch.setattr(service.replay, "requests_for", otherwise)
    found = await house.replay(run)
    changed = [one for one in found.prompts if not one.identical]
    assert changed
    assert changed[0] is found.prompts[0]
    place = changed[0].differs_at
    last = run.prompts[0].messages[-1].content
    assert place is not None
    assert (place.turn, place.line) == (len(run.prompts[0].messages), last.count("\n") + 1)
    assert CANARY not in json.dumps(shape_of(found))

    monkeypatch.setattr(service.replay, "name_of_chat", lambda chat: "another")
    lost = await house.replay(run)
    assert not lost.is_replayable
    assert "rendered otherwise" in lost.reason
    assert {one.rebuilt for one in lost.prompts} == {""}


async def test_another_model_engine_and_profile_are_named_when_it_is_asked_again(house: House) -> None:
    run = await house.make(ScriptedEngine(copy_lines))

    class Another(ScriptedEngine):
        async def describe(self) -> Any:
            info = await super().describe()
            profile = replace(info.profile, max_output_tokens=99)
            return replace(info, model="other", version="scripted 2", profile=profile)

    found = await house.replay(run, engine=Another(change_numbers))
    assert [one.what for one in found.versions] == ["model", "engine", "profile"]
    assert found.is_identical  # what is stored comes out the same; what the other engine says does not
    assert found.generated is not None
    assert found.generated.model == "other"
    assert not any(answer.identical for answer in found.generated.answers)
    assert not found.generated.verdicts.identical
    told = json.dumps(shape_of(found))
    assert CANARY not in told
    again = await house.replay(run, engine=ScriptedEngine(copy_lines))
    assert again.generated is not None
    assert all(answer.identical for answer in again.generated.answers)
    assert again.generated.verdicts.identical


async def test_a_replay_is_a_view_of_the_patients_data_by_who_asks(house: House) -> None:
    run = await house.make(ScriptedEngine(copy_lines))
    house.audit.entries.clear()
    await house.replay(run)
    (seen,) = house.audit.entries
    assert (seen.action, seen.actor, seen.patient, seen.run_id, seen.target) == (
        Action.VIEW, "user:reviewer", "Patient/1", run.run_id, "replay",
    )  # fmt: skip
    await house.replay(run, engine=ScriptedEngine(copy_lines))
    assert [entry.action for entry in house.audit.entries] == [Action.VIEW, Action.VIEW, Action.GENERATE]


async def test_a_run_whose_inputs_cannot_be_kept_is_filed_and_says_so(house: House) -> None:
    class Full(SqlInputs):
        def _keep(self, *given: Any, **more: Any) -> None:
            raise StoreError("The disk is full.")

    run = await house.make(ScriptedEngine(copy_lines), inputs=Full(house.store))
    assert run.document
    found = await house.replay(run)
    assert (found.is_replayable, found.reason, found.verdicts) == (False, NOT_KEPT, None)
    shape = shape_of(found)
    assert (shape["replayable"], shape["prompts"], shape["verdicts"], shape["generated"]) == (
        False,
        [],
        None,
        None,
    )


async def test_a_damaged_or_exchanged_part_is_noticed(house: House) -> None:
    run = await house.make(ScriptedEngine(copy_lines))
    other = await house.make(ScriptedEngine(copy_lines), attempt=2)
    with house.store.database.writing() as session:
        lists = {row.run_id: row.content for row in session.execute(RunInputTable.__table__.select())}  # type: ignore[attr-defined]
        session.execute(update(RunInputTable).where(col(RunInputTable.run_id) == run.run_id)
                        .values(content=lists[other.run_id]))  # fmt: skip
    assert not (await house.replay(run)).is_replayable
    assert "changed" in (await house.replay(run)).reason
    with house.store.database.writing() as session:
        session.execute(delete(InputPartTable))
    lost = await house.replay(other)
    assert not lost.is_replayable
    assert "missing" in lost.reason


async def test_the_kept_answers_decide_and_not_the_kept_prompt(house: House) -> None:
    """Rebuilding renders: a stored prompt that somebody changed is found out."""
    run = await house.make(ScriptedEngine(copy_lines))
    made = house.inputs.inputs_of(run)
    assert isinstance(made, Made)
    (first, *others) = run.prompts
    (system, user) = first.messages
    changed = replace(
        first, messages=(system, replace(user, content=user.content.replace("Gout", "Gait", 1)))
    )

    class Other:
        def get(self, run_id: RunId) -> StoredRun:
            return replace(run, prompts=(changed, *others))

    replayer = Replayer(Other(), house.inputs, house.audit, lambda: NOW, "1", open_library())  # type: ignore[arg-type]
    found = await replayer.replay(run.run_id, "user:reviewer")
    assert found is not None
    assert not found.prompts[0].identical
    place = found.prompts[0].differs_at
    assert place is not None
    assert user.content.splitlines()[place.line - 1][place.character - 2 :].startswith("Go")


def test_the_code_digest_covers_rules_and_word_lists() -> None:
    sources = {path for path, _ in service.edition._sources()}
    assert {"grounding/check.py", "grounding/lexicon.toml", "context/choose.py", "record/assemble.py",
            "verify.py", "entailment.toml"} <= sources  # fmt: skip
    assert msgspec.json.encode(service.edition.code_digest())
