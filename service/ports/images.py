"""The seam to pictures: what of a patient's linked studies the model is shown, and what could not be seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from service.imaging.picture import Picture
from service.record.facts import PatientRecord

ReadOne = Callable[[str], Awaitable[dict[str, Any]]]
"""Reads one resource of the record system by reference. Raises ConnectorError."""


class ImageUse(StrEnum):
    """What a site does with what the model reads from pictures."""

    OFF = "off"
    SHOW = "show"
    """Stored, and seen in sidebar and console."""
    FILE = "file"
    """Also filed, where the document says so."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """Pictures that were not seen, and why, in words that are safe to show."""

    source: str
    """`ImagingStudy/7`; empty where it is not about one study."""
    what: str = field(repr=False)
    """The study in words, as recorded."""
    why: str = ""
    count: int = 1
    """How many pictures; studies where not even their number is known."""
    day: str = ""
    """`04-May-2019`, or empty."""
    is_for_now: bool = False
    """True where the same question may be answered a moment later: an archive that is down."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of looking for pictures."""

    pictures: tuple[Picture, ...] = field(default=(), repr=False)
    unseen: tuple[Unseen, ...] = field(default=(), repr=False)
    how: str = ""
    """By what they were chosen."""

    @property
    def is_for_now(self) -> bool:
        """True where looking again may show more."""
        return any(one.is_for_now for one in self.unseen)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose pictures, for what, and how many."""

    record: PatientRecord = field(repr=False)
    resources: Iterable[Mapping[str, Any]] = field(repr=False)
    """Of this patient alone."""
    read: ReadOne = field(repr=False)
    most: int
    words: tuple[str, ...] = field(default=(), repr=False)
    """What is being written about: active problems, a stay's reason."""


class PictureSource(Protocol):
    """Where pictures come from. Whatever an archive does, the answer is what was seen, and what was not."""

    async def look(self, wanted: Wanted) -> Looked:
        """Return the few pictures that are to be shown, and what could not be seen."""
        ...
