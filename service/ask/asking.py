"""Asking: read the chart as the user, find what the question is about, ask the engine, judge, keep.

Whatever fails at the engine costs its words and no more: what the question names is then told by the record's
own lines. Cancelling stops the generation at the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, NamedTuple

from connectors.errors import ConnectorError
from service.ask.answer import answer_of, to_ask
from service.ask.match import Matched, match_facts
from service.ask.question import sought_in
from service.context.choose import BudgetTooSmall, TokenCount, choose_facts
from service.context.chosen import Context
from service.context.render import Request, requests_for
from service.context.stay import find_stay
from service.context.templates import QUESTION
from service.engine.prompt import Completion, Engine, Message, Profile
from service.errors import EpicrisisError, StoreError
from service.grounding.check import Checker
from service.grounding.summary import Claim
from service.ports import Action, AuditEntry, AuditLog, Clock
from service.ports.questions import Question, QuestionState, QuestionStore
from service.record.facts import Fact, PatientRecord, RequiredKind
from service.record.required import required_facts
from service.summarize import SEED, Progress, Ready, Summarizer
from service.verify import check_answers, claims_of

WHOLE_S: Final = 180.0
"""Longest that a question takes, reading the chart included."""
ENGINE_S: Final = 60.0
"""Longest that the engine is waited for; then the record's own lines answer."""
FRESH_FOR: Final = timedelta(minutes=15)
"""A chart that was read longer ago is read again, which costs what has changed."""
LOOK_S: Final = 1.0
IN_FLIGHT: Final = 16
TIMEOUT: Final = "timeout"

Opener = Callable[[Progress], AbstractAsyncContextManager[Summarizer]]
"""Opens the use case that reads as the one who asks."""


class _Judged(NamedTuple):
    """What the engine was asked, what it answered, and what the rules say of it."""

    context: Context | None = None
    requests: tuple[Request, ...] = ()
    completions: tuple[Completion, ...] = ()
    claims: tuple[Claim, ...] = ()
    error: str = ""


@dataclass
class _Stage:
    """How far the work is: one word of the use case's stages."""

    name: str = ""

    def tell(self, stage: str, detail: str) -> None:
        """Take note of a stage."""
        self.name = stage


