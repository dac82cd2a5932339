"""Digests of what does not fit: only what the record bears out, and only what changed is asked anew."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import pytest

from fixtures.answers import change_numbers, copy_lines
from fixtures.facts import A1C, CANARY, GOUT, SODIUM, fact, record
from service.context.choose import choose_facts
from service.context.chosen import Context, Label
from service.context.digests import SHARE, Digest, Told, digest_tokens
from service.context.manifest import CARRIED, LOST, NO_ROOM
from service.context.render import requests_for, whole_chat
from service.context.templates import open_library
from service.context.windows import cut_windows
from service.digest import AREA, IN_FLIGHT, MAX_CLAIMS, MAX_DEPTH, Digester
from service.engine.prompt import Completion, Message, Prompt, Usage
from service.engine.scripted import (
    SCRIPTED_PROFILE,
    TOKENS_PER_TURN,
    ScriptedEngine,
    count_scripted_tokens,
)
from service.errors import EngineError
from service.grounding.check import Checker
from service.grounding.summary import DraftClaim, Verdict
from service.record.facts import Fact, Kind, PatientRecord, Status
from service.verify import verify_completions
from tests.unit.in_memory_vault import InMemoryVault

TEMPLATES = open_library().load("history")
FREE = SCRIPTED_PROFILE
GUIDED = replace(SCRIPTED_PROFILE, mode="guided", facts_per_request=2)
BUDGET = 2000


def count(chat: tuple[Message, ...]) -> int:
    return sum(TOKENS_PER_TURN + count_scripted_tokens(message.content) for message in chat)


def done_on(number: int, day: date) -> Fact:
    """A procedure with a number in its name: a changed digit is another one."""
    text = f"Dressing of burn {number} on the left forearm: completed on {day:%d-%b-%Y}"
    return fact(text, Kind.PROCEDURE, f"Procedure/{number}", status=Status.COMPLETED, on=day.isoformat(),
                recorded_status="completed")  # fmt: skip


def long_chart(number: int = 200, *more: Fact) -> PatientRecord:
    """A problem, and a procedure every three weeks."""
    first = date(2001, 1, 1)
    return record([GOUT, *(done_on(n, first + timedelta(days=21 * n)) for n in range(number)), *more])


@dataclass
class Desk:
    """A Digester's surroundings: the engine, the vault, and what was told on the way."""

    answer: Callable[[Prompt], str] = copy_lines
    profile: Any = FREE
    vault: InMemoryVault | None = None
    budget: int = BUDGET
    most: int = 48
    changes: dict[str, Any] = field(default_factory=dict)
    failures: list[EngineError] = field(default_factory=list)
    seconds_per_piece: float = 0.0
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = ScriptedEngine(
            self.answer, profile=self.profile, failures=self.failures,
            seconds_per_piece=self.seconds_per_piece,
        )  # fmt: skip

    def choose(self, chart: PatientRecord, digests: tuple[Digest, ...] = ()) -> Context:
        return choose_facts(chart, (), TEMPLATES, self.profile, self.budget, count, digests=digests)

    async def digest(self, chart: PatientRecord) -> tuple[Digest, ...]:
        info = await self.engine.describe()
        plain: dict[str, Any] = {
            "engine": self.engine, "info": info, "templates": TEMPLATES, "budget_tokens": self.budget,
            "most": self.most, "vault": self.vault,
            "tell": lambda stage, detail: self.said.append(f"{stage} {detail}"),
        }  # fmt: skip
        return await Digester(**(plain | self.changes)).digest(chart, self.choose(chart), count)


def fail_on(number: int) -> Callable[[Prompt], str]:
    """Copy lines; fail on the window that holds the procedure of this number."""

    def answer(prompt: Prompt) -> str:
        if f"Dressing of burn {number} on" in prompt.messages[-1].content:
            raise EngineError("The engine died.")
        return copy_lines(prompt)

    return answer


def tell_one(prompt: Prompt) -> str:
    """Copy the first line alone."""
    return json.dumps({"claims": json.loads(copy_lines(prompt))["claims"][:1]})


def tell_three(prompt: Prompt) -> str:
    """Copy the first three lines."""
    return json.dumps({"claims": json.loads(copy_lines(prompt))["claims"][:3]})


