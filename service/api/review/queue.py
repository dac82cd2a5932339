"""The queue: what waits for review and why, disputes without a ruling, and how reviewers and clinicians did.

Nothing of a patient stands on it. It is filled as it is opened: no worker has a part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import Response

from service.api.gate import visitor_of
from service.api.review.desk import AHEAD, BACK, MOST_DISPUTES, Desk
from service.api.review.frame import review_page
from service.api.review.shown import RULES, ShownEntry, show_age, show_entry
from service.api.words import count
from service.errors import ShreddedError
from service.filing.stopped import is_stopped
from service.ports import Stop
from service.ports.feedback import Feedback
from service.ports.reviews import QueueEntry, Review, Rule
from service.writeback.moment import show_instant

PATH: Final = "/review"
ROWS: Final = 50
LAST_PAGE: Final = 10_000


@dataclass(frozen=True, slots=True)
class ShownDispute:
    """One dispute without a ruling, without what it is about: that is on its page."""

    id: str
    mark: str
    at: str
    age: str
    is_mine: bool


class QueueRoom:
    """The routes, over what reviewers work with."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add_to(self, app: FastAPI) -> None:
        """Add the route."""
        app.add_api_route(PATH, self.show, methods=["GET", "HEAD"], response_model=None)

    def show(
        self,
        request: Request,
        rule: Annotated[str, Query(max_length=40)] = "",
        number: Annotated[int, Query(alias="page", ge=1, le=LAST_PAGE)] = 1,
    ) -> Response:
        """Fill the queue, and show one page of it, oldest first."""
        visitor, desk = visitor_of(request), self._desk
        wanted = _rule(rule)
        desk.record_list(visitor, "review:queue")
        desk.fill()
        waiting = desk.reviews.waiting()
        total = waiting.get(wanted, 0) if wanted is not None else sum(waiting.values())
        entries = desk.reviews.queue(ROWS, (number - 1) * ROWS, wanted)
        last = max(1, -(-total // ROWS))
        if number > last:
            raise HTTPException(404)
        disputes = desk.feedback.unsettled(MOST_DISPUTES)
        return review_page(
            request,
            "queue.html",
            entries=self._shown(entries, visitor.actor),
            rules=[(one.value, RULES[one], waiting[one]) for one in Rule if waiting.get(one)],
            rule=wanted.value if wanted is not None else "",
            total=total,
            everything=sum(waiting.values()),
            number=number,
            last=last,
            disputes=[self._dispute(one, visitor.actor) for one in disputes],
            figures=self._figures(),
        )

    def _shown(self, entries: Sequence[QueueEntry], actor: str) -> list[ShownEntry]:
        stops = self._desk.store.stops()
        found = [self._entry(entry, actor, stops) for entry in entries]
        return [entry for entry in found if entry is not None]

    def _entry(self, entry: QueueEntry, actor: str, stops: Sequence[Stop]) -> ShownEntry | None:
        """Return one row; None for a run that is stopped, or of a patient who was shredded meanwhile."""
        try:
            run = self._desk.store.get(entry.run_id)
        except ShreddedError:
            return None
        if run is None or is_stopped(run, stops):
            return None
        reviews = self._desk.reviews.reviews_of(entry.run_id)
        mine = next((one for one in reviews if one.reviewer == actor), None)
        return show_entry(entry, run, actor, mine, self._desk.clock())

    def _dispute(self, one: Feedback, actor: str) -> ShownDispute:
        age = show_age(one.at, self._desk.clock())
        return ShownDispute(one.id, one.mark.value, show_instant(one.at), age, one.actor == actor)

    def _figures(self) -> list[str]:
        """Tell how reviewers and clinicians did: planted errors found, attestations that were too quick."""
        now = self._desk.clock()
        reviews = self._desk.reviews.reviews(now - BACK, now + AHEAD)
        lines = [f"{count(len(reviews), 'review')} finished", _catches(reviews)]
        if self._desk.attestations is not None:
            attested = self._desk.attestations.attestations(now - BACK, now + AHEAD)
            hasty = sum(one.is_hasty for one in attested)
            of_all = count(len(attested), "attestation")
            lines.append(f"{hasty} of {of_all} made within ten seconds of opening the text")
        return lines


def _catches(reviews: Sequence[Review]) -> str:
    """Write how many planted errors were found; one that was never scored is neither found nor missed."""
    scored = [r.seeded for r in reviews if r.seeded is not None and r.seeded.support is not None]
    if not scored:
        return "no planted error was scored"
    return (
        f"{sum(one.is_caught for one in scored)} of {count(len(scored), 'planted error')} found by reviewers"
    )


def _rule(text: str) -> Rule | None:
    if not text:
        return None
    try:
        return Rule(text)
    except ValueError:
        raise HTTPException(400) from None
