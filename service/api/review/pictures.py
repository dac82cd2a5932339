"""A patient's pictures by words, for reviewers: what an image encoder finds alike, with its suggested labels.

Words and patient stand in no address: the patient is the run's, and words are sent with the form. Nothing
here is a finding, and the page says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response

from service.album import LONGEST_QUESTION, Hit
from service.api.form import plain_words, read_form
from service.api.gate import visitor_of
from service.api.pages import build_page, number_sources
from service.api.review.frame import review_page
from service.errors import EngineError
from service.filing.stopped import is_stopped
from service.identity.visitor import Visitor
from service.imaging.index import Entry
from service.imaging.labels import NO_FINDING, Suggestion
from service.ports import Action, AuditEntry, AuditLog, Clock, FilingStore, RunId, StoredRun
from service.ports.pictures import Whose

PATH: Final = "/review/runs/{run_id}/pictures"
MOST_SHOWN: Final = 50


class Finder(Protocol):
    """What finds pictures by words. Both raise EngineError where the encoder fails, and StoreError."""

    def find(self, whose: Whose, words: str, most: int = 10) -> Sequence[Hit]:
        """Return the pictures most like the words, best first."""
        ...

    def entries(self, whose: Whose) -> Sequence[Entry]:
        """Return all that can be found."""
        ...


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """One picture of the list. It holds no UID of a patient's study in an address."""

    what: str
    taken: str
    source: str
    number: int
    """Of its source in the run; 0 where the run has none, so that nothing leads there."""
    frame: int
    instance: str
    likeness: str
    """Empty where nothing was looked for."""
    labels: tuple[Suggestion, ...]


class PicturesRoom:
    """The routes. Without a `finder` the page says `why` there is none."""

    def __init__(
        self, store: FilingStore, audit: AuditLog, clock: Clock, finder: Finder | None, why: str = ""
    ) -> None:
        self._store, self._audit, self._clock = store, audit, clock
        self._finder, self._why = finder, why

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(PATH, self.show, methods=["GET", "HEAD"], response_model=None)
        app.add_api_route(PATH, self.find, methods=["POST"], response_model=None)

    def show(self, request: Request, run_id: str) -> Response:
        """Show every picture of the run's patient that was looked at, and the form."""
        run = self._run(run_id, visitor_of(request))
        return self._page(request, run, "")

    async def find(self, request: Request, run_id: str) -> Response:
        """Show the pictures that are most like some words."""
        words = plain_words((await read_form(request)).get("words", ""), LONGEST_QUESTION)
        run = await asyncio.to_thread(self._run, run_id, visitor_of(request))
        return await asyncio.to_thread(self._page, request, run, words)

    def _run(self, run_id: str, visitor: Visitor) -> StoredRun:
        """Return a run that may be shown, once that is on record. Raises HTTPException, StoreError."""
        run = self._store.get(RunId(run_id))
        if run is None:
            raise HTTPException(404)
        if is_stopped(run, self._store.stops()):
            raise HTTPException(423)
        entry = AuditEntry(
            Action.VIEW, visitor.actor, run.inputs.patient, self._clock(), run_id=run.run_id,
            target="pictures", server=run.inputs.server, by=visitor.fhir_user,
        )  # fmt: skip
        self._audit.append(entry)
        return run

    def _page(self, request: Request, run: StoredRun, words: str) -> Response:
        whose = Whose(run.inputs.server, run.inputs.access_profile, run.inputs.patient)
        pictures: tuple[ShownPicture, ...] = ()
        problem, total = self._why, 0
        if self._finder is not None:
            try:
                pictures, total = self._pictures(self._finder, whose, words, _numbers(run))
            except EngineError as error:
                problem = error.message
        return review_page(
            request,
            "pictures.html",
            503 if problem and self._finder is not None else 200,
            page=build_page(run, self._clock()),
            run_id=run.run_id,
            words=words,
            pictures=pictures,
            total=total,
            problem=problem,
            note=NO_FINDING,
            longest=LONGEST_QUESTION,
        )

    def _pictures(
        self, finder: Finder, whose: Whose, words: str, numbers: Mapping[str, int]
    ) -> tuple[tuple[ShownPicture, ...], int]:
        """Return what is listed, and of how many."""
        entries = finder.entries(whose)
        if words:
            hits = finder.find(whose, words, MOST_SHOWN)
            return tuple(_shown(one.entry, numbers, f"{one.likeness:.3f}") for one in hits), len(entries)
        last = entries[-MOST_SHOWN:]
        return tuple(_shown(one, numbers) for one in reversed(last)), len(entries)


def _numbers(run: StoredRun) -> dict[str, int]:
    """Return the number of each source of a run, by reference."""
    facts = {fact.id: fact for fact in run.summary.facts}
    numbers = number_sources(run.summary, facts)
    return {facts[one].source.reference: numbers[one] for one in reversed(numbers) if one in facts}


def _shown(entry: Entry, numbers: Mapping[str, int], likeness: str = "") -> ShownPicture:
    what = " ".join(part for part in (entry.modality, entry.what) if part)
    return ShownPicture(
        what or "picture", entry.taken, entry.source, numbers.get(entry.source, 0), entry.frame,
        entry.instance, likeness, entry.labels,
    )  # fmt: skip