def facts_of(digests: tuple[Digest, ...]) -> set[Fact]:
    return {one for digest in digests for told in digest.told for one in told.facts}


def labelled(shown: Context, letter: str) -> dict[Label, tuple[Fact, ...]]:
    return {label: facts for label, facts in shown.cites.items() if re.fullmatch(rf"{letter}\d+", label)}


async def test_what_does_not_fit_is_told_window_by_window_with_the_facts_that_bear_it_out() -> None:
    desk, chart = Desk(tell_three), long_chart()
    digests = await desk.digest(chart)
    assert len(desk.engine.prompts) == len(digests) > 3
    for digest in digests:
        assert len(digest.told) == 3
        for told in digest.told:
            assert [one.text for one in told.facts] == [told.text]
    assert facts_of(digests) <= set(chart.facts)
    titles = [digest.title for digest in digests]
    assert titles[0].startswith("01-Jan-2001 to ")
    assert all("TASK: The record above is one part" in p.messages[-1].content for p in desk.engine.prompts)


async def test_a_digest_holds_a_dozen_sentences_at_most() -> None:
    digests = await Desk(budget=9000).digest(long_chart(500))
    assert max(len(digest.told) for digest in digests) == MAX_CLAIMS


async def test_sentences_that_the_record_does_not_bear_out_are_not_told() -> None:
    digests = await Desk(change_numbers).digest(long_chart())
    assert len(digests) > 3
    assert facts_of(digests) == set()
    assert not any(digest.lost for digest in digests)


async def test_a_sentence_that_is_no_text_is_not_told() -> None:
    def answer(prompt: Prompt) -> str:
        return copy_lines(prompt).replace("forearm: completed", "forearm: \\ud800 completed")

    digests = await Desk(answer, vault=InMemoryVault()).digest(long_chart())
    assert facts_of(digests) <= {GOUT}
    assert not any(digest.lost for digest in digests)


async def test_where_everything_is_shown_nothing_is_digested() -> None:
    desk = Desk()
    assert await desk.digest(record([GOUT])) == ()
    assert desk.engine.prompts == []


async def test_the_last_prompt_carries_digests_and_their_claims_are_checked_against_the_record() -> None:
    desk, chart = Desk(tell_one), long_chart()
    digests = await desk.digest(chart)
    shown = desk.choose(chart, digests)
    carried = labelled(shown, "Z")
    assert len(carried) >= 3
    prompt = requests_for(shown, TEMPLATES, FREE)[0].prompt.messages[-1].content
    for label, facts in carried.items():
        assert f"[{label}] {facts[0].text}\n" in prompt
    label, facts = next(iter(carried.items()))
    right = Checker(shown).check(DraftClaim("procedures", facts[0].text, (label,)))
    assert (right.verdict, right.citations) == (Verdict.SUPPORTED, (facts[0].id,))
    wrong = facts[0].text.replace("completed on", "completed on 2 occasions, the last of them on")
    assert Checker(shown).check(DraftClaim("procedures", wrong, (label,))).verdict is not Verdict.SUPPORTED
    other = re.sub(r"burn (\d+)", lambda match: f"burn {int(match[1]) + 1}", facts[0].text)
    assert Checker(shown).check(DraftClaim("procedures", other, (label,))).verdict is not Verdict.SUPPORTED
    reasons = {item.reason: item.count for item in shown.left_out}
    assert reasons[CARRIED] == len({one for held in carried.values() for one in held}
                                   - set(shown.facts.values()))  # fmt: skip


@pytest.mark.parametrize("budget", [1500, 2000, 3000])
async def test_the_last_prompt_keeps_its_budget_and_so_does_every_window(budget: int) -> None:
    desk, chart = Desk(budget=budget), long_chart()
    shown = desk.choose(chart, await desk.digest(chart))
    assert shown.tokens == count(whole_chat(shown, TEMPLATES, FREE)) <= budget
    assert all(count(prompt.messages) <= budget for prompt in desk.engine.prompts)
    assert all(prompt.schema is not None for prompt in desk.engine.prompts)


async def test_digests_wait_behind_what_a_clinician_asks_for() -> None:
    desk, chart = Desk(), long_chart()
    await desk.digest(chart)
    summary = requests_for(desk.choose(chart), TEMPLATES, FREE)[0].prompt
    assert {prompt.priority > summary.priority for prompt in desk.engine.prompts} == {True}


