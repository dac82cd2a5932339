"""What the page of one image says about it: values in words, no markup. Nothing is added to the header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.api import words
from service.api.gallery import Frame, Look
from service.api.presets import Preset
from service.imaging.picture import Header, Rendered
from service.record.dates import parse_when, show_day

_SIDES: Final = {"L": "left", "R": "right", "B": "both sides", "U": "unpaired"}
"""Laterality and Image Laterality (PS3.3 C.7.3.1, C.8.11.3)."""
_NOT_RECORDED: Final = "not recorded"


@dataclass(frozen=True, slots=True)
class Series:
    """One series that can be gone to."""

    title: str
    place: int
    """Of its first image."""
    count: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """One image on its page."""

    place: int
    total: int
    title: str
    alt: str
    rows: tuple[tuple[str, str], ...]
    """Label and text, in the order in which they are read."""
    modality: str
    burned_in: bool
    is_marked: bool
    notes: tuple[str, ...]
    series: tuple[Series, ...]
    side: int

    @property
    def before(self) -> int:
        """The place before; 0 at the first."""
        return self.place - 1

    @property
    def after(self) -> int:
        """The place behind; 0 at the last."""
        return self.place + 1 if self.place < self.total else 0


def show_frame(look: Look, place: int, rendered: Rendered, preset: Preset) -> Shown:
    """Return what is said of an image; the instance's own header counts, and the list's without one."""
    frame, total = look.at(place), len(look.frames)
    header = rendered.header or frame.header
    position = f"Image {place} of {total}"
    return Shown(
        place=place,
        total=total,
        title=_title(header),
        alt=f"{position}: {_title(header)}",
        rows=(*_rows(header), ("Window", rendered.window), ("Size", f"{rendered.columns} × {rendered.rows}")),
        modality=header.modality if header else "",
        burned_in=rendered.burned_in,
        is_marked=frame.is_marked,
        notes=look.notes,
        series=_series(look, place),
        side=rendered.side,
    )


def _title(header: Header | None) -> str:
    if header is None:
        return "Picture of the chart"
    parts = (header.modality, header.series_description or header.study_description)
    return " ".join(part for part in parts if part) or "Image"


def _rows(header: Header | None) -> tuple[tuple[str, str], ...]:
    if header is None:
        return ()
    return (
        ("Date", _day(header.taken)),
        ("Study", header.study_description or _NOT_RECORDED),
        ("Series", header.series_description or _NOT_RECORDED),
        ("Body part", header.body_part or _NOT_RECORDED),
        ("Side", _SIDES.get(header.laterality.upper(), header.laterality) or _NOT_RECORDED),
        ("View", header.view or _NOT_RECORDED),
    )


def _day(taken: str) -> str:
    when = parse_when(f"{taken[:4]}-{taken[4:6]}-{taken[6:8]}", None) if len(taken) == 8 else None
    return show_day(when) if when is not None else _NOT_RECORDED


def _series(look: Look, place: int) -> tuple[Series, ...]:
    """Return a study's series in order; none where there is only one."""
    places: dict[str, list[int]] = {}
    for number, frame in enumerate(look.frames, 1):
        places.setdefault(_series_of(frame), []).append(number)
    if len(places) < 2:
        return ()
    return tuple(
        Series(
            _title(look.at(own[0]).header), own[0], words.count(len(own), "image"), own[0] <= place <= own[-1]
        )
        for own in places.values()
    )


def _series_of(frame: Frame) -> str:
    return frame.header.spot.series if frame.header is not None else ""
