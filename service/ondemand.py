"""Summaries for somebody who waits: made once for all who ask for the same, on any process, and told live.

Whoever begins one holds a lock that ends with its process; whoever follows and finds that lock free makes it
instead. What is told lies in a log that all processes read. Nobody's clock is compared with another's: those
who follow raise a number, and the maker stops by its own clock when the number stands still.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, NamedTuple, TypeVar

from connectors.errors import ConnectorError
from service.alike import is_same_chart
from service.errors import EpicrisisError, ShreddedError, StoreError
from service.filing.publish import Published
from service.grounding.summary import Claim
from service.ports import Clock, DocumentState, FilingStore, RunState, StoredRun
from service.ports.held import Right
from service.ports.ondemand import (
    SLOTS,
    Asked,
    Generation,
    GenerationId,
    GenerationState,
    GenerationStore,
    Maker,
    Told,
    ToldKind,
)
from service.summarize import Progress, Ready, Summarizer, with_key

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
_log = logging.getLogger("epicrisis.ondemand")

Opener = Callable[[Progress], AbstractAsyncContextManager[Summarizer]]
"""Opens the use case that reads as the one who asks. It may be opened again by whoever takes over."""
File = Callable[[StoredRun, Asked], Awaitable[Published]]
"""Files a stored run by this installation's own connection (SAFETY 17)."""

MOST_MAKERS: Final = 3
"""So many processes may end while they make one; then it is given up, for it may be what ends them."""
AT_A_TIME: Final = 16
MOST_KEPT: Final = 1024
INTERNAL, ORPHANED, NO_ACCESS = "internal", "orphaned", "access_changed"
SENTENCES: Final[Mapping[str, str]] = {
    "engine": "The model's server does not answer. Ask again in a minute.",
    "store": "The store of summaries cannot be used. Ask those who look after Epicrisis at your site.",
    "shredded": "What was stored about this patient was destroyed, and nothing new is stored about them.",
    "record": "This patient's record cannot be summarised: merged, not active, or without what was named.",
    "budget": "The model's window is too small even for the list of required facts.",
    "unknown_patient": "The record system does not know this patient.",
    "patient_moved": "The record system keeps this patient under another record now.",
    "unauthorized": "The record system did not accept who asked. Open the patient's chart again.",
    "token_refused": "The record system did not accept who asked. Open the patient's chart again.",
    "forbidden": "Your account may not read this patient's record.",
    ORPHANED: "The process that wrote this summary ended. Ask again.",
    NO_ACCESS: "What your account may read has changed. Open the patient's chart again.",
    INTERNAL: "Epicrisis failed to write this summary. The patient's chart is not affected.",
}
_OF_THE_RECORD: Final = "The record system could not be read. Ask again in a minute."


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things are looked at, and how long they are waited for, in seconds."""

    poll_s: float = 0.2
    """How soon a follower on another process sees what was told."""
    beat_s: float = 1.0
    """How often those who follow say so."""
    look_s: float = 0.5
    """How often a maker looks whether anybody does."""
    gone_s: float = 15.0
    """After so long without anybody it is cancelled, at the engine too."""
    lost_s: float = 2.0
    """How often a follower looks whether the maker is gone."""
    keep: timedelta = timedelta(hours=24)
    """How long the log of one that has ended is kept."""
    warm_again: timedelta = timedelta(minutes=10)
    """How long a prefix that was sent is taken to be in the engine's cache."""
    look_again: timedelta = timedelta(minutes=1)
    """How soon a chart that is opened again is fetched again to see whether its prefix changed."""


class _Ended(NamedTuple):
    """How a generation ends."""

    state: GenerationState
    data: Mapping[str, Any]
    run_id: str = ""
    error: str = ""


_CANCELLED: Final = _Ended(GenerationState.CANCELLED, {})