@pytest.mark.parametrize("day", ["2001-01-05", "2006-07-04", "2009-10-30", "2026-11-05"])
async def test_only_windows_that_changed_are_asked_again(day: str) -> None:
    vault = InMemoryVault()
    before = await Desk(tell_one, vault=vault, budget=3000).digest(long_chart())
    again = Desk(tell_one, vault=vault, budget=3000)
    assert await again.digest(long_chart()) == before
    assert again.engine.prompts == []
    new = fact(f"Suture of wound 7 on the chin: completed on {date.fromisoformat(day):%d-%b-%Y}",
               Kind.PROCEDURE, "Procedure/new", status=Status.COMPLETED, on=day)  # fmt: skip
    grown, chart = Desk(tell_one, vault=vault, budget=3000), long_chart(200, new)
    after = await grown.digest(chart)
    known = {window.facts for window in cut_windows(long_chart(), (), 1500)}
    shown = {one.id for one in grown.choose(chart).facts.values()}
    changed = [window for window in cut_windows(chart, shown, 1500) if window.facts not in known]
    assert len(grown.engine.prompts) == len(changed)
    asked = [prompt.messages[-1].content for prompt in grown.engine.prompts]
    for window in changed:
        assert sum(window.facts[-1].text in text for text in asked) == 1
    assert len(set(after) & set(before)) >= len(after) - len(changed)


async def test_a_fact_of_today_leaves_the_prompts_of_the_past_as_they_were() -> None:
    new = fact("Suture of wound 7 on the chin: completed on 05-Nov-2026", Kind.PROCEDURE, "Procedure/new",
               status=Status.COMPLETED, on="2026-11-05")  # fmt: skip
    desks = Desk(budget=3000), Desk(budget=3000)
    for desk, chart in zip(desks, (long_chart(), long_chart(200, new)), strict=True):
        await desk.digest(chart)
    before, after = ({prompt.messages[-1].content for prompt in desk.engine.prompts} for desk in desks)
    assert len(before - after) <= 1  # the newest window may grow


def changed_info(**changes: Any) -> dict[str, Any]:
    info = asyncio.run(ScriptedEngine(profile=FREE).describe())
    return {"info": replace(info, **changes)}


@pytest.mark.parametrize(
    "changes",
    [
        changed_info(digest="another model"),
        changed_info(profile=replace(FREE, temperature=0.5)),
        {"templates": replace(TEMPLATES, digest="other templates")},
        {"templates": replace(TEMPLATES, schema_digest="another schema")},
        {"rules_version": "other rules"},
        {"access_profile": "another reader"},
        {"seed": 1},
    ],
    ids=["model", "sampling", "templates", "schema", "rules", "reader", "seed"],
)
async def test_what_decides_a_digest_decides_whether_it_is_used_again(changes: dict[str, Any]) -> None:
    vault = InMemoryVault()
    await Desk(tell_one, vault=vault).digest(long_chart())
    other = Desk(tell_one, vault=vault, changes=changes)
    digests = await other.digest(long_chart())
    assert len(other.engine.prompts) >= len(digests)


async def test_another_birth_date_is_another_prompt() -> None:
    vault, chart = InMemoryVault(), long_chart()
    await Desk(tell_one, vault=vault).digest(chart)
    other = Desk(tell_one, vault=vault)
    await other.digest(replace(chart, identity=replace(chart.identity, birth_date="1999-01-01")))
    assert other.engine.prompts


async def test_a_window_that_fails_is_reported_and_sinks_nothing_else() -> None:
    desk, chart = Desk(fail_on(20), vault=InMemoryVault()), long_chart()
    digests = await desk.digest(chart)
    failed = [digest for digest in digests if digest.lost]
    assert len(failed) == 1
    assert "Procedure/20" in failed[0].lost
    assert failed[0].told == ()
    assert sum(bool(digest.told) for digest in digests) == len(digests) - 1
    shown = desk.choose(chart, tuple(failed))
    prompt = whole_chat(shown, TEMPLATES, FREE)[-1].content
    assert f"{failed[0].title}: this part of the record could not be digested" in prompt
    assert f"({LOST})" in prompt
    lost = {item.reason: item.count for item in shown.left_out}[LOST]
    assert lost == len(set(failed[0].lost) - {one.id for one in shown.facts.values()}) > 0


