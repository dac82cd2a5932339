"""The words of a card: which draft, how old, how many contradictions, what is missing. Nothing clinical."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from service.api import words
from service.api.cds.prefetch import Change, Comparison
from service.api.pages import TITLES
from service.ports import StoredRun
from service.writeback.moment import show_instant

SUMMARY_LIMIT: Final = 140
"""A card's summary must be shorter (CDS Hooks 2.0, Card Attributes)."""
LONGEST_TITLE: Final = 12
REASON_SYSTEM: Final = "urn:epicrisis:override-reason"
REASONS: Final = {
    "wrong": "Something in the draft is wrong",
    "outdated": "The draft is out of date",
    "missing": "Something important is missing",
    "unhelpful": "I do not need it now",
}
_MACHINE: Final = "**AI-generated. Not reviewed, not attested.** Read the sources before you rely on it."
_ATTESTED: Final = "AI-generated, then attested by a clinician. Later changes of the chart are not in it."


@dataclass(frozen=True, slots=True)
class Told:
    """What a card is made from."""

    run: StoredRun
    is_attested: bool
    comparison: Comparison
    card_id: str
    launch_url: str


def build_card(told: Told, now: datetime) -> dict[str, Any]:
    """Return one card, of counts and times alone."""
    run = told.run
    is_urgent = bool(run.summary.incomplete) or told.comparison.change is Change.SOME
    view = msgspec.json.encode({"view": run.summary.kind}).decode()
    return {
        "uuid": told.card_id,
        "summary": summary_line(told, now),
        "detail": "\n\n".join(_details(told)),
        "indicator": "warning" if is_urgent else "info",
        "source": {"label": "Epicrisis"},
        "links": [{"label": "Open the draft", "url": told.launch_url, "type": "smart", "appContext": view}],
        "overrideReasons": [
            {"code": code, "system": REASON_SYSTEM, "display": display} for code, display in REASONS.items()
        ],
    }


def summary_line(told: Told, now: datetime) -> str:
    """`History draft, read 3 h ago (24-Nov-2026 09:10 UTC) · 2 contradictions · INCOMPLETE`."""
    run = told.run
    state = "attested" if told.is_attested else "AI draft, not reviewed"
    parts = [
        f"{_title(run)} ({state}), read {_age(now - run.read_at)} ago ({show_instant(run.read_at)})",
    ]
    conflicts = sum(bool(section.conflict) for section in run.summary.sections)
    if conflicts:
        parts.append(words.count(conflicts, "contradiction"))
    if run.summary.incomplete:
        parts.append("INCOMPLETE")
    if told.comparison.change is Change.SOME:
        parts.append("chart changed since")
    return " · ".join(parts)


def _details(told: Told) -> list[str]:
    run = told.run
    said = [_ATTESTED if told.is_attested else _MACHINE, _compared(told.comparison)]
    if run.summary.incomplete:
        said.append(
            f"INCOMPLETE: {words.count(len(run.summary.incomplete), 'kind')} of entries not retrieved."
        )
    statements = words.count(len(run.summary.published), "statement")
    return [*said, f"{statements} from {run.summary.searched:,} items searched."]


def _compared(comparison: Comparison) -> str:
    """Say what was found of the kinds that were looked at, and never that nothing else has changed."""
    unread = _kinds(comparison.unread)
    if comparison.change is Change.SOME:
        return "**The chart has changed since this draft was written.** Open it to see what is new."
    if comparison.change is Change.NONE:
        return "Allergies, problems and medication orders are as they were; nothing else was compared."
    return f"Not compared with the chart as it is now: {unread}."


def _kinds(kinds: Sequence[str]) -> str:
    return ", ".join(words.RESOURCE_TYPES[kind] for kind in kinds)


def _title(run: StoredRun) -> str:
    """Return what kind of draft it is; a site's own kind with a long name is a summary."""
    title = TITLES.get(run.summary.kind, run.summary.kind.capitalize())
    return title if len(title) <= LONGEST_TITLE else "Summary"


def _age(age: timedelta) -> str:
    """`40 min`, `3 h`, `4 d`: rounded up, so that nothing is told to be newer than it is."""
    minutes = max(0, -(-int(age.total_seconds()) // 60))
    if minutes < 120:
        return f"{minutes} min"
    hours = -(-minutes // 60)
    return f"{hours} h" if hours < 48 else f"{-(-hours // 24):,} d"
