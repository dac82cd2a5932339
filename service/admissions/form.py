"""Events as bytes, for the store. Patient data: sealed there, shown nowhere."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from connectors.admissions.events import (
    Admitted,
    Cancelled,
    Deceased,
    Discharged,
    Event,
    Merged,
    Reinstated,
    Transferred,
    Updated,
)
from service.errors import StoreError

_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (Admitted, Transferred, Updated, Discharged, Deceased, Cancelled, Reinstated, Merged)
}


def dump_events(events: Sequence[Event]) -> list[tuple[str, bytes]]:
    """Return (key, content) of each, for `AdmissionStore.hear`."""
    return [(_key(event), dump_event(event)) for event in events]


def dump_event(event: Event) -> bytes:
    """Return an event as bytes, for `load_event`."""
    return msgspec.json.encode([type(event).__name__, event])


def load_event(content: bytes) -> Event:
    """Return the event that `dump_event` wrote. Raises StoreError, without any of its text."""
    try:
        name, fields = msgspec.json.decode(content, type=tuple[str, msgspec.Raw])
        return msgspec.json.decode(fields, type=_KINDS[name])
    except (msgspec.MsgspecError, KeyError):
        raise StoreError("What is stored of an event cannot be read.") from None


def _key(event: Event) -> str:
    return f"{event.source.value} {event.key}" if event.key else ""
