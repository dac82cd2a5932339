"""The console: its stores, and its rooms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from service.api.app import Room
from service.ports import AdmissionStore, AuditLog, FilingStore
from service.ports.feedback import FeedbackStore
from service.settings import Settings


@dataclass
class Console:
    """The rooms of the console, and what is closed when the application ends."""

    rooms: list[Room] = field(default_factory=list)
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)


def open_review(
    settings: Settings,
    store: FilingStore,
    audit: AuditLog,
    feedback: FeedbackStore,
    admissions: AdmissionStore,
) -> Console:
    """Open the console: one room a page. Raises StoreError, SettingsError."""
    return Console()