async def test_a_failed_window_is_asked_again_the_next_time_and_the_others_are_not() -> None:
    vault = InMemoryVault()
    first = Desk(fail_on(20), vault=vault, budget=3000)
    await first.digest(long_chart())
    second = Desk(tell_one, vault=vault, budget=3000)
    digests = await second.digest(long_chart())
    assert not any(digest.lost for digest in digests)
    assert sum("Dressing of burn 20 on" in p.messages[-1].content for p in second.engine.prompts) == 1
    assert len(second.engine.prompts) < len(first.engine.prompts)


async def test_an_engine_that_fails_on_every_window_leaves_an_honest_prompt() -> None:
    desk, chart = Desk(failures=[EngineError("The engine died.")] * 99), long_chart()
    digests = await desk.digest(chart)
    assert digests
    assert all(digest.lost and not digest.told for digest in digests)
    shown = desk.choose(chart, digests)
    assert labelled(shown, "Z") == {}
    assert {item.reason for item in shown.left_out} == {LOST}
    assert shown.tokens <= BUDGET


async def test_a_window_that_fits_no_prompt_is_reported_as_one_that_failed() -> None:
    chart = long_chart()
    desk = Desk()
    info = await desk.engine.describe()
    digester = Digester(desk.engine, info, TEMPLATES, 250, 48, None, lambda stage, detail: None)
    digests = await digester.digest(chart, desk.choose(chart), count)
    assert digests
    assert all(digest.lost for digest in digests)


async def test_the_newest_windows_are_taken_where_there_are_too_many() -> None:
    whole = await Desk(tell_one).digest(long_chart())
    desk, chart = Desk(tell_one, most=2), long_chart()
    digests = await desk.digest(chart)
    assert digests == whole[-2:]
    assert {item.reason for item in desk.choose(chart, digests).left_out} == {CARRIED, NO_ROOM}
    assert await Desk(most=0).digest(chart) == ()


