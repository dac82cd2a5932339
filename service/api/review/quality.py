"""The pages of quality: every measure by week, alarms on top in words, and what evaluations came to.

They hold numbers, and no patient. What is stored and not counted yet is counted a few at a time as somebody
looks; `epicrisis quality` counts all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path as FilePath
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import Response
from markupsafe import Markup

from service.api.render import make_environment
from service.api.review.frame import review_page
from service.ports import Clock, Store
from service.ports.attesting import Attested
from service.ports.quality import Evaluation, EvaluationId, QualityStore
from service.ports.reviews import Review
from service.quality.backlog import count_backlog
from service.quality.chart import draw_intervals, draw_trend
from service.quality.drift import find_drift
from service.quality.report import MEANS, SHARES, WORDS
from service.quality.thresholds import DriftLimits
from service.quality.trends import KINDS, Wanted, read_trends, since_of
from service.writeback.moment import show_instant

PATH: Final = "/review/quality"
ONE: Final = PATH + "/evaluations/{evaluation_id}"
COUNTED_AT_ONCE: Final = 50
SPANS: Final = (4, 12, 26, 52)
STATIC: Final = FilePath(__file__).parent.parent / "static"
TITLES: Final[Mapping[str, str]] = {
    **{key: title for key, (title, _) in SHARES.items()},
    "complete": "Summaries that lack nothing",
    **{key: title for key, (title, _) in MEANS.items()},
    "latency": "Seconds to the checked summary",
}
DRAWN: Final = ("support", "coverage", "told", "contradicted", "complete")
_ID = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True)
class ShownEvaluation:
    """One line of the list of evaluations."""

    path: str
    name: str
    against: str
    when: str
    charts: int
    is_passed: bool


@dataclass(frozen=True, slots=True)
class Quality:
    """What the pages need."""

    runs: Store
    store: QualityStore
    reviews: Callable[[datetime, datetime], Sequence[Review]]
    attestations: Callable[[datetime, datetime], Sequence[Attested]]
    limits: Callable[[], DriftLimits]
    clock: Clock
    zone: tzinfo

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(PATH, self.show, methods=["GET", "HEAD"], response_model=None)
        app.add_api_route(ONE, self.show_evaluation, methods=["GET", "HEAD"], response_model=None)

    def show(
        self,
        request: Request,
        model: Annotated[str, Query(max_length=200)] = "",
        prompt: Annotated[str, Query(max_length=200)] = "",
        ward: Annotated[str, Query(max_length=200)] = "",
        weeks: Annotated[int, Query(ge=1, le=104)] = 12,
    ) -> Response:
        """Show every measure by week. Raises StoreError, SettingsError."""
        count_backlog(self.runs, self.store, self.zone, self.clock, COUNTED_AT_ONCE)
        wanted, now = Wanted(model, prompt, ward, weeks), self.clock()
        today = now.astimezone(self.zone).date()
        since = since_of(wanted, today)
        later = now + timedelta(seconds=1)
        trends, choices = read_trends(
            self.store, wanted, today, self.reviews(since, later), self.attestations(since, later)
        )
        drawn = [(kind, draw_trend(kind, trends)) for kind in KINDS]
        return review_page(
            request,
            "quality.html",
            wanted=wanted,
            choices=choices,
            spans=sorted({*SPANS, weeks}),
            charts=[chart for _, chart in drawn if chart is not None],
            nothing=[kind for kind, chart in drawn if chart is None],
            series=trends.series,
            runs=trends.runs,
            watched=find_drift(trends, self.limits()),
            uncounted=self.store.count_uncounted(),
            evaluations=[_listed(one) for one in self.store.evaluations()],
        )

    def show_evaluation(self, request: Request, evaluation_id: str) -> Response:
        """Show what one evaluation came to. Raises 404, and StoreError."""
        if not _ID.fullmatch(evaluation_id):
            raise HTTPException(404)
        found = self.store.get_evaluation(EvaluationId(evaluation_id))
        if found is None or found.ended_at is None or not found.report:
            raise HTTPException(404)
        return review_page(request, "quality_evaluation.html", **shown_report(found.report))


def _listed(one: Evaluation) -> ShownEvaluation:
    arms = one.report.get("arms", ())
    return ShownEvaluation(
        path=ONE.format(evaluation_id=one.id),
        name=f"{one.identity.model} · {one.identity.prompt}",
        against=f"{one.against.model} · {one.against.prompt}" if one.against is not None else "",
        when=show_instant(one.ended_at) if one.ended_at is not None else "",
        charts=one.charts,
        is_passed=bool(arms and arms[0]["gate"]["is_passed"]),
    )


def shown_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a template draws of a report."""
    arms = report["arms"]
    keys = [key for key in TITLES if any(key in arm["measures"] for arm in arms)]
    drawn = [key for key in DRAWN if key in keys]
    return {
        "report": report,
        "began": show_instant(datetime.fromisoformat(report["began_at"])),
        "names": [f"{arm['identity']['model']} · {arm['identity']['prompt']}" for arm in arms],
        "keys": keys,
        "titles": TITLES,
        "words": WORDS,
        "shares": frozenset((*SHARES, "complete")),
        "chart": draw_intervals(arms, drawn, TITLES),
    }


def render_report(report: Mapping[str, Any], version: str) -> str:
    """Return a report as one HTML file that needs no other."""
    css = "\n".join(
        (STATIC / name).read_text(encoding="utf-8") for name in ("page.css", "review.css", "quality.css")
    )
    template = make_environment().get_template("review/quality_report.html")
    ours = Markup(css)  # noqa: S704 - our own files, and no value of a chart
    return template.render(**shown_report(report), css=ours, version=version)
