"""The live strip in words: values in, values out, no markup (SAFETY 22)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from service.api import words
from service.api.pages import split_at, title_allergies, weigh
from service.live import Line, Live, LivePart, Part, Standing
from service.record.everyday import say_type
from service.record.facts import Absence
from service.writeback.moment import show_instant

_TITLES = {
    Part.ALLERGIES: "Allergies and intolerances",
    Part.CODE_STATUS: "Code status and advance directives",
    Part.RESULTS: "Critical, preliminary and corrected results",
    Part.MEDICATIONS: "Medication changes",
}
_STANDING = (Part.ALLERGIES, Part.CODE_STATUS)
_NONE = {
    Part.ALLERGIES: "None recorded, search complete.",
    Part.CODE_STATUS: "None recorded as an order, consent, flag or observation, search complete. "
    "Notes were not read.",
}


@dataclass(frozen=True, slots=True)
class ShownLine:
    """One line of the chart as it is now."""

    before: str
    strong: str
    after: str
    flags: str
    reference_range: str
    reference: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class ShownPart:
    """One of the four: lines, or a sentence in their place, and what could not be read."""

    key: str
    title: str
    lines: tuple[ShownLine, ...]
    none: str
    """What is said where everything was read and there is nothing."""
    troubles: tuple[str, ...]
    has_failed: bool
    conflict: str
    more: str


@dataclass(frozen=True, slots=True)
class Strip:
    """The four parts, and when they were read."""

    parts: tuple[ShownPart, ...]
    read_at: str


def build_strip(live: Live) -> Strip:
    """Write what was read live in words."""
    since = show_instant(live.since)
    return Strip(tuple(_part(part, since) for part in live.parts), show_instant(live.read_at))


def failed_strip(read_at: datetime) -> Strip:
    """Write that none of the four could be read: the chart did not answer."""
    parts = tuple(LivePart(part, (), failed=("the chart",)) for part in Part)
    return build_strip(Live(parts, None, read_at, read_at))


def _part(part: LivePart, since: str) -> ShownPart:
    stands = part.part in _STANDING
    is_none = not part.lines and part.standing is Standing.READ
    title = _TITLES[part.part] if stands or is_none else f"{_TITLES[part.part]} since {since}"
    if part.part is Part.ALLERGIES:
        title = title_allergies(_state(part), [line.fact for line in part.lines], title)
    none = _NONE.get(part.part, f"None since {since}.")
    return ShownPart(
        key=part.part.value,
        title=title,
        lines=tuple(map(_line, part.lines)),
        none=none if is_none else "",
        troubles=tuple(_troubles(part)),
        has_failed=bool(part.failed),
        conflict=part.conflict,
        more=f"{words.count(part.hidden, 'further entry', 'further entries')} in the chart, not shown here"
        if part.hidden
        else "",
    )


def _state(part: LivePart) -> Absence:
    if part.standing is not Standing.READ and not part.lines:
        return Absence.NOT_RETRIEVED
    return Absence.LISTED if part.lines else Absence.NONE_RECORDED


def _troubles(part: LivePart) -> list[str]:
    """Say what is missing and why; with lines, that they are a part of it."""
    scope = " in part" if part.lines else ""
    said = []
    if part.failed:
        said.append(f"FAILED{scope}: {_names(part.failed)} could not be read now. Check the chart.")
    if part.refused:
        said.append(f"Not permitted{scope}: your account may not read {_names(part.refused)}.")
    return said


def _names(types: tuple[str, ...]) -> str:
    return ", ".join(map(say_type, types))


def _line(line: Line) -> ShownLine:
    before, strong, after = split_at(line.text, weigh([line.fact]))
    return ShownLine(
        before=before,
        strong=strong,
        after=after,
        flags=", ".join(line.fact.flags),
        reference_range=line.fact.reference_range if line.fact.flags else "",
        reference=line.fact.source.reference,
        is_new=line.is_new,
    )
