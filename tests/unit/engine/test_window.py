"""The night's place at the engine: how many are in flight, who gives way, and who is never starved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from fixtures.engine_double import answer
from service.engine.prompt import Completion, Engine, EngineInfo, Message, Prompt, Sampling, Usage
from service.engine.scripted import ScriptedEngine
from service.engine.window import AUDIT, SCHEDULE, SIDEBAR, Pressing, UrgencyHere, Window
from service.errors import EngineError, StoreError
from tests.unit.engine.contract import EngineContract, Subject

LOOK_S = 0.001


class TestWindowKeepsTheContract(EngineContract):
    @pytest.fixture
    def subject(self) -> Subject:
        engine = ScriptedEngine(answer, seconds_per_piece=0.002)

        async def running() -> int:
            return engine.running

        return Subject(Window(engine, 2, nobody), running)


class TestPressingKeepsTheContract(EngineContract):
    @pytest.fixture
    def subject(self) -> Subject:
        engine = ScriptedEngine(answer, seconds_per_piece=0.002)

        async def running() -> int:
            return engine.running

        return Subject(Pressing(engine, UrgencyHere()), running)


async def nobody() -> bool:
    return False


@dataclass
class Gate:
    """An engine whose answers come when a test says so, with who is at it now."""

    at_work: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    _open: dict[str, asyncio.Event] = field(default_factory=dict)

    async def describe(self) -> EngineInfo:
        return await ScriptedEngine().describe()

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        return 1

    async def generate(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Completion:
        name = prompt.messages[-1].content
        self.begun.append(name)
        self.prompts.append(prompt)
        self.at_work.append(name)
        try:
            if on_text is not None:
                on_text(f"{name} ")
            await self._open.setdefault(name, asyncio.Event()).wait()
            return Completion(name, "stop", Usage(1, 1), 0.0)
        finally:
            self.at_work.remove(name)

    def answer(self, *names: str) -> None:
        for name in names:
            self._open.setdefault(name, asyncio.Event()).set()


class Night:
    """Requests by name through one window, in the order in which they are asked."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.tasks: dict[str, asyncio.Task[Completion]] = {}

    def ask(self, *names: str) -> None:
        for name in names:
            prompt = Prompt((Message("user", name),), Sampling(1))
            self.tasks[name] = asyncio.create_task(self.window.generate(prompt))

    async def end(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


@dataclass
class Scene:
    """An engine, somebody who may be waiting, and a night."""

    engine: Gate
    urgency: UrgencyHere
    night: Night

    def window(self) -> Window:
        return self.night.window


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    engine, urgency = Gate(), UrgencyHere()
    window = Window(engine, 3, lambda: urgency.waits(SCHEDULE), beside=1, restarts=2, look_s=LOOK_S)
    night = Night(window)
    yield Scene(engine, urgency, night)
    await night.end()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(LOOK_S)


async def settle() -> None:
    """Let several looks pass."""
    await asyncio.sleep(20 * LOOK_S)


async def test_no_more_requests_are_in_flight_than_the_window_holds_and_all_are_answered(
    scene: Scene,
) -> None:
    scene.night.ask(*"abcdefg")
    await until(lambda: scene.engine.at_work == ["a", "b", "c"])
    await settle()
    assert scene.engine.at_work == ["a", "b", "c"]
    assert (scene.window().in_flight, scene.window().queued) == (3, 4)
    scene.engine.answer(*"abcdefg")
    done = await asyncio.gather(*scene.night.tasks.values())
    assert [one.text for one in done] == list("abcdefg")
    assert scene.engine.begun == list("abcdefg")
    assert (scene.window().in_flight, scene.window().queued) == (0, 0)


async def test_the_night_s_requests_are_the_least_urgent_and_keep_their_own_order() -> None:
    gate = Gate()
    gate.answer("a")
    asked = [Prompt((Message("user", "a"),), Sampling(1), priority=own) for own in (0, 1)]
    for engine in (Window(gate), Window(gate, priority=AUDIT), Pressing(gate, UrgencyHere())):
        for prompt in asked:
            await engine.generate(prompt)
    assert [prompt.priority for prompt in gate.prompts] == [
        SCHEDULE, SCHEDULE + 1, AUDIT, AUDIT + 1, SIDEBAR, SIDEBAR + 1
    ]  # fmt: skip


async def test_while_somebody_waits_the_youngest_are_given_up_and_none_is_begun(scene: Scene) -> None:
    scene.night.ask(*"abcde")
    await until(lambda: len(scene.engine.at_work) == 3)
    async with scene.urgency.hold(SIDEBAR):
        await until(lambda: scene.engine.at_work == ["a"])
        await settle()
        assert scene.engine.begun == ["a", "b", "c"]
        scene.engine.answer("a")
        await until(lambda: scene.engine.at_work == ["b"])  # one goes on, so that no night starves
    await until(lambda: scene.engine.at_work == ["b", "c", "d"])
    assert scene.window().given_up == 2


async def test_a_night_that_begins_while_somebody_waits_asks_before_it_takes_its_places() -> None:
    somebody = False

    async def slow() -> bool:
        await asyncio.sleep(5 * LOOK_S)
        return somebody

    gate = Gate()
    night = Night(Window(gate, 3, slow, beside=1, look_s=LOOK_S))
    gate.answer("a")
    night.ask("a")
    await night.tasks["a"]
    await settle()
    somebody = True
    night.ask(*"bcd")
    await settle()
    assert gate.begun == ["a", "b"]
    await night.end()


async def test_who_is_seated_and_must_give_way_before_it_has_begun_does_not_begin(scene: Scene) -> None:
    window = scene.window()
    scene.night.ask(*"abc")
    await until(lambda: len(scene.engine.at_work) == 3)
    scene.night.ask("d")
    await until(lambda: window.queued == 1)
    scene.engine.answer("a")
    await scene.night.tasks["a"]  # d has its place now, and has not begun
    async with scene.urgency.hold(SIDEBAR):
        await until(lambda: scene.engine.at_work == ["b"])
        await settle()
        assert scene.engine.at_work == ["b"]
    await until(lambda: sorted(scene.engine.at_work) == ["b", "c", "d"])


async def test_what_was_given_up_is_begun_again_before_what_has_not_begun(scene: Scene) -> None:
    scene.night.ask(*"abcde")
    await until(lambda: len(scene.engine.at_work) == 3)
    async with scene.urgency.hold(SIDEBAR):
        await until(lambda: scene.engine.at_work == ["a"])
    await until(lambda: len(scene.engine.at_work) == 3)
    assert scene.engine.begun == ["a", "b", "c", "b", "c"]


async def test_what_was_given_up_often_enough_is_left_to_finish(scene: Scene) -> None:
    scene.night.ask("a", "b")
    for _ in range(2):
        await until(lambda: scene.engine.at_work == ["a", "b"])
        async with scene.urgency.hold(SIDEBAR):
            await until(lambda: scene.engine.at_work == ["a"])
    await until(lambda: scene.engine.at_work == ["a", "b"])
    async with scene.urgency.hold(SIDEBAR):
        await until(lambda: scene.engine.at_work == ["b"])  # now the next youngest gives way instead
        await settle()
        assert scene.engine.at_work == ["b"]
        scene.engine.answer("b")
        assert (await scene.night.tasks["b"]).text == "b"


async def test_who_is_as_urgent_as_the_night_or_less_moves_nobody(scene: Scene) -> None:
    scene.night.ask("a", "b")
    await until(lambda: len(scene.engine.at_work) == 2)
    async with scene.urgency.hold(SCHEDULE):
        await settle()
        assert scene.engine.at_work == ["a", "b"]


async def test_a_request_that_is_cancelled_leaves_the_engine_or_the_queue_and_its_place_is_given_on(
    scene: Scene,
) -> None:
    scene.night.ask(*"abcde")
    await until(lambda: len(scene.engine.at_work) == 3)
    for name in ("b", "d"):
        scene.night.tasks[name].cancel()
    await until(lambda: scene.engine.at_work == ["a", "c", "e"])
    assert scene.window().queued == 0
    assert scene.night.tasks["b"].cancelled()


async def test_a_request_that_is_cancelled_as_it_gives_way_is_not_begun_again(scene: Scene) -> None:
    scene.night.ask("a", "b")
    await until(lambda: len(scene.engine.at_work) == 2)
    async with scene.urgency.hold(SIDEBAR):
        await until(lambda: scene.engine.at_work == ["a"])
        scene.night.tasks["b"].cancel()
        await settle()
    await settle()
    assert scene.engine.begun == ["a", "b"]
    assert scene.window().queued == 0


async def test_a_listener_is_told_that_an_answer_begins_again(scene: Scene) -> None:
    pieces: list[str] = []
    scene.night.ask("a")
    await until(lambda: scene.engine.at_work == ["a"])
    prompt = Prompt((Message("user", "b"),), Sampling(1))
    asking = asyncio.create_task(scene.window().generate(prompt, pieces.append))
    await until(lambda: scene.engine.at_work == ["a", "b"])
    async with scene.urgency.hold(SIDEBAR):
        await until(lambda: scene.engine.at_work == ["a"])
    scene.engine.answer("b")
    await asking
    assert pieces == ["b ", "", "b "]


async def test_an_error_of_the_engine_is_the_caller_s_and_frees_the_place() -> None:
    engine: Engine = ScriptedEngine(lambda _: "one", failures=[EngineError("gone")])
    window = Window(engine, 1)
    prompt = Prompt((Message("user", "?"),), Sampling(5))
    with pytest.raises(EngineError, match="gone"):
        await window.generate(prompt)
    assert (await window.generate(prompt)).text == "one"
    assert window.in_flight == 0


async def test_where_nobody_can_be_asked_who_waits_the_night_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken() -> bool:
        raise StoreError("gone")

    window = Window(ScriptedEngine(["one"]), 1, broken, look_s=LOOK_S)
    assert (await window.generate(Prompt((Message("user", "?"),), Sampling(5)))).text == "one"
    assert "cannot be asked (store)" in caplog.text


async def test_a_continuous_queue_of_clinicians_starves_no_night(scene: Scene) -> None:
    names = list("abcdefgh")
    scene.night.ask(*names)
    scene.engine.answer(*names)
    async with scene.urgency.hold(SIDEBAR), asyncio.timeout(5):
        done = await asyncio.gather(*scene.night.tasks.values())
    assert [one.text for one in done] == names


def test_one_window_serves_several_event_loops_one_after_the_other() -> None:
    window = Window(ScriptedEngine(["one", "two"]), 1, nobody, look_s=LOOK_S)
    prompt = Prompt((Message("user", "?"),), Sampling(5))
    said = [asyncio.run(window.generate(prompt)).text for _ in range(2)]
    assert said == ["one", "two"]
