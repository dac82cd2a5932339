"""The console: its stores, and its rooms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import Request

from service.api.app import Room
from service.api.review.agreement import AgreementRoom
from service.api.review.attesting import Seen
from service.api.review.desk import Desk
from service.api.review.disputes import DisputeRoom
from service.api.review.queue import QueueRoom
from service.api.review.scoring import ScoringRoom
from service.api.review.trail import TrailRoom
from service.errors import SettingsError
from service.identity.visitor import Visitor
from service.ports import AdmissionStore, AuditLog, FilingStore, StoredRun
from service.ports.attesting import AttestingStore
from service.ports.feedback import FeedbackStore
from service.review.sampling import Sampling, read_sampling
from service.settings import Settings
from service.store.attesting import SqlAttesting
from service.store.ledger import SqlLedger
from service.store.reviews import SqlReviews
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from service.wiring.attesting import Clinicians
from service.wiring.installation import database_of, utc_now
from service.wiring.quality import open_quality_room


@dataclass
class Console:
    """The rooms of the console, and what is closed when the application ends."""

    rooms: list[Room] = field(default_factory=list)
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    guard: Callable[[Request], Awaitable[None]] | None = None
    """Raises where the run that a route names is withheld from who asks."""
    attesting: AttestingStore | None = None
    """What clinicians changed when they attested."""


def open_review(
    settings: Settings,
    store: SqlStore,
    audit: SqlAuditLog,
    feedback: FeedbackStore,
    admissions: AdmissionStore,
    seen: Seen | None = None,
) -> Console:
    """Open the console: one room a page. Raises StoreError, SettingsError.

    `seen` says what keeps the user of a launch from answering for a whole run; without it each of them is.
    """
    console = Console()
    clinicians = Clinicians(settings, store, audit, feedback, seen)
    reviews, attesting = _open_reviewing(
        settings, store, audit, feedback, console, clinicians.glasses.withholds
    )
    console.rooms.append(
        TrailRoom(
            SqlLedger(audit.database), audit.last_anchor, store, attesting, reviews.reviews_of, audit, utc_now
        )
    )
    quality, close_quality = open_quality_room(settings, store)
    console.rooms.append(quality)
    console.closing.append(close_quality)
    console.rooms += clinicians.rooms
    console.guard = clinicians.glasses.guard
    console.attesting = clinicians.kept
    console.closing.append(clinicians.aclose)
    return console


def _open_reviewing(
    settings: Settings,
    store: FilingStore,
    audit: AuditLog,
    feedback: FeedbackStore,
    console: Console,
    withheld: Callable[[StoredRun, Visitor], bool],
) -> tuple[SqlReviews, SqlAttesting]:
    """Add the rooms of reviewers, and return what they keep. Raises StoreError, SettingsError."""
    sampling = sampling_of(settings)
    url, cipher = database_of(settings)
    reviews, attesting = SqlReviews(url, cipher), SqlAttesting(url, cipher)
    desk = Desk(store, reviews, feedback, audit, utc_now, sampling, cipher.keyed_hash, attesting, withheld)
    console.rooms += [QueueRoom(desk), AgreementRoom(desk), DisputeRoom(desk), ScoringRoom(desk)]

    async def close() -> None:
        await asyncio.to_thread(reviews.close)
        await asyncio.to_thread(attesting.close)

    console.closing.append(close)
    return reviews, attesting


def sampling_of(settings: Settings) -> Sampling:
    """Return which summaries are reviewed at this site. Raises SettingsError."""
    if settings.review is None:
        return Sampling()
    try:
        return read_sampling(settings.review.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        raise SettingsError(
            "The file of review rules cannot be read.", "Set EPICRISIS_REVIEW to a file like ops/review.toml."
        ) from None
