"""One review: statements beside their sources, scored one by one; omissions, the form, and the end.

Every act is a form that works without a script. Nothing tells a planted error from a statement before the
review is finished, and nothing of it goes anywhere but into the review.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Path, Request
from fastapi.responses import RedirectResponse, Response

from service.api.form import is_partial, plain_words, read_form
from service.api.gate import may, visitor_of
from service.api.pages import SummaryPage, build_page, number_sources
from service.api.render import page as render
from service.api.review.desk import RUN, Desk
from service.api.review.frame import review_page
from service.api.review.shown import (
    KEYS,
    RULES,
    SUPPORTS,
    ShownItem,
    show_coverage,
    show_item,
    show_outcome,
    show_support,
)
from service.api.security import allow_frames
from service.identity.visitor import Visitor
from service.ports import Action, StoredRun
from service.ports.feedback import LONGEST_WORDS as LONGEST_DISPUTE
from service.ports.feedback import ClaimKey, Feedback, FeedbackId, Mark
from service.ports.reviews import (
    FORM_SCALES,
    LONGEST_WORDS,
    ActKind,
    Form,
    Omission,
    Outcome,
    Review,
    Rule,
    Score,
    Seeded,
    Support,
)
from service.record.facts import FactId
from service.review.figures import coverage_of, support_of
from service.review.form import questions
from service.review.items import Item, items_of, left_to_score, score_of
from service.review.sampling import entry_for, is_seeded
from service.review.seeded import plant

ITEM: Final = RUN + "/items/{number}"
Number = Annotated[int, Path(ge=1, le=100_000)]
UNDONE: Final[Mapping[ActKind, str]] = {
    ActKind.SCORE: "Taken back: your last score.",
    ActKind.SEEDED: "Taken back: your last score.",
    ActKind.FORM: "Taken back: your last form. The one before counts again, if there was one.",
    ActKind.OMISSION: "Taken back: the last omission that you named.",
    ActKind.DISPUTE: "Taken back: your last dispute.",
}


class ScoringRoom:
    """The routes, over what reviewers work with."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(RUN, self.show, methods=["GET", "HEAD"], response_model=None)
        for path, endpoint in (
            (RUN + "/begin", self.begin),
            (ITEM + "/score", self.score),
            (ITEM + "/dispute", self.dispute),
            (RUN + "/omissions", self.omit),
            (RUN + "/form", self.answer),
            (RUN + "/undo", self.undo),
            (RUN + "/finish", self.finish),
        ):
            app.add_api_route(path, endpoint, methods=["POST"], response_model=None)

    def show(self, request: Request, run_id: str, undone: str = "") -> Response:
        """Show one review of this visitor, or what there is to know before it is begun."""
        visitor, run = visitor_of(request), self._desk.run(run_id)
        self._desk.record(Action.VIEW, visitor, run, run.document)
        review = self._desk.review_by(run.run_id, visitor)
        if review is None:
            return self._before(request, run)
        return self._page(request, run, review, undone)

    async def begin(self, request: Request, run_id: str) -> Response:
        """Begin a review; with the first one of a run that nobody queued, the run is queued by hand."""
        fields = await read_form(request)
        await asyncio.to_thread(self._begin, visitor_of(request), run_id, "two" in fields)
        return _back(run_id, "#item-1")

    async def score(self, request: Request, run_id: str, number: Number) -> Response:
        """Keep what is said of one statement, and return its part of the page."""
        fields = await read_form(request)
        try:
            support = Support(fields.get("support", ""))
        except ValueError:
            raise HTTPException(400) from None
        words = plain_words(fields.get("words", ""), LONGEST_WORDS)
        await asyncio.to_thread(self._score, visitor_of(request), run_id, number, support, words)
        return await self._part(request, run_id, number)

    async def dispute(self, request: Request, run_id: str, number: Number) -> Response:
        """Mark a statement as disputed, for every viewer at once (SAFETY 24)."""
        fields = await read_form(request)
        try:
            mark = Mark(fields.get("mark", Mark.WRONG.value))
        except ValueError:
            raise HTTPException(400) from None
        if not mark.disputes:
            raise HTTPException(400)
        words = plain_words(fields.get("words", ""), LONGEST_DISPUTE)
        await asyncio.to_thread(self._dispute, visitor_of(request), run_id, number, mark, words)
        return await self._part(request, run_id, number)

    async def omit(self, request: Request, run_id: str) -> Response:
        """Keep something that should stand in the summary and does not."""
        fields = await read_form(request)
        words = plain_words(fields.get("words", ""), LONGEST_WORDS)
        await asyncio.to_thread(self._omit, visitor_of(request), run_id, words, fields.get("source", ""))
        return _back(run_id, "#omissions")

    async def answer(self, request: Request, run_id: str) -> Response:
        """Keep the form."""
        fields = await read_form(request)
        words = plain_words(fields.get("words", ""), LONGEST_WORDS)
        answers = _answers(fields)
        await asyncio.to_thread(self._answer, visitor_of(request), run_id, answers, words)
        return _back(run_id, "#form")

    async def undo(self, request: Request, run_id: str) -> Response:
        """Take back the last act."""
        undone = await asyncio.to_thread(self._undo, visitor_of(request), run_id)
        return _back(run_id, f"?undone={undone}#acts" if undone else "#acts")

    async def finish(self, request: Request, run_id: str) -> Response:
        """End the review: accepted once everything is scored, or rejected with a reason."""
        fields = await read_form(request)
        try:
            outcome = Outcome(fields.get("outcome", ""))
        except ValueError:
            raise HTTPException(400) from None
        reason = plain_words(fields.get("reason", ""), LONGEST_WORDS)
        problem = await asyncio.to_thread(self._finish, visitor_of(request), run_id, outcome, reason)
        if problem:
            return await asyncio.to_thread(self._refuse, request, run_id, problem)
        return _back(run_id)

    def _before(self, request: Request, run: StoredRun) -> Response:
        entry = self._desk.reviews.entry_of(run.run_id)
        return review_page(
            request,
            "begin.html",
            page=build_page(run, self._desk.clock()),
            entry=entry,
            rule=RULES[entry.rule] if entry is not None else "",
            support=show_support(support_of(run.summary)),
            coverage=show_coverage(coverage_of(run.summary)),
            statements=len(run.summary.published) + len(run.summary.refused),
            prompt=f"{run.inputs.prompt_id} {run.inputs.prompt_version}",
        )

    def _page(
        self,
        request: Request,
        run: StoredRun,
        review: Review,
        undone: str = "",
        problem: str = "",
        status: int = 200,
    ) -> Response:
        items = items_of(run.summary, review.seeded)
        page = build_page(run, self._desk.clock())
        allow_frames(request.scope, ())  # nobody frames it; its script asks us
        return review_page(
            request,
            "run.html",
            status,
            page=page,
            review=review,
            items=self._items(run, review, items, page),
            omissions=_omissions(run, review, page),
            questions=questions(),
            outcome=show_outcome(review),
            planted=_planted(review, items) if review.ended_at is not None else None,
            undone=_told_undone(undone),
            problem=problem,
            may_attest=may(request, "GET", "/review/attest/{run_id}"),
            has_pictures=bool(run.inputs.images),
            **self._progress(items, review),
        )

    def _progress(self, items: Sequence[Item], review: Review) -> dict[str, Any]:
        return {
            "total": len(items),
            "scored": len(items) - left_to_score(items, review),
            "run_id": review.run_id,
            "supports": [(one.value, SUPPORTS[one], KEYS[one]) for one in Support],
            "is_open": review.ended_at is None,
        }

    def _items(
        self, run: StoredRun, review: Review, items: Sequence[Item], page: SummaryPage
    ) -> list[ShownItem]:
        server, patient, feedback = run.inputs.server, run.inputs.patient, self._desk.feedback
        keys = feedback.claim_keys(server, patient, [item.claim for item in items if item.is_published])
        disputed = feedback.disputes_of(server, patient)
        said = feedback.said_of(run.run_id)
        others = self._others(run, review)
        numbers = _numbers(run)
        shown = []
        for item in items:
            key = str(keys[item.claim]) if item.is_published else ""
            shown.append(
                show_item(
                    item, page, run, review, numbers, key=key, disputed=bool(key) and key in disputed,
                    said=[one for one in said if key and one.claim == key], others=others,
                )
            )  # fmt: skip
        return shown

    def _others(self, run: StoredRun, review: Review) -> list[Review]:
        """Return what others found, once this reviewer has finished: until then each reviews alone."""
        if review.ended_at is None:
            return []
        found = self._desk.reviews.reviews_of(run.run_id)
        return [one for one in found if one.ended_at is not None and one.reviewer != review.reviewer]

    async def _part(self, request: Request, run_id: str, number: int) -> Response:
        """Return the part of the page that changed; without a script, the page."""
        if not is_partial(request):
            return _back(run_id, f"#item-{number}")
        return await asyncio.to_thread(self._item, request, run_id, number)

    def _item(self, request: Request, run_id: str, number: int) -> Response:
        run = self._desk.run(run_id)
        review = self._review(run, visitor_of(request))
        items = items_of(run.summary, review.seeded)
        page = build_page(run, self._desk.clock())
        shown = self._items(run, review, [_item(items, number)], page)
        return render("review/_scored.html", item=shown[0], page=page, **self._progress(items, review))

    def _refuse(self, request: Request, run_id: str, problem: str) -> Response:
        run = self._desk.run(run_id)
        return self._page(request, run, self._review(run, visitor_of(request)), problem=problem, status=409)

    def _begin(self, visitor: Visitor, run_id: str, is_double: bool) -> None:
        desk, run = self._desk, self._desk.run(run_id)
        entry = desk.reviews.entry_of(run.run_id)
        desk.record(Action.REVIEW, visitor, run, "begin")
        if entry is None:
            entry = entry_for(
                run, Rule.HAND, "A reviewer asked for it.", desk.sampling, desk.keyed_hash, desk.clock(),
                wanted=2 if is_double else 1,
            )  # fmt: skip
            desk.reviews.enqueue(entry)
        review = Review(
            run.run_id, visitor.actor, entry.rule, desk.clock(), run.inputs.patient, by=visitor.fhir_user,
            seeded=self._seed(run, visitor.actor, entry.rule),
        )  # fmt: skip
        desk.reviews.begin(review)

    def _seed(self, run: StoredRun, reviewer: str, rule: Rule) -> Seeded | None:
        """Return the error that is planted into this review, if one is drawn and anything takes it."""
        desk = self._desk
        if rule is not Rule.SEEDED and not is_seeded(run.run_id, reviewer, desk.sampling, desk.keyed_hash):
            return None
        planted = plant(run.summary, desk.keyed_hash("planted error", f"{run.run_id} {reviewer}"))
        if planted is None:
            return None
        return Seeded(run.run_id, reviewer, planted.ordinal, planted.kind, planted.text)

    def _score(self, visitor: Visitor, run_id: str, number: int, support: Support, words: str) -> None:
        desk, run = self._desk, self._desk.run(run_id)
        review = self._open(run, visitor)
        item = _item(items_of(run.summary, review.seeded), number)
        desk.record(Action.REVIEW, visitor, run, "score")
        if item.is_seeded:
            desk.reviews.keep_seeded(run.run_id, visitor.actor, support, desk.clock(), words)
        else:
            desk.reviews.keep_score(
                Score(run.run_id, item.ordinal, visitor.actor, desk.clock(), support, words)
            )

    def _dispute(self, visitor: Visitor, run_id: str, number: int, mark: Mark, words: str) -> None:
        """Dispute a published statement; a planted one only in this review, where it alone is shown."""
        desk, run = self._desk, self._desk.run(run_id)
        review = self._open(run, visitor)
        item = _item(items_of(run.summary, review.seeded), number)
        if not item.is_published:
            raise HTTPException(400)  # nobody else is shown it
        key = desk.feedback.claim_key(run.inputs.server, run.inputs.patient, item.claim)
        if key in review.disputed:
            return
        desk.record(Action.FEEDBACK, visitor, run, mark.value)
        if not item.is_seeded:
            desk.feedback.say(_said(run, visitor, key, item, mark, words, desk.clock))
        desk.reviews.keep_dispute(run.run_id, visitor.actor, key, desk.clock())

    def _omit(self, visitor: Visitor, run_id: str, words: str, source: str) -> None:
        desk, run = self._desk, self._desk.run(run_id)
        self._open(run, visitor)
        named = {str(number): fact_id for fact_id, number in _numbers(run).items()}
        if source not in ("", *named) or not (words or source):
            raise HTTPException(400)
        fact = named.get(source, FactId(""))
        desk.record(Action.REVIEW, visitor, run, "omission")
        desk.reviews.keep_omission(Omission(run.run_id, visitor.actor, desk.clock(), words, fact))

    def _answer(self, visitor: Visitor, run_id: str, answers: Mapping[str, int], words: str) -> None:
        desk, run = self._desk, self._desk.run(run_id)
        self._open(run, visitor)
        desk.record(Action.REVIEW, visitor, run, "form")
        desk.reviews.keep_form(Form(run.run_id, visitor.actor, desk.clock(), answers, words))

    def _undo(self, visitor: Visitor, run_id: str) -> str:
        desk, run = self._desk, self._desk.run(run_id)
        review = self._open(run, visitor)
        if review.last is None:
            return ""
        desk.record(Action.REVIEW, visitor, run, "undo")
        undone = desk.reviews.undo(run.run_id, visitor.actor, desk.clock())
        if undone is None:
            return ""
        kind, key = undone
        if kind is ActKind.DISPUTE:
            desk.feedback.undo(run.run_id, visitor.actor, desk.clock(), ClaimKey(key))
        return "score" if kind is ActKind.SEEDED else kind.value

    def _finish(self, visitor: Visitor, run_id: str, outcome: Outcome, reason: str) -> str:
        """End a review, or say in a sentence what is missing."""
        desk, run = self._desk, self._desk.run(run_id)
        review = self._open(run, visitor)
        left = left_to_score(items_of(run.summary, review.seeded), review)
        if outcome is Outcome.ACCEPTED and left:
            return f"{left} {'statement has' if left == 1 else 'statements have'} no score yet."
        if outcome is Outcome.REJECTED and not reason:
            return "Say why it is rejected."
        desk.record(Action.REVIEW, visitor, run, f"finish:{outcome.value}")
        desk.reviews.finish(run.run_id, visitor.actor, outcome, reason, desk.clock())
        return ""

    def _review(self, run: StoredRun, visitor: Visitor) -> Review:
        review = self._desk.review_by(run.run_id, visitor)
        if review is None:
            raise HTTPException(404)
        return review

    def _open(self, run: StoredRun, visitor: Visitor) -> Review:
        review = self._review(run, visitor)
        if review.ended_at is not None:
            raise HTTPException(404)
        return review


