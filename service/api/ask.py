"""Ask this chart: `POST /sidebar/ask` for pages, `POST /api/questions` for programs.

A question is answered as the user who was launched, by this process; any process shows how far it is, shows
the answer, and can take the question back. No answer is shown before its view stands in the audit log.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final
from urllib.parse import quote

import msgspec
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from service.api.answers import AskView, ShownAnswer, export_question, run_of, show_question
from service.api.app import AuditFailedError
from service.api.disputes import marks_of
from service.api.feedback import Feedbacks
from service.api.form import is_partial, read_form
from service.api.gate import launch_of
from service.api.pages import NO_MARKS, Marks
from service.api.problem import problem
from service.api.render import page
from service.ask.asking import WHOLE_S, Asking, Opener
from service.ask.question import QuestionError, read_question
from service.ask.suggest import suggest
from service.errors import StoreError
from service.filing.stopped import is_stopped
from service.ports import Action, AuditEntry, AuditLog, Clock, Stop
from service.ports.feedback import FeedbackStore
from service.ports.launches import Launch
from service.ports.questions import Question, QuestionId, QuestionState, QuestionStore
from service.record.facts import Fact

PATH: Final = "/sidebar/ask"
API: Final = "/api/questions"
AT_ONCE: Final = 2
"""Questions of one user that are answered at once."""
AT_ONCE_IN_ALL: Final = 16
KEPT_SHOWN: Final = 5
"""Former questions that a page shows again."""
LOST_AFTER: Final = timedelta(seconds=WHOLE_S + 30)
"""A question that is not answered by then was lost with its process."""
_ID = re.compile(r"[0-9a-f]{32}")
_RUN = re.compile(r"[A-Za-z0-9_-]{0,64}")
BUSY: Final = "You have asked two questions already. Wait for an answer, or stop one."

OpenerOf = Callable[[Launch], Opener]


class AskRoom:
    """The routes, over what they need."""

    def __init__(
        self,
        *,
        asking: Asking,
        questions: QuestionStore,
        feedback: FeedbackStore,
        feedbacks: Feedbacks,
        audit: AuditLog,
        clock: Clock,
        opener: OpenerOf,
        stops: Callable[[], Sequence[Stop]] = tuple,
    ) -> None:
        self._asking = asking
        self._questions = questions
        self._feedback = feedback
        self._feedbacks = feedbacks
        self._audit = audit
        self._clock = clock
        self._opener = opener
        self._stops = stops
        self._tasks: set[asyncio.Task[Question]] = set()
        self._busy: Counter[str] = Counter()

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(PATH, self.ask, methods=["POST"], response_model=None)
        app.add_api_route(PATH + "/{question_id}", self.show, methods=["GET"], response_model=None)
        app.add_api_route(PATH + "/{question_id}/cancel", self.cancel, methods=["POST"], response_model=None)
        app.add_api_route(API, self.ask_as_json, methods=["POST"], response_model=None)

    async def aclose(self) -> None:
        """Take back what is being answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def view(self, launch: Launch, facts: Sequence[Fact] = (), run_id: str = "") -> AskView:
        """Return what the sidebar shows: `facts` are what this user sees of the summary `run_id`.

        Answers shown again are recorded as viewed. Raises StoreError, and AuditFailedError.
        """
        about = self._questions.questions_about(launch.server, launch.patient, limit=4 * KEPT_SHOWN)
        mine = [one for one in about if _is_of(one, launch)][:KEPT_SHOWN]
        answers = tuple(self._shown(one, launch) for one in mine)
        return AskView(launch.visit, run_id, suggest(facts), answers)

    async def ask(self, request: Request) -> Response:
        """Take a question, and show how far its answer is."""
        launch, fields = launch_of(request), await read_form(request)
        try:
            text = read_question(fields.get("question", ""))
        except QuestionError as error:
            return self._not_taken(request, launch, f"{error.message} {error.advice}", 422)
        if self._is_busy(launch):
            return self._not_taken(request, launch, BUSY, 429)
        question = self._new(launch, text, fields.get("run", ""), fields.get("former", ""))
        await asyncio.to_thread(self._questions.ask, question)
        self._start(question, launch, await asyncio.to_thread(self._former_text, question, launch))
        if is_partial(request):
            shown = await asyncio.to_thread(self._shown, question, launch)
            return page("sidebar/_taken.html", answer=shown, asking=AskView(launch.visit))
        return RedirectResponse(f"{PATH}/{question.id}?visit={quote(launch.visit)}", status_code=303)

    async def show(self, request: Request, question_id: str) -> Response:
        """Show how far an answer is, or the answer."""
        launch = launch_of(request)
        question = await asyncio.to_thread(self._found, question_id, launch)
        shown = await asyncio.to_thread(self._shown, question, launch)
        if is_partial(request):
            return self._drawn(shown)
        return page("sidebar/answer.html", asking=AskView(launch.visit, question.run_id, (), (shown,)))

    async def cancel(self, request: Request, question_id: str) -> Response:
        """Take a question back: the engine stops within a second or two, in whichever process it is asked."""
        launch = launch_of(request)
        question = await asyncio.to_thread(self._found, question_id, launch)
        await asyncio.to_thread(self._questions.cancel, question.id)
        question = await asyncio.to_thread(self._found, question_id, launch)
        if is_partial(request):
            return self._drawn(await asyncio.to_thread(self._shown, question, launch))
        return RedirectResponse(f"{PATH}/{question.id}?visit={quote(launch.visit)}", status_code=303)

    async def ask_as_json(self, request: Request) -> Response:
        """Answer a question in one call. Who hangs up takes it back."""
        launch = launch_of(request)
        try:
            wanted = msgspec.json.decode(await request.body(), type=_Wanted)
        except (msgspec.MsgspecError, ValueError):
            return problem(400, 'Send {"patient": "Patient/1", "question": "…"}.')
        if wanted.patient not in (launch.patient, launch.patient.removeprefix("Patient/")):
            return problem(403, "This launch is for another patient.")
        try:
            text = read_question(wanted.question)
        except QuestionError as error:
            return problem(422, f"{error.message} {error.advice}")
        if self._is_busy(launch):
            return problem(429, BUSY)
        question = self._new(launch, text, wanted.run, wanted.former)
        await asyncio.to_thread(self._questions.ask, question)
        task = self._start(question, launch, await asyncio.to_thread(self._former_text, question, launch))
        try:
            done = await _unless_gone(request, task)
        except asyncio.CancelledError:
            task.cancel()
            raise
        return await asyncio.to_thread(self._exported, done, launch)

    def _exported(self, question: Question, launch: Launch) -> Response:
        if question.state is not QuestionState.ANSWERED or question.answer is None:
            return problem(
                503,
                "The question could not be answered. The patient's chart is not affected.",
                code=question.error,
            )
        run = run_of(question, question.answer)
        if run is not None and is_stopped(run, self._stops()):
            return problem(423)
        self._view(question, launch)
        marks = self._marks(question)
        body = export_question(question, marks.keys, marks.disputed)
        return Response(msgspec.json.encode(body), media_type="application/json")

    def _new(self, launch: Launch, text: str, run_id: str, former: str) -> Question:
        return Question(
            id=QuestionId(secrets.token_hex(16)),
            server=launch.server,
            patient=launch.patient,
            actor=launch.actor,
            access_profile=launch.access_profile,
            text=text,
            asked_at=self._clock(),
            run_id=run_id if _RUN.fullmatch(run_id) else "",
            former=former if _ID.fullmatch(former) else "",
            encounter=launch.encounter,
            by=launch.fhir_user,
        )

    def _start(self, question: Question, launch: Launch, former: str) -> asyncio.Task[Question]:
        task = asyncio.create_task(self._asking.ask(question, self._opener(launch), former))
        self._tasks.add(task)
        self._busy[launch.actor] += 1

        def ended(done: asyncio.Task[Question]) -> None:
            self._tasks.discard(done)
            self._busy[launch.actor] -= 1
            if not done.cancelled():
                done.exception()  # seen: a page that asks later is told that it was lost

        task.add_done_callback(ended)
        return task

    def _is_busy(self, launch: Launch) -> bool:
        return self._busy[launch.actor] >= AT_ONCE or len(self._tasks) >= AT_ONCE_IN_ALL

    def _former_text(self, question: Question, launch: Launch) -> str:
        """Return the question before this one, where it is this user's about this patient."""
        if not question.former:
            return ""
        try:
            former = self._questions.get_question(QuestionId(question.former))
        except StoreError:
            return ""
        return former.text if former is not None and _is_of(former, launch) else ""

    def _found(self, question_id: str, launch: Launch) -> Question:
        """Return this user's question about this patient. Raises HTTPException (404), and StoreError."""
        question = (
            self._questions.get_question(QuestionId(question_id)) if _ID.fullmatch(question_id) else None
        )
        if question is None or not _is_of(question, launch):
            raise HTTPException(404)
        return question

    def _shown(self, question: Question, launch: Launch) -> ShownAnswer:
        """Return a question as a page shows it; that an answer is viewed is on record then."""
        now = self._clock()
        if question.state is QuestionState.ASKED and now - question.asked_at > LOST_AFTER:
            question = replace(question, state=QuestionState.FAILED)
        marks, taps = NO_MARKS, None
        if question.answer is not None:
            self._view(question, launch)
            marks = self._marks(question)
            taps = self._feedbacks.taps(question.id, launch.actor, visit=launch.visit)
        return show_question(question, now, launch.visit, marks, taps, self._stops())

    def _marks(self, question: Question) -> Marks:
        run = run_of(question, question.answer) if question.answer is not None else None
        return marks_of(self._feedback, run) if run is not None else NO_MARKS

    def _view(self, question: Question, launch: Launch) -> None:
        entry = AuditEntry(
            Action.VIEW, launch.actor, question.patient, self._clock(), run_id=question.id,
            server=question.server, by=launch.fhir_user,
        )  # fmt: skip
        try:
            self._audit.append(entry)
        except Exception:
            raise AuditFailedError from None

    def _drawn(self, shown: ShownAnswer) -> Response:
        return page("sidebar/_answered.html", answer=shown)

    def _not_taken(self, request: Request, launch: Launch, why: str, status: int) -> Response:
        asking = AskView(launch.visit, refused=why)
        if not is_partial(request):
            return page("sidebar/answer.html", status, asking=asking)
        answer = page("sidebar/_refused.html", asking=asking)  # a script puts nothing in place of an error
        answer.headers.update({"HX-Retarget": "#ask-refused", "HX-Reswap": "outerHTML"})
        return answer


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    patient: str
    question: str
    run: str = ""
    former: str = ""


def _is_of(question: Question, launch: Launch) -> bool:
    """Tell whether a question is this user's, about this patient, read with what may be read now."""
    mine = (question.server, question.patient, question.actor, question.access_profile)
    return mine == (launch.server, launch.patient, launch.actor, launch.access_profile)


async def _unless_gone(request: Request, task: asyncio.Task[Question]) -> Question:
    """Wait for an answer; who hangs up meanwhile takes the question back."""
    while not task.done():
        await asyncio.wait((task,), timeout=1.0)
        if not task.done() and await request.is_disconnected():
            task.cancel()
            raise HTTPException(499)
    return task.result()