async def test_a_small_model_is_asked_for_the_newest_of_each_heading_few_facts_at_a_time() -> None:
    asthma = fact("Asthma: active, since 05-Feb-2009", status=Status.ACTIVE, recorded_status="active",
                  on="2009-02-05")  # fmt: skip
    chart = long_chart(200, asthma)
    desk = Desk(profile=GUIDED, most=2)
    digests = await desk.digest(chart)
    seen = {one.id for one in desk.choose(chart).facts.values()}
    windows = {window.title: window.facts for window in cut_windows(chart, seen, BUDGET // 2)}
    assert len(digests) == 2
    for digest in digests:
        told = {one for claim in digest.told for one in claim.facts}
        unseen = [one for one in windows[digest.title] if one.id not in seen]
        assert told == set(unseen[-len(told) :])  # what is shown anyway is not asked again
        assert len(told) in range(min(len(unseen), MAX_CLAIMS - 3), MAX_CLAIMS + 1)
    asked = [re.findall(r"^\[", prompt.messages[-1].content, re.M) for prompt in desk.engine.prompts]
    assert {len(lines) for lines in asked} <= {1, 2}


async def test_requests_of_all_windows_share_the_seats() -> None:
    desk = Desk(profile=GUIDED, seconds_per_piece=0.001)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, desk.engine.running)
            await asyncio.sleep(0.0005)

    watching = asyncio.create_task(watch())
    await desk.digest(long_chart())
    watching.cancel()
    assert 2 < most <= IN_FLIGHT


def told_pieces(said: list[str]) -> set[int]:
    return {int(found[1]) for line in said if (found := re.search(r"level (\d+)", line))}


async def test_too_many_digests_are_digested_again_and_cite_the_record_all_the_same() -> None:
    desk, chart = Desk(budget=2000), long_chart(900)
    digests = await desk.digest(chart)
    assert told_pieces(desk.said) == set(range(2, MAX_DEPTH + 1))
    assert facts_of(digests) <= set(chart.facts)
    assert all(told.text in {one.text for one in told.facts} for d in digests for told in d.told)
    folds = [p for p in desk.engine.prompts if "[Z1]" in p.messages[-1].content]
    assert folds
    assert all(count(prompt.messages) <= desk.budget for prompt in desk.engine.prompts)
    assert all(re.fullmatch(r"\d\d-\w+-\d{4}( to \d\d-\w+-\d{4})?", digest.title) for digest in digests)


async def test_digests_that_fit_are_not_digested_again() -> None:
    desk = Desk(tell_one, budget=3000)
    digests = await desk.digest(long_chart())
    assert digest_tokens(digests) <= SHARE * 3000
    assert told_pieces(desk.said) == set()


async def test_digests_of_digests_are_kept_too() -> None:
    vault = InMemoryVault()
    first = await Desk(vault=vault).digest(long_chart(400))
    again = Desk(vault=vault)
    assert await again.digest(long_chart(400)) == first
    assert again.engine.prompts == []
    assert told_pieces(again.said)


async def test_a_fold_that_tells_nothing_leaves_what_was_told_before() -> None:
    def answer(prompt: Prompt) -> str:
        return change_numbers(prompt) if "[Z1]" in prompt.messages[-1].content else copy_lines(prompt)

    desk = Desk(answer)
    digests = await desk.digest(long_chart(400))
    assert told_pieces(desk.said)
    assert all(digest.told for digest in digests)


async def test_what_failed_stays_reported_when_its_neighbours_are_digested_again() -> None:
    desk = Desk(fail_on(20))
    digests = await desk.digest(long_chart(400))
    assert told_pieces(desk.said)
    assert [bool(digest.told) for digest in digests if digest.lost] == [False]
    assert "Procedure/20" in next(digest.lost for digest in digests if digest.lost)


async def test_progress_is_told_without_the_patient() -> None:
    desk = Desk()
    digests = await desk.digest(long_chart())
    assert desk.said
    assert all(re.fullmatch(r"digest (level \d: )?\d+ of \d+ parts", line) for line in desk.said)
    assert CANARY not in " ".join(desk.said) + " ".join(digest.title for digest in digests)


async def test_cancelling_in_the_middle_leaves_nothing_running() -> None:
    desk = Desk(profile=GUIDED, seconds_per_piece=0.05)
    before = asyncio.all_tasks()
    work = asyncio.create_task(desk.digest(long_chart()))
    while not desk.engine.running:  # noqa: ASYNC110 - the double announces nothing
        await asyncio.sleep(0.005)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert desk.engine.running == 0
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"text": "x"}',
        b'[{"text": "Gout: active", "facts": ["Condition/of-someone-else"]}]',
        b'[{"text": "Gout: active", "facts": []}]',
        b'[{"text": 7, "facts": ["Procedure/1"]}]',
    ],
)
async def test_what_was_kept_and_cannot_be_trusted_is_made_anew(content: bytes) -> None:
    vault = InMemoryVault()
    first = await Desk(tell_one, vault=vault).digest(long_chart())
    for key in vault.area(AREA):
        vault.kept[AREA, key] = content
    again = Desk(tell_one, vault=vault)
    assert await again.digest(long_chart()) == first
    assert len(again.engine.prompts) >= len(first)


async def test_a_vault_that_fails_costs_time_alone() -> None:
    for attribute in ("is_full", "is_broken"):
        vault = InMemoryVault()
        setattr(vault, attribute, True)
        desk = Desk(tell_one, vault=vault)
        digests = await desk.digest(long_chart())
        assert all(digest.told for digest in digests)
        assert "digest not kept for the next run" in desk.said


def test_what_digests_tell_a_guided_model_is_published_as_it_is() -> None:
    chart = record([GOUT, A1C, SODIUM])
    digest = Digest(
        "25-Nov-2020", (Told(A1C.text, (A1C,)), Told("Sodium: 141 mmol/L on 25-Nov-2020", (SODIUM,)))
    )
    context = choose_facts(chart, (), TEMPLATES, GUIDED, 4000, count, digests=[digest])
    requests = requests_for(context, TEMPLATES, GUIDED)
    silent = tuple(Completion("{}", "stop", Usage(1, 1), 0.0) for _ in requests)
    summary = verify_completions("history", chart, context, TEMPLATES, requests, silent)
    assert [claim.text for claim in summary.published] == [A1C.text]
    assert [claim.text for claim in summary.refused] == ["Sodium: 141 mmol/L on 25-Nov-2020"]