def _numbers(run: StoredRun) -> dict[FactId, int]:
    """Return by which number each source is named, on this page as on the summary's own."""
    return number_sources(run.summary, {fact.id: fact for fact in run.summary.facts})


def _omissions(run: StoredRun, review: Review, page: SummaryPage) -> list[tuple[str, str]]:
    """Return the words of each omission with the entry of the record that it names, if it does."""
    numbers = _numbers(run)
    found = [(one.words, page.source(numbers.get(one.fact, 0))) for one in review.omissions]
    return [(words, source.text if source is not None else "") for words, source in found]


def _item(items: Sequence[Item], number: int) -> Item:
    found = next((item for item in items if item.number == number), None)
    if found is None:
        raise HTTPException(404)
    return found


def _said(
    run: StoredRun,
    visitor: Visitor,
    key: ClaimKey,
    item: Item,
    mark: Mark,
    words: str,
    clock: Callable[[], Any],
) -> Feedback:
    return Feedback(
        id=FeedbackId(secrets.token_hex(16)),
        about=run.run_id,
        server=run.inputs.server,
        patient=run.inputs.patient,
        mark=mark,
        actor=visitor.actor,
        at=clock(),
        claim=key,
        text=item.claim.text,
        words=words,
        by=visitor.fhir_user,
    )


def _answers(fields: Mapping[str, str]) -> dict[str, int]:
    """Return what a form answers; what it leaves open is not there. Raises HTTPException (400)."""
    answers = {}
    for name, (lowest, highest) in FORM_SCALES.items():
        said = fields.get(name, "")
        if not said:
            continue
        if said not in map(str, range(lowest, highest + 1)):
            raise HTTPException(400)
        answers[name] = int(said)
    return answers


def _planted(review: Review, items: Sequence[Item]) -> tuple[int, Seeded, str] | None:
    """Return where the planted error stood, once the review is finished, and what was said of it."""
    seeded = next((item for item in items if item.is_seeded), None)
    if seeded is None or review.seeded is None:
        return None
    said = score_of(seeded, review)
    return seeded.number, review.seeded, SUPPORTS[said] if said is not None else "not scored"


def _told_undone(kind: str) -> str:
    return next((words for one, words in UNDONE.items() if one.value == kind), "")


def _back(run_id: str, place: str = "") -> Response:
    return RedirectResponse(RUN.format(run_id=run_id) + place, status_code=303)
