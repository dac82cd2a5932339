"""Claims told while the engine writes: whole, supported, once; and nothing that is stored depends on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fixtures.answers import change_numbers, copy_lines
from fixtures.facts import A1C, GOUT, LISINOPRIL, context, record
from service.context.render import requests_for
from service.context.templates import open_library
from service.engine.profiles import CODE_FENCE, THINKING
from service.engine.prompt import Completion, Profile, Usage
from service.engine.scripted import PIECE, SCRIPTED_PROFILE, ScriptedEngine
from service.errors import EngineError
from service.grounding.summary import Claim
from service.ports import StoredRun
from service.provisional import provisional
from service.summarize import Summarizer
from tests.unit.test_summarize import Bench

TEMPLATES = open_library().load("history")
FACTS = [GOUT, A1C, LISINOPRIL]
GUIDED = replace(SCRIPTED_PROFILE, mode="guided", facts_per_request=1)
RIGHT, WRONG = "Gout is active since 04-Mar-2011.", "Gout is resolved."


def written(*claims: tuple[str, str], closed: bool = True) -> str:
    said = [{"section": "problems", "cites": [label], "text": text} for label, text in claims]
    whole = json.dumps({"claims": said}, indent=1)
    return whole if closed else whole[: whole.rindex("}", 0, -4)]


class Ear:
    """One listener in front of one free answer, fed piece by piece as an engine would."""

    def __init__(self, profile: Profile = SCRIPTED_PROFILE, strip: tuple[str, ...] = ()) -> None:
        self.shown = context(FACTS)
        self.requests = requests_for(self.shown, TEMPLATES, profile)
        self.strip = strip
        self.told: list[Claim] = []

    async def hear(self, *texts: str, ends: bool = True) -> list[str]:
        """Feed answers one after the other, each but the first after an empty piece: it began again."""
        found = provisional(self.shown, record(FACTS), TEMPLATES, self.strip, self.told.append)
        async with found as one:
            listener = one.listener(self.requests[0])
            assert listener is not None
            for number, text in enumerate(texts):
                if number:
                    listener("")
                for piece in PIECE.findall(text):
                    listener(piece)
                await one.heard()
            if ends:
                one.answered(self.requests[0], Completion(texts[-1], "stop", Usage(1, 1), 0.0))
        return [claim.text for claim in self.told]


def label_of(text: str) -> str:
    shown = context(FACTS)
    return next(label for label, one in shown.facts.items() if one.name == text)


LABEL = label_of(GOUT.name)


async def test_a_claim_is_told_once_it_stands_whole_and_under_its_heading() -> None:
    ear = Ear()
    assert await ear.hear(written((LABEL, RIGHT)), ends=False) == [RIGHT]
    assert (ear.told[0].section, ear.told[0].citations) == ("problems", (GOUT.id,))


async def test_the_last_unfinished_claim_is_never_taken() -> None:
    cut = written((LABEL, RIGHT), closed=False)
    assert RIGHT in cut
    assert await Ear().hear(cut, ends=False) == []


async def test_what_the_rules_refuse_is_not_told() -> None:
    assert await Ear().hear(written((LABEL, WRONG), ("Z9", RIGHT))) == []


async def test_nothing_is_told_twice_not_by_the_end_and_not_by_an_answer_that_began_again() -> None:
    whole = written((LABEL, RIGHT))
    assert await Ear().hear(whole) == [RIGHT]
    assert await Ear().hear(written((LABEL, RIGHT), closed=False), whole, whole) == [RIGHT]
    assert await Ear().hear(written((LABEL, RIGHT), (LABEL, f" {RIGHT} "))) == [RIGHT]


async def test_an_answer_that_began_again_is_read_from_its_start() -> None:
    other = "Gout (active), since 04-Mar-2011."
    told = await Ear().hear(written((LABEL, RIGHT)), written((LABEL, other)))
    assert told == [RIGHT, other]


@pytest.mark.parametrize("end", ["<unused95>", ""])
async def test_what_a_model_thinks_is_not_its_answer(end: str) -> None:
    thought = f"<unused94>{written((LABEL, 'Gout: active, since 04-Mar-2011'))}{end}"
    answer = f"```json\n{written((LABEL, RIGHT))}\n```" if end else ""
    ear = Ear(strip=(THINKING, CODE_FENCE))
    assert await ear.hear(thought + answer, ends=False) == ([RIGHT] if end else [])


async def test_what_a_model_thought_before_it_began_again_is_void() -> None:
    ear = Ear(strip=(THINKING, CODE_FENCE))
    assert await ear.hear("<unused94>Let me } see", written((LABEL, RIGHT)), ends=False) == [RIGHT]


async def test_a_guided_answer_is_heard_when_it_is_whole() -> None:
    ear = Ear(GUIDED)
    found = provisional(ear.shown, record(FACTS), TEMPLATES, (), ear.told.append)
    async with found as one:
        for request in ear.requests:
            assert one.listener(request) is None
            answer = copy_lines(request.prompt)
            one.answered(request, Completion(answer, "stop", Usage(1, 1), 0.0))
            before = len(ear.told)
            await one.heard()
            assert len(ear.told) == before + 1
    assert len(ear.told) == len(FACTS)


@pytest.mark.parametrize("sections", [True, False])
async def test_what_has_no_heading_in_this_summary_is_not_told(sections: bool) -> None:
    templates = TEMPLATES if sections else replace(TEMPLATES, sections=())
    told: list[Claim] = []
    async with provisional(context(FACTS), record(FACTS), templates, (), told.append) as one:
        request = requests_for(context(FACTS), TEMPLATES, SCRIPTED_PROFILE)[0]
        one.answered(request, Completion(written((LABEL, RIGHT)), "stop", Usage(1, 1), 0.0))
    assert [claim.text for claim in told] == ([RIGHT] if sections else [])


async def test_a_listener_that_fails_fails_no_run(caplog: pytest.LogCaptureFixture) -> None:
    def fail(claim: Claim) -> None:
        raise KeyError(claim.text)

    async with provisional(context(FACTS), record(FACTS), TEMPLATES, (), fail) as one:
        request = requests_for(context(FACTS), TEMPLATES, SCRIPTED_PROFILE)[0]
        one.answered(request, Completion(written((LABEL, RIGHT)), "stop", Usage(1, 1), 0.0))
    assert "KeyError" in caplog.text
    assert "Gout" not in caplog.text


async def drafted(listen: Callable[[Claim], None] | None, **more: Any) -> tuple[Bench, StoredRun]:
    bench = Bench(**more)
    summarizer: Summarizer = bench.summarizer
    ready = await summarizer.prepare("1")
    return bench, await summarizer.draft(ready, listen)


class Turns(ScriptedEngine):
    """Notes how many other answers were under way when each began."""

    def __init__(self, answers: Any = copy_lines, **more: Any) -> None:
        super().__init__(answers, profile=GUIDED, **more)
        self.beside: list[int] = []

    async def generate(self, prompt: Any, on_text: Callable[[str], None] | None = None) -> Completion:
        self.beside.append(self.running)
        return await super().generate(prompt, on_text)


def unheard(claim: Claim) -> None:
    """Wait for claims, and make nothing of them."""


async def test_of_many_answers_the_first_comes_alone_to_whoever_waits_and_the_others_together() -> None:
    waited, left = Turns(seconds_per_piece=0.001), Turns(seconds_per_piece=0.001)
    told: list[Claim] = []
    await drafted(told.append, engine=waited)
    await drafted(None, engine=left)
    count = len(waited.prompts)
    assert waited.beside == [0, *range(count - 1)]
    assert left.beside == [*range(count)]
    assert told


async def test_where_nothing_can_be_told_yet_two_more_are_tried_and_four_and_then_all() -> None:
    engine = Turns(seconds_per_piece=0.001, answers=change_numbers)
    await drafted(unheard, engine=engine)
    assert engine.beside[:10] == [0, *(0, 1), *(0, 1, 2, 3), *(0, 1, 2)]


async def test_whoever_cannot_be_told_holds_nothing_up() -> None:
    def fail(claim: Claim) -> None:
        raise KeyError

    async with asyncio.timeout(20):
        _, run = await drafted(fail, engine=Turns())
    assert run.summary.sections


async def test_a_first_answer_that_fails_asks_for_no_other() -> None:
    engine = Turns(failures=[EngineError("It broke.")])
    with pytest.raises(EngineError, match="It broke"):
        await drafted(unheard, engine=engine)
    assert len(engine.prompts) == 1


@pytest.mark.parametrize("profile", [SCRIPTED_PROFILE, GUIDED], ids=["free", "guided"])
async def test_what_is_stored_does_not_depend_on_who_listened(profile: Profile) -> None:
    told: list[Claim] = []
    _, alone = await drafted(None, engine=ScriptedEngine(copy_lines, profile=profile))
    _, heard = await drafted(told.append, engine=ScriptedEngine(copy_lines, profile=profile))
    assert replace(heard, run_id=alone.run_id, seconds=alone.seconds) == replace(
        alone, completions=heard.completions
    )
    assert [c.text for c in heard.completions] == [c.text for c in alone.completions]
    shown = {(section.key, claim.text) for section in heard.summary.sections for claim in section.claims}
    says_less = {claim.text for claim in heard.summary.refused if claim.reasons == ("the_record_says_more",)}
    found = [(claim.section, claim.text) for claim in told]
    assert len(found) >= 5
    assert len(set(found)) == len(found)
    assert {one for one in found if one[1] not in says_less} <= shown


async def test_claims_are_told_before_the_whole_answer_is_there() -> None:
    times: list[tuple[str, int]] = []
    engine = ScriptedEngine(copy_lines, seconds_per_piece=0.0005)
    bench = Bench(engine=engine)
    ready = await bench.summarizer.prepare("1")
    await bench.summarizer.draft(ready, lambda claim: times.append((claim.text, engine.running)))
    assert [running for _, running in times].count(1) >= 3


async def test_wrong_values_are_never_told() -> None:
    told: list[Claim] = []
    _, run = await drafted(told.append, engine=ScriptedEngine(change_numbers))
    refused = {claim.text for claim in run.summary.refused}
    assert refused
    assert not refused & {claim.text for claim in told}


async def test_an_engine_that_fails_ends_the_listening_too() -> None:
    told: list[Claim] = []
    engine = ScriptedEngine(copy_lines, failures=[EngineError("The engine died.")], die_after_pieces=40)
    with pytest.raises(EngineError):
        await drafted(told.append, engine=engine)
