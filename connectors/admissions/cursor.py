"""Where polling stands, as a value: the caller keeps it, and gives it back with the next look.

It holds references of patients and places: it is kept as the record itself is, encrypted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from connectors.admissions.stays import Stay
from connectors.errors import BrokenJson
from connectors.fhir.codec import decode, encode

_FORMAT = 1


class CursorUnreadable(ValueError):
    """What was kept is no cursor of this version: begin with an empty one, and look at everything."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """What was seen until when. The empty one asks for everything."""

    since: datetime | None = None
    """Every change before this instant of the server's clock was seen; aware."""
    whole_at: datetime | None = None
    """When all stays were last looked at, not only the changed ones; aware."""
    stays: tuple[Stay, ...] = ()

    def dump(self) -> bytes:
        """Return the cursor as bytes, for `load`."""
        return encode(
            {
                "format": _FORMAT,
                "since": self.since.isoformat() if self.since else None,
                "whole_at": self.whole_at.isoformat() if self.whole_at else None,
                "stays": [stay.plain() for stay in self.stays],
            }
        )

    @classmethod
    def load(cls, data: bytes) -> Cursor:
        """Return the cursor that `dump` wrote. Raises CursorUnreadable, without any of its text."""
        try:
            values: Any = decode(data)
            if values["format"] != _FORMAT:
                raise CursorUnreadable("The cursor is of another version.")
            stays = tuple(map(Stay.of_plain, values["stays"]))
            return cls(_instant(values["since"]), _instant(values["whole_at"]), stays)
        except (BrokenJson, KeyError, TypeError, ValueError, AttributeError):
            raise CursorUnreadable("What was kept is no cursor.") from None


def _instant(text: str | None) -> datetime | None:
    when = datetime.fromisoformat(text) if text else None
    if when is not None and when.tzinfo is None:
        raise CursorUnreadable("A cursor's instants are aware.")
    return when
