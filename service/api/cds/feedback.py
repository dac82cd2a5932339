"""What an EHR tells of the cards that it showed (CDS Hooks 2.0, Feedback), read strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from service.api.cds.card import REASON_SYSTEM, REASONS
from service.api.cds.outcome import CallRefused, not_understood
from service.ports.hooks import CardFeedback

OUTCOMES: Final = ("accepted", "overridden")
MOST: Final = 100
OTHER: Final = "other"


def read_feedback(body: bytes) -> Sequence[CardFeedback]:
    """Return what was done with which cards. Raises CallRefused."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise not_understood("The feedback is not JSON.") from None
    listed = said.get("feedback") if isinstance(said, dict) else None
    if not isinstance(listed, list) or not listed:
        raise not_understood("There is no list of feedback.")
    if len(listed) > MOST:
        raise CallRefused(400, "too-costly", "There is too much feedback in one call.")
    return [_read(one) for one in listed]


def _read(one: Any) -> CardFeedback:
    if not isinstance(one, dict) or one.get("outcome") not in OUTCOMES:
        raise not_understood("A feedback has no outcome that is known.")
    reason, words = _reason(one.get("overrideReason"))
    return CardFeedback(_card(one.get("card")), one["outcome"], _instant(one), reason, words)


def _card(value: Any) -> str:
    try:
        return str(UUID(value))
    except (ValueError, TypeError, AttributeError):
        raise not_understood("A feedback names no card.") from None


def _instant(one: Mapping[str, Any]) -> datetime:
    try:
        at = datetime.fromisoformat(one.get("outcomeTimestamp"))  # type: ignore[arg-type]
    except (ValueError, TypeError):
        at = None
    if at is None or at.tzinfo is None:
        raise not_understood("A feedback does not say when it was.")
    return at


def _reason(value: Any) -> tuple[str, str]:
    """Return the code of a reason and the words beside it; what is not one of ours is kept as words."""
    if value is None:
        return "", ""
    given = value.get("reason") if isinstance(value, dict) else None
    comment = value.get("userComment") if isinstance(value, dict) else ""
    if not isinstance(value, dict) or not isinstance(comment, str | None):
        raise not_understood("A feedback's overrideReason cannot be read.")
    coding = given if isinstance(given, dict) else {}
    code, system, display = (_text(coding.get(name)) for name in ("code", "system", "display"))
    if system == REASON_SYSTEM and code in REASONS:
        return code, comment or ""
    told = " ".join(part for part in (f"{system}|{code}" if code else "", display) if part)
    return OTHER if told or comment else "", "\n".join(part for part in (told, comment or "") if part)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