@dataclass(eq=False)
class _Making:
    """One generation under way in this process."""

    generation: Generation
    maker: Maker
    right: Right
    opener: Opener
    last: int = 0
    claims: set[tuple[str, str]] = field(default_factory=set)
    waiting: list[tuple[ToldKind, Mapping[str, Any]]] = field(default_factory=list)
    """What is to be told and is not in the log yet."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    is_written: bool = False
    """True once the text is stored: what is left is to file it, whoever is gone."""
    is_lost: bool = False
    """True where it is another's by now, or nobody's: nothing more is said of it here."""
    is_over: bool = False
    stage: str = ""
    task: asyncio.Task[None] | None = None

    def tell_stage(self, stage: str, detail: str) -> None:
        """Tell how far the work is; of several at once the last."""
        self.waiting = [one for one in self.waiting if one[0] is not ToldKind.STAGE]
        self.waiting.append((ToldKind.STAGE, {"stage": stage, "detail": detail}))
        self.news.set()

    def tell_claim(self, claim: Claim) -> None:
        """Tell a claim whose rules passed, once."""
        if (claim.section, claim.text) in self.claims:
            return
        self.claims.add((claim.section, claim.text))
        said = {"section": claim.section, "text": claim.text, "cites": list(claim.citations)}
        self.waiting.append((ToldKind.CLAIM, said))
        self.news.set()


class OnDemand:
    """Makes and tells summaries. One instance a process; close it before its loop ends."""

    def __init__(
        self,
        *,
        store: GenerationStore,
        runs: FilingStore,
        clock: Clock,
        file: File | None = None,
        pace: Pace | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`file` files what may be filed; without it everything is only kept."""
        self._store = store
        self._runs = runs
        self._clock = clock
        self._file = file
        self._pace = pace or Pace()
        self._monotonic = monotonic
        self._seats = asyncio.Semaphore(AT_A_TIME)
        self._made: dict[GenerationId, _Making] = {}
        self._openers: OrderedDict[GenerationId, Opener] = OrderedDict()
        self._told: dict[GenerationId, asyncio.Event] = {}
        self._beaten: OrderedDict[GenerationId, float] = OrderedDict()
        self._looked: OrderedDict[GenerationId, float] = OrderedDict()
        self._opened: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._warmed: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._warming: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._unbroken: set[asyncio.Task[Any]] = set()
        self._forgot_at: float | None = None

    async def want(self, asked: Asked, opener: Opener) -> Generation:
        """Return the generation of what is asked for: the one under way for the same inputs, or a new one.

        Raises StoreError; ShreddedError where nothing may be stored about the patient.
        """
        await self._forget()
        found = await asyncio.to_thread(self._store.under_way, asked)
        if found is None:
            return await self._to_its_end(self._begin(asked, opener))
        return await self._joined(found, opener)

    async def get(self, generation_id: GenerationId) -> Generation | None:
        """Return one, or None. Raises StoreError."""
        return await asyncio.to_thread(self._store.get_generation, generation_id)

    async def attend(self, generation_id: GenerationId, opener: Opener | None = None) -> Generation | None:
        """Return one for somebody who asks again and again instead of following: a sign of life.

        Raises StoreError.
        """
        found = await self.get(generation_id)
        if found is not None and not found.state.is_final:
            await asyncio.to_thread(self._store.beat, generation_id)
            await self._look_after(generation_id, opener)
        return found

    async def follow(
        self, generation_id: GenerationId, after: int = 0, opener: Opener | None = None
    ) -> AsyncIterator[Told]:
        """Yield what is told after an event, to the last one, each once and in order. Raises StoreError.

        Who follows keeps it going. Where its process has ended it is made here, with the `opener` of who
        follows or of who asked here; without any it is given up, and can be asked for again.
        """
        try:
            while True:
                news = self._told.setdefault(generation_id, asyncio.Event())
                told, state = await asyncio.to_thread(self._store.told, generation_id, after)
                for one in told:
                    after = one.seq
                    yield one
                    if one.kind.is_last:
                        return
                if state is None or state.is_final:
                    return
                if self._is_due(self._beaten, generation_id, self._pace.beat_s):
                    await asyncio.to_thread(self._store.beat, generation_id)
                if self._is_due(self._looked, generation_id, self._pace.lost_s):
                    await self._look_after(generation_id, opener)
                is_here = generation_id in self._made  # then who writes the log wakes who reads it
                await _first(news, self._pace.beat_s if is_here else self._pace.poll_s)
        finally:
            self._wake(generation_id)  # and let the others wait anew

    async def cancel(self, generation_id: GenerationId) -> None:
        """Stop it for all who follow it, at the engine too. Raises StoreError."""
        await asyncio.to_thread(self._store.stop, generation_id)
        making = self._made.get(generation_id)
        if making is not None:
            making.stopping.set()
            return
        await self._to_its_end(self._end_gone(generation_id, _CANCELLED, ToldKind.CANCELLED))

    async def warm(self, asked: Asked, opener: Opener) -> None:
        """Have the engine read the chart in the background, once while nothing of it changes. Never fails."""
        key = (asked.server, asked.patient, asked.kind, asked.encounter, asked.access_profile)
        if key in self._warming or self._is_recent(self._opened, key, self._pace.look_again):
            return
        task = asyncio.create_task(self._warm(key, asked, opener))
        self._warming[key] = task
        task.add_done_callback(lambda _: self._warming.pop(key, None))

    async def warmed(self) -> None:
        """Wait until nothing is being warmed."""
        while self._warming:
            await asyncio.wait(self._warming.values())

    async def aclose(self) -> None:
        """Stop what is under way here. It is left to whoever follows it on another process."""
        await asyncio.gather(*self._unbroken, return_exceptions=True)
        for making in self._made.values():
            making.is_lost = True
            making.stopping.set()
        for warming in self._warming.values():
            warming.cancel()
        tasks = [making.task for making in self._made.values() if making.task is not None]
        await asyncio.gather(*tasks, *self._warming.values(), return_exceptions=True)

    # Beginning, joining, taking over

    async def _begin(self, asked: Asked, opener: Opener) -> Generation:
        attempt = await asyncio.to_thread(self._next_attempt, asked) if asked.attempt_wanted else 1
        slot, right = await asyncio.to_thread(self._take_slot)
        maker = Maker(secrets.token_hex(8), slot)
        new = Generation(
            GenerationId(secrets.token_hex(16)), asked, GenerationState.QUEUED, self._clock(), attempt
        )
        try:
            joined = await asyncio.to_thread(self._store.join, new, maker)
        except BaseException:
            right.close()
            raise
        if joined.id != new.id:
            right.close()
            return await self._joined(joined, opener)
        _keep(self._openers, new.id, opener)
        self._start(_Making(new, maker, right, opener))
        return new

    async def _joined(self, found: Generation, opener: Opener) -> Generation:
        _keep(self._openers, found.id, opener)
        await asyncio.to_thread(self._store.beat, found.id)
        await self._look_after(found.id, opener)
        return found

    def _next_attempt(self, asked: Asked) -> int:
        newest = self._newest(asked)
        return 1 if newest is None else newest.inputs.attempt + 1

    def _newest(self, asked: Asked) -> StoredRun | None:
        reader = asked.access_profile
        return self._runs.newest(asked.server, asked.patient, asked.kind, asked.encounter, reader)

    def _take_slot(self) -> tuple[int, Right]:
        for slot in random.sample(range(SLOTS), SLOTS):
            right = self._store.hold_slot(slot)
            if right is not None:
                return slot, right
        raise StoreError("Too many summaries are being written.", "Ask again in a minute.")

    def _start(self, making: _Making) -> None:
        self._made[making.generation.id] = making
        making.task = asyncio.create_task(self._make(making))

    async def _look_after(self, generation_id: GenerationId, opener: Opener | None) -> None:
        """Make it here where its maker is gone."""
        if generation_id in self._made:
            return
        opener = opener or self._openers.get(generation_id)
        if opener is None:
            await self._to_its_end(self._end_gone(generation_id, _failed(ORPHANED), ToldKind.FAILED))
        else:
            await self._to_its_end(self._make_instead(generation_id, opener))

    async def _make_instead(self, generation_id: GenerationId, opener: Opener) -> None:
        taken = await self._take_over(generation_id)
        if taken is None:
            return
        making, makers = taken
        making.opener = opener
        if makers > MOST_MAKERS:
            await self._finish(making, _failed(ORPHANED), ToldKind.FAILED)
        else:
            self._start(making)

    async def _end_gone(self, generation_id: GenerationId, ended: _Ended, kind: ToldKind) -> None:
        taken = await self._take_over(generation_id)
        if taken is not None:
            await self._finish(taken[0], ended, kind)

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what takes a lock to its end, even where whoever asked for it has gone meanwhile.

        A lock that nobody lets go would say for ever that somebody makes what nobody does.
        """
        task = asyncio.create_task(work)
        self._unbroken.add(task)
        task.add_done_callback(self._unbroken.discard)
        return await asyncio.shield(task)

    async def _right_of_gone(self, generation_id: GenerationId) -> tuple[Maker, int, Right] | None:
        """Return the maker that is gone, and a lock for who takes its place; None where it lives."""
        gone = await asyncio.to_thread(self._store.maker_of, generation_id)
        if gone is None or generation_id in self._made:
            return None
        if gone.slot < 0:
            return gone, *await asyncio.to_thread(self._take_slot)
        right = await asyncio.to_thread(self._store.hold_slot, gone.slot)
        return None if right is None else (gone, gone.slot, right)

    async def _take_over(self, generation_id: GenerationId) -> tuple[_Making, int] | None:
        """Take the place of a maker that is gone, and return how many there were; None where it lives."""
        held = await self._right_of_gone(generation_id)
        if held is None:
            return None
        gone, slot, right = held
        maker = Maker(secrets.token_hex(8), slot)
        try:
            taken = await asyncio.to_thread(self._store.take_over, generation_id, gone, maker)
        except BaseException:
            right.close()
            raise
        if taken is None:
            right.close()
            return None
        making = _Making(taken.generation, maker, right, _nobody, taken.last, set(taken.claims))
        return making, taken.makers

    # Making

    async def _make(self, making: _Making) -> None:
        """Make one to its end, keep its log, and stop it where nobody wants it any more."""
        work = asyncio.create_task(self._work(making))
        watch = asyncio.create_task(self._watch(making, work))
        log = asyncio.create_task(self._log(making))
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError:
            making.is_lost = True
            raise
        finally:
            work.cancel()
            watch.cancel()
            making.is_over = True
            making.news.set()
            await asyncio.wait((work, watch, log))
            ended, kind = _how(work)
            await self._finish(making, ended, kind)

    async def _finish(self, making: _Making, ended: _Ended, kind: ToldKind) -> None:
        """Tell the end, unless it is left to another, and let the lock go."""
        generation = making.generation
        try:
            if not making.is_lost and not making.waiting:
                last = Told(making.last + 1, kind, ended.data)
                done = replace(generation, state=ended.state, run_id=ended.run_id, error=ended.error)
                await asyncio.to_thread(self._store.end, done, making.maker.name, last, self._clock())
        except StoreError as error:  # whoever follows finds the lock free, and makes it
            _log.warning("How a summary ended could not be kept (%s)", error.code)
        finally:
            self._made.pop(generation.id, None)
            if not making.is_lost:
                self._openers.pop(generation.id, None)
            await asyncio.to_thread(making.right.close)
            self._wake(generation.id)

    async def _work(self, making: _Making) -> _Ended:
        generation, asked = making.generation, making.generation.asked
        async with self._seats:
            if not await asyncio.to_thread(self._store.begin, generation.id, making.maker.name):
                raise asyncio.CancelledError
            async with making.opener(making.tell_stage) as summarizer:
                ready = await summarizer.prepare(
                    asked.patient, kind=asked.kind, encounter=asked.encounter or None,
                    attempt=generation.attempt, actor=asked.actor, tell=making.tell_stage,
                )  # fmt: skip
                if (ready.inputs.server, ready.inputs.access_profile) != (asked.server, asked.access_profile):
                    return _failed(NO_ACCESS)
                ready, run = await asyncio.to_thread(self._earlier, ready, asked)
                if run is None:
                    run = await summarizer.draft(ready, making.tell_claim)
        making.is_written = True
        return await self._filed(run, asked, making.tell_stage)

    def _earlier(self, ready: Ready, asked: Asked) -> tuple[Ready, StoredRun | None]:
        """Return the run that these inputs already led to; where it was withdrawn, the next attempt."""
        if not asked.attempt_wanted:
            newest = self._newest(asked)
            if newest is not None and is_same_chart(newest.inputs, ready.inputs, ready.looked):
                return replace(ready, inputs=newest.inputs), newest
            if newest is not None:
                again = with_key(replace(ready.inputs, attempt=newest.inputs.attempt))
                if again.key == newest.inputs.key:
                    return replace(ready, inputs=again), newest
        withdrawn = {
            one.run_id
            for one in self._runs.documents_of(asked.patient)
            if one.state is DocumentState.WITHDRAWN
        }
        while (run := self._runs.find_by_key(ready.inputs.key)) is not None and run.run_id in withdrawn:
            ready = replace(ready, inputs=with_key(replace(ready.inputs, attempt=run.inputs.attempt + 1)))
        return ready, run

    async def _filed(self, run: StoredRun, asked: Asked, tell: Progress) -> _Ended:
        """File what is not filed yet, where it may be; a server that refuses takes nothing from who waits.

        What one user may not read is missing for that user alone: such a text is nobody else's draft.
        """
        state, error = run.state, ""
        if state in (RunState.GENERATED, RunState.DRY):
            if asked.only_kept or self._file is None or (run.is_of_user and run.is_narrowed):
                state = RunState.DRY
                await asyncio.to_thread(self._runs.finish, run.run_id, state)
            else:
                tell("publish", "")
                try:
                    state = (await self._file(run, asked)).state
                except (EpicrisisError, ConnectorError) as failure:
                    error = failure.code
        said = {"run_id": run.run_id, "state": state.value} | ({"error": error} if error else {})
        return _Ended(GenerationState.DONE, said, run.run_id)

    async def _watch(self, making: _Making, work: asyncio.Task[_Ended]) -> None:
        """Cancel the work where nobody follows it any more, where it was stopped, or is another's by now."""
        seen, since = -1, self._monotonic()
        while not work.done():
            await _first(making.stopping, self._pace.look_s)
            making.stopping.clear()
            if making.is_lost:
                work.cancel()
                return
            try:
                found = await asyncio.to_thread(self._store.beats, making.generation.id, making.maker.name)
            except StoreError:  # nobody can say that they follow, either
                since = self._monotonic()
                continue
            held = await asyncio.to_thread(making.right.is_held)
            making.is_lost = making.is_lost or found is None or not held
            now = self._monotonic()
            if found is not None and found[0] != seen:
                seen, since = found[0], now
            is_unwanted = found is not None and not found[1]
            # the last sign of life came up to a beat before the last follower went
            is_alone = now - since >= self._pace.gone_s + self._pace.beat_s
            if making.is_lost or (not making.is_written and (is_unwanted or is_alone)):
                work.cancel()
                return

    async def _log(self, making: _Making) -> None:
        """Write what is told into the log, until it is over and all is written."""
        failed = 0
        while not making.is_lost and failed < MOST_MAKERS:
            await making.news.wait()
            making.news.clear()
            said, making.waiting = making.waiting, []
            events = [Told(number, kind, data) for number, (kind, data) in enumerate(said, making.last + 1)]
            try:
                kept = not events or await asyncio.to_thread(
                    self._store.tell, making.generation.id, making.maker.name, events
                )
                making.last += len(events)
                making.is_lost = making.is_lost or not kept
                failed = 0
            except StoreError as error:
                _log.warning("What is told of a summary could not be kept (%s)", error.code)
                making.waiting = said + making.waiting
                failed += making.is_over
                making.news.set()
                await asyncio.sleep(self._pace.poll_s)
            self._wake(making.generation.id)
            if making.is_over and not making.waiting:
                return

    # Following

    def _wake(self, generation_id: GenerationId) -> None:
        event = self._told.pop(generation_id, None)
        if event is not None:
            event.set()

    def _is_due(
        self, last: OrderedDict[GenerationId, float], generation_id: GenerationId, every_s: float
    ) -> bool:
        """Tell whether something is to be done again for a generation: all who follow it here share it."""
        now, before = self._monotonic(), last.get(generation_id)
        if before is not None and now - before < every_s:
            return False
        _keep(last, generation_id, now)
        return True

    async def _forget(self) -> None:
        """Forget logs that are old enough, once an hour."""
        now = self._monotonic()
        if self._forgot_at is not None and now - self._forgot_at < 3600:
            return
        self._forgot_at = now
        with suppress(StoreError):
            await asyncio.to_thread(self._store.forget_generations, self._clock() - self._pace.keep)

    # Warming

    async def _warm(self, opened: tuple[str, ...], asked: Asked, opener: Opener) -> None:
        try:
            async with opener(lambda stage, detail: None) as summarizer:
                ready = await summarizer.prepare(
                    asked.patient, kind=asked.kind, encounter=asked.encounter or None, actor=asked.actor,
                    looks=False,
                )  # fmt: skip
                inputs = ready.inputs
                key = (
                    inputs.record_digest, inputs.template_digest, inputs.model_digest, inputs.encounter,
                    inputs.access_profile,
                )  # fmt: skip
                if not self._is_recent(self._warmed, key, self._pace.warm_again):
                    await summarizer.warm(ready)
                    _keep(self._warmed, key, self._monotonic())
                _keep(self._opened, opened, self._monotonic())
        except (EpicrisisError, ConnectorError) as error:
            _log.info("A chart could not be read ahead (%s)", error.code)
        except Exception as error:
            _log.error("A chart could not be read ahead: %s", type(error).__name__)

    def _is_recent(
        self, kept: OrderedDict[tuple[str, ...], float], key: tuple[str, ...], within: timedelta
    ) -> bool:
        at = kept.get(key)
        return at is not None and self._monotonic() - at < within.total_seconds()


def _keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    """Keep a value, and forget the oldest beyond what one process needs."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > MOST_KEPT:
        kept.popitem(last=False)


def _how(work: asyncio.Task[_Ended]) -> tuple[_Ended, ToldKind]:
    """Return how the work ended, in words that say nothing of a patient."""
    if work.cancelled():
        return _CANCELLED, ToldKind.CANCELLED
    error = work.exception()
    if error is None:
        ended = work.result()
        return ended, ToldKind.FAILED if ended.state is GenerationState.FAILED else ToldKind.DONE
    if isinstance(error, EpicrisisError | ConnectorError):
        return _failed(error.code), ToldKind.FAILED
    _log.error("A summary could not be written: %s", type(error).__name__)
    return _failed(INTERNAL), ToldKind.FAILED


def _failed(code: str) -> _Ended:
    text = SENTENCES.get(code, _OF_THE_RECORD)
    return _Ended(GenerationState.FAILED, {"error": code, "text": text}, error=code)


def _nobody(tell: Progress) -> AbstractAsyncContextManager[Summarizer]:
    raise ShreddedError


async def _first(event: asyncio.Event, within_s: float) -> None:
    """Wait for an event, but no longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
