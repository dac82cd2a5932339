"""How far two reviewers agree: kappa over statements and the form, and the statements where they do not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import Response

from service.api.gate import visitor_of
from service.api.review.desk import AHEAD, Desk
from service.api.review.frame import review_page
from service.api.review.shown import SUPPORTS
from service.errors import ShreddedError
from service.ports import RunId
from service.ports.reviews import FORM_SCALES, Review
from service.review.agreement import (
    ORDER,
    Agreement,
    agree,
    claim_pairs,
    disagreements,
    form_pairs,
    pair_up,
)
from service.review.form import questions
from service.review.items import items_of

PATH: Final = "/review/agreement"
BACK: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class ShownAgreement:
    """One row: what was answered by both, and what it comes to."""

    title: str
    pairs: int
    same: int
    plain: str
    weighted: str


@dataclass(frozen=True, slots=True)
class ShownDisagreement:
    """One statement of which two reviewers said something else; its text is on the page of its run."""

    run_id: str
    number: int
    answers: tuple[str, ...]


class AgreementRoom:
    """The route, over what reviewers work with."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add_to(self, app: FastAPI) -> None:
        """Add the route."""
        app.add_api_route(PATH, self.show, methods=["GET", "HEAD"], response_model=None)

    def show(self, request: Request) -> Response:
        """Show the agreement of the reviews that were finished within a year."""
        self._desk.record_list(visitor_of(request), "review:agreement")
        now = self._desk.clock()
        doubles = pair_up(self._desk.reviews.reviews(now - BACK, now + AHEAD))
        of_form = form_pairs(doubles)
        rows = [
            _row(one.title, agree(of_form[one.name], FORM_SCALES[one.name][1] - FORM_SCALES[one.name][0] + 1))
            for one in questions()
        ]
        return review_page(
            request,
            "agreement.html",
            documents=len(doubles),
            statements=_row("Statements", agree(claim_pairs(doubles), len(ORDER))),
            rows=rows,
            disagreements=self._disagreements(doubles),
        )

    def _disagreements(self, doubles: tuple[tuple[Review, Review], ...]) -> list[ShownDisagreement]:
        numbers: dict[str, dict[int, int]] = {}
        shown = []
        for one in disagreements(doubles):
            places = numbers.setdefault(one.run_id, self._numbers(one.run_id))
            answers = tuple(SUPPORTS[support] for _, support in one.answers)
            shown.append(ShownDisagreement(one.run_id, places.get(one.ordinal, 0), answers))
        return shown

    def _numbers(self, run_id: str) -> dict[int, int]:
        """Return by which number the page of a run names each claim."""
        try:
            run = self._desk.store.get(RunId(run_id))
        except ShreddedError:
            return {}
        return {item.ordinal: item.number for item in items_of(run.summary)} if run is not None else {}


def _row(title: str, found: Agreement) -> ShownAgreement:
    return ShownAgreement(title, found.pairs, found.same, _kappa(found.plain), _kappa(found.weighted))


def _kappa(value: float | None) -> str:
    """Write a kappa with two places; none where chance alone would explain every answer."""
    return "none" if value is None else f"{value:.2f}"
