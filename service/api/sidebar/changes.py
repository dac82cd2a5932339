"""What changed in the chart since a summary was made, told to one user: a banner that names the change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from service.api import words
from service.record.everyday import say_type
from service.sight import Sight
from service.staleness import Change, Freshness, Staleness, What
from service.writeback.moment import show_instant

_ORDER = (What.NEW, What.CHANGED, What.GONE)


@dataclass(frozen=True, slots=True)
class Changes:
    """One sentence, and what it rests on."""

    freshness: Freshness
    words: str
    lines: tuple[str, ...] = ()
    touches_required: bool = False
    touches_cited: bool = False


def tell_changes(found: Staleness, sight: Sight) -> Changes:
    """Name what changed as far as this user may read it; of the rest only that there is some."""
    compared = show_instant(found.compared_at) if found.compared_at else ""
    if found.freshness is Freshness.FRESH:
        return Changes(found.freshness, f"Nothing changed in the chart since, as of {compared}.")
    if found.freshness is Freshness.UNKNOWN:
        why = f": {found.reason}" if found.reason else ""
        return Changes(found.freshness, f"Whether the chart changed since is not known{why}.")
    seen = [change for change in found.changes if _may_tell(change, sight)]
    lines = list(_lines(seen))
    if len(seen) < len(found.changes):
        lines.append("further changes in what your account cannot read")
    if not lines and found.statements_gone:
        lines.append(f"{words.count(found.statements_gone, 'statement')} of then not in the record any more")
    return Changes(
        found.freshness,
        f"The chart changed since this was written, as of {compared}",
        tuple(lines),
        touches_required=any(change.is_required for change in seen),
        touches_cited=any(change.is_cited for change in seen),
    )


def _may_tell(change: Change, sight: Sight) -> bool:
    if change.what is What.GONE:
        return bool(change.kind) and sight.is_whole(change.kind)
    return sight.can_read(change.reference)


def _lines(changes: Iterable[Change]) -> Iterable[str]:
    counts = Counter((change.kind, change.what) for change in changes)
    for kind in sorted({kind for kind, _ in counts}):
        parts = [f"{counts[kind, what]} {what}" for what in _ORDER if counts[kind, what]]
        yield f"{say_type(kind) or 'other entries'}: {', '.join(parts)}"