class Asking:
    """Answers questions. One instance serves many users and patients."""

    def __init__(
        self,
        *,
        store: QuestionStore,
        audit: AuditLog,
        clock: Clock,
        whole_s: float = WHOLE_S,
        engine_s: float = ENGINE_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock
        self._whole_s = whole_s
        self._engine_s = engine_s
        self._look_s = look_s

    async def ask(self, question: Question, opener: Opener, former: str = "") -> Question:
        """Answer a question that is kept already, and keep what came of it. `former` is the one before it.

        Raises StoreError where that cannot be kept. Who cancels this takes the question back.
        """
        stage = _Stage()
        work = asyncio.create_task(self._answered(question, opener, former, stage))
        watch = asyncio.create_task(self._watch(question, stage, work))
        try:
            await asyncio.wait((work,))
            done = replace(question, state=QuestionState.CANCELLED) if work.cancelled() else work.result()
        except asyncio.CancelledError:
            await asyncio.to_thread(self._store.cancel, question.id)
            raise
        finally:
            watch.cancel()
            work.cancel()
            await asyncio.wait((work, watch))
        if not await asyncio.to_thread(self._store.settle_question, done):
            return replace(question, state=QuestionState.CANCELLED)
        return done

    async def _watch(self, question: Question, stage: _Stage, work: asyncio.Task[Question]) -> None:
        """Tell the store how far the work is, and stop it where nobody wants it any more."""
        while not work.done():
            await asyncio.sleep(self._look_s)
            try:
                is_wanted = await asyncio.to_thread(self._store.note, question.id, stage.name)
            except StoreError:  # the answer may still be kept; if not, that is said then
                continue
            if not is_wanted:
                work.cancel()

    async def _answered(self, question: Question, opener: Opener, former: str, stage: _Stage) -> Question:
        try:
            async with asyncio.timeout(self._whole_s), opener(stage.tell) as summarizer:
                ready = await self._read(summarizer, question, stage.tell)
                return await self._of_chart(question, ready, summarizer.engine, former, stage)
        except TimeoutError:
            return replace(question, state=QuestionState.FAILED, error=TIMEOUT)
        except (EpicrisisError, ConnectorError) as error:
            return replace(question, state=QuestionState.FAILED, error=error.code)

    async def _read(self, summarizer: Summarizer, question: Question, tell: Progress) -> Ready:
        """Return the chart as this reader's last fetch left it, or read it anew where that is too old."""

        async def prepare(*, as_kept: bool) -> Ready:
            return await summarizer.prepare(
                question.patient, kind=QUESTION, actor=question.actor, tell=tell, as_kept=as_kept, looks=False
            )

        try:
            kept = await prepare(as_kept=True)
        except StoreError:
            return await prepare(as_kept=False)
        is_fresh = self._clock() - kept.pull.read_at <= FRESH_FOR
        return kept if is_fresh else await prepare(as_kept=False)

    async def _of_chart(
        self, question: Question, ready: Ready, engine: Engine, former: str, stage: _Stage
    ) -> Question:
        record, at_hand = ready.record, question.encounter or None
        sought = sought_in(question.text, former)
        stage.tell("choose", "")
        matched = await asyncio.to_thread(match_facts, record, sought)
        stay = find_stay(record, at_hand)
        required = await asyncio.to_thread(
            required_facts, record, encounter=stay.reference if stay is not None else None
        )
        judged = await self._judged(question, ready, engine, matched, required, stage)
        answer = answer_of(
            sought, matched, record, required, judged.context, judged.claims, ready.pull.read_at, judged.error
        )
        return replace(
            question,
            state=QuestionState.ANSWERED,
            inputs=ready.inputs,
            prompts=tuple(request.prompt for request in judged.requests),
            completions=judged.completions,
            answer=answer,
        )

    async def _judged(
        self,
        question: Question,
        ready: Ready,
        engine: Engine,
        matched: Matched,
        required: Sequence[RequiredKind],
        stage: _Stage,
    ) -> _Judged:
        """Ask the engine, and judge every sentence by the rules of a summary."""
        loop = asyncio.get_running_loop()

        def count(chat: tuple[Message, ...]) -> int:
            return asyncio.run_coroutine_threadsafe(engine.count_tokens(chat), loop).result()

        try:
            async with asyncio.timeout(self._engine_s):
                context = await asyncio.to_thread(_chosen, question, ready, matched, required, count)
                if context is None or not context.cites:
                    return _Judged()
                requests = requests_for(context, ready.templates, ready.info.profile, seed=SEED)
                stage.tell("generate", "")
                answered, error = await self._generated(requests, engine)
        except TimeoutError:
            self._record(question, TIMEOUT)
            return _Judged(error=TIMEOUT)
        except BudgetTooSmall as small:
            return _Judged(error=small.code)
        self._record(question, error or "ok", len(answered))
        stage.tell("verify", "")
        asked = tuple(request for request, _ in answered)
        completions = tuple(completion for _, completion in answered)

        def judge() -> tuple[Claim, ...]:
            checker = Checker(context, ready.record)
            return tuple(claims_of(checker, context, check_answers(checker, asked, completions)))

        return _Judged(context, asked, completions, await asyncio.to_thread(judge), error)

    async def _generated(
        self, requests: Sequence[Request], engine: Engine
    ) -> tuple[list[tuple[Request, Completion]], str]:
        """Return what was answered, and the error code of a request that failed."""
        seats = asyncio.Semaphore(IN_FLIGHT)
        errors: list[str] = []

        async def one(request: Request) -> Completion | None:
            async with seats:
                try:
                    return await engine.generate(request.prompt)
                except EpicrisisError as error:
                    errors.append(error.code)
                    return None

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(request)) for request in requests]
        answers = ((request, task.result()) for request, task in zip(requests, tasks, strict=True))
        return [(request, answer) for request, answer in answers if answer is not None], "".join(errors[:1])

    def _record(self, question: Question, outcome: str, requests: int = 0) -> None:
        self._audit.append(
            AuditEntry(
                Action.GENERATE,
                question.actor,
                question.patient,
                self._clock(),
                outcome=outcome,
                run_id=question.id,
                counts={"requests": requests},
                server=question.server,
                by=question.by,
            )
        )


def _chosen(
    question: Question,
    ready: Ready,
    matched: Matched,
    required: Sequence[RequiredKind],
    count: TokenCount,
) -> Context | None:
    """Return what the engine is shown; None where it has nothing to be asked about.

    A model that is asked the whole question gets the evidence that every task on this patient begins with,
    then what matches. One that is guided is asked about the facts that the question names, one by one.
    """
    record, templates, profile = ready.record, ready.templates, ready.info.profile
    budget = ready.inputs.budget_tokens
    if profile.mode == "guided":
        return _guided(question, ready, to_ask(matched), profile, count)
    stay = find_stay(record, question.encounter or None, ended=True)
    return choose_facts(
        record, required, templates, profile, budget, count, stay=stay, question=question.text,
        matching=matched.all,
    )  # fmt: skip


def _guided(
    question: Question, ready: Ready, facts: Sequence[Fact], profile: Profile, count: TokenCount
) -> Context | None:
    record = ready.record
    named = tuple(fact for fact in record.facts if fact in facts)
    if not named:
        return None
    part: PatientRecord = replace(record, facts=named, gaps=(), _by_id={})
    return choose_facts(
        part, (), ready.templates, profile, ready.inputs.budget_tokens, count, question=question.text
    )
