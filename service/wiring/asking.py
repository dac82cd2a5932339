"""What clinicians say of statements, and what they ask of a chart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from service.api.ask import AskRoom
from service.api.feedback import Feedbacks
from service.ask.asking import Asking, Opener
from service.ports import AuditLog, FilingStore
from service.ports.launches import Launch
from service.settings import Settings
from service.store.feedback import SqlFeedback
from service.store.questions import SqlQuestions
from service.wiring.installation import database_of, utc_now
from service.wiring.launches import LaunchRooms
from service.wiring.ondemand import Serving


@dataclass(frozen=True, slots=True)
class Said:
    """The stores of feedback and questions, and the routes over them."""

    feedback: SqlFeedback
    questions: SqlQuestions
    feedbacks: Feedbacks
    room: AskRoom | None
    """None where no EHR is configured: nobody could ask as themselves."""

    @property
    def closing(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What is called when the application ends, the last one first."""
        return (self._close_stores, *([self.room.aclose] if self.room is not None else []))

    async def _close_stores(self) -> None:
        await asyncio.to_thread(self.feedback.close)
        await asyncio.to_thread(self.questions.close)


def open_said(
    settings: Settings,
    store: FilingStore,
    audit: AuditLog,
    serving: Serving,
    launching: LaunchRooms | None,
) -> Said:
    """Open what takes feedback and questions. Raises StoreError."""
    url, cipher = database_of(settings)
    feedback, questions = SqlFeedback(url, cipher), SqlQuestions(url, cipher)
    feedbacks = Feedbacks(store, questions, feedback, audit, utc_now)
    if launching is None:
        return Said(feedback, questions, feedbacks, None)
    charts = launching.charts

    def opener(launch: Launch) -> Opener:
        return serving.user_opener(partial(charts.open, launch), launch.fhir_user)

    room = AskRoom(
        asking=Asking(store=questions, audit=audit, clock=utc_now),
        questions=questions,
        feedback=feedback,
        feedbacks=feedbacks,
        audit=audit,
        clock=utc_now,
        opener=opener,
        stops=store.stops,
    )
    return Said(feedback, questions, feedbacks, room)
