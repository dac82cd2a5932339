"""What a server's call to our hook means: checked, read, and answered. Pure: an API route only carries it.

A call without the secret is refused before its body is looked at. A call with it means at most that someone
should look: it is never a source of facts.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from connectors.admissions.subscription import HOOK_HEADER, Hook
from connectors.errors import BrokenJson
from connectors.fhir.codec import decode, dicts
from connectors.fhir.reference import parse_reference
from connectors.limits import MIB

MAX_BYTES = 4 * MIB
_SILENCES = 3
"""So many heartbeats may be missing before a server is taken for silent."""


class Kind(StrEnum):
    """What a call is."""

    REFUSED = "refused"
    HANDSHAKE = "handshake"
    HEARTBEAT = "heartbeat"
    EVENT = "event-notification"
    OTHER = "other"
    """It tells nothing that we know (query-status, a future kind)."""


@dataclass(frozen=True, slots=True)
class HookState:
    """What the hook heard so far: a value that the caller keeps."""

    heard_at: datetime | None = None
    """When the last accepted call came; aware."""
    events: int | None = None
    """How many events the server says it had since the subscription began; None for plain R4."""
    status: str = ""
    """The subscription's status as the last call told it."""

    def is_silent(self, now: datetime, heartbeat_s: float) -> bool:
        """Tell whether heartbeats are overdue: then poll, and see what became of the subscription."""
        if self.heard_at is None:
            return True
        return now - self.heard_at > timedelta(seconds=_SILENCES * heartbeat_s)


@dataclass(frozen=True, slots=True)
class Call:
    """What to answer, what to do, and the state after it."""

    status: int
    """HTTP status of the answer; its body is empty."""
    kind: Kind
    state: HookState
    poll: bool = False
    """True where something happened, or may have been missed: poll from the cursor."""
    missed: int = 0
    """How many events the server counts that never reached us."""
    ended: bool = False
    """True where the server says that it switched the subscription off, or failed: ensure it again."""
    focus: tuple[str, ...] = field(default=(), repr=False)
    """References the call names, as a hint of what to look at first."""


def receive(
    headers: Iterable[tuple[str, str]],
    body: bytes,
    hook: Hook,
    state: HookState,
    now: datetime,
    base_url: str = "",
) -> Call:
    """Return what a call means. Never raises, whatever the headers and the body are.

    `base_url` is the calling server's: below it, absolute references are read too.
    401 without the one right secret, 413 for a body that is too large, 400 for one that is no notification.
    """
    if not _is_trusted(headers, hook.secret):
        return Call(401, Kind.REFUSED, state)
    if len(body) > MAX_BYTES:
        return Call(413, Kind.REFUSED, state)
    heard = replace(state, heard_at=now)
    if not body.strip():  # plain R4 without payload: something that meets the criteria has changed
        return Call(200, Kind.EVENT, heard, poll=True)
    try:
        resource = decode(body)
    except BrokenJson:
        return Call(400, Kind.REFUSED, state)
    if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
        return Call(400, Kind.REFUSED, state)
    told = _status_of(resource, base_url)
    if told is None:  # plain R4 with payload: the resource itself
        return Call(200, Kind.EVENT, heard, poll=True, focus=_own_reference(resource))
    return _call(told, heard)


def _is_trusted(headers: Iterable[tuple[str, str]], secret: str) -> bool:
    """Compare in constant time. Two headers of that name are one too many: proxies join them unalike."""
    given = [value for name, value in headers if name.casefold() == HOOK_HEADER.casefold()]
    wanted = secret.encode("utf-8")
    return len(given) == 1 and hmac.compare_digest(given[0].strip().encode("utf-8", "replace"), wanted)


@dataclass(frozen=True, slots=True)
class _Told:
    """A SubscriptionStatus as the backport writes it for R4: Parameters in the first entry."""

    kind: str = ""
    status: str = ""
    count: int | None = None
    numbers: tuple[int, ...] = ()
    focus: tuple[str, ...] = ()


def _status_of(bundle: dict[str, Any], base_url: str) -> _Told | None:
    """Read the first entry: Parameters in R4, a SubscriptionStatus in R4B and from some R4 servers."""
    if bundle.get("resourceType") != "Bundle":
        return None
    first = dicts([entry.get("resource") for entry in dicts(bundle.get("entry"))])[:1]
    for resource in first:
        if resource.get("resourceType") == "Parameters":
            parameters = dicts(resource.get("parameter"))
            events = [one.get("part") for one in parameters if _name(one.get("name")) == "notificationevent"]
            parts = [{_name(one.get("name")): _value(one) for one in dicts(event)} for event in events]
            return _told({_name(one.get("name")): _value(one) for one in parameters}, parts, base_url)
        if resource.get("resourceType") == "SubscriptionStatus":
            told = [_lowered(event) for event in dicts(resource.get("notificationEvent"))]
            return _told(_lowered(resource), told, base_url)
    return None


def _told(values: dict[str, Any], events: list[dict[str, Any]], base_url: str) -> _Told:
    kind, status = values.get("type"), values.get("status")
    numbers = [_number(event.get("eventnumber")) for event in events]
    focus = [parse_reference(event.get("focus"), base_url) for event in events]
    return _Told(
        kind if isinstance(kind, str) else "",
        status if isinstance(status, str) else "",
        _number(values.get("eventssincesubscriptionstart")),
        tuple(number for number in numbers if number is not None),
        tuple(str(found) for found in focus if found is not None),
    )


def _lowered(resource: dict[str, Any]) -> dict[str, Any]:
    return {_name(name): _plain(value) for name, value in resource.items()}


def _name(name: Any) -> str:
    """Kebab and camel case are both in use: `event-number`, `eventNumber`."""
    return str(name).replace("-", "").casefold()


def _value(parameter: dict[str, Any]) -> Any:
    return _plain(next((value for name, value in parameter.items() if name.startswith("value")), None))


def _plain(value: Any) -> Any:
    return value.get("reference") if isinstance(value, dict) else value


def _number(value: Any) -> int | None:
    """`integer64` travels as text in R5, and some servers do so in R4."""
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _call(told: _Told, heard: HookState) -> Call:
    kind = Kind(told.kind) if told.kind in _KINDS else Kind.OTHER
    count = max((*told.numbers, *([told.count] if told.count is not None else [])), default=None)
    before = heard.events
    went_back = count is not None and before is not None and count < before
    restarted = went_back and kind is not Kind.EVENT  # events may overtake each other
    missed = 0
    if count is not None and before is not None and not went_back:
        missed = max(0, count - before - len({number for number in told.numbers if number > before}))
    ended = told.status in ("off", "error", "entered-in-error")
    return Call(
        status=200,
        kind=kind,
        state=replace(
            heard,
            events=before if count is None or (went_back and not restarted) else count,
            status=told.status,
        ),
        poll=kind is Kind.EVENT or missed > 0 or restarted or ended or kind is Kind.HANDSHAKE,
        missed=missed,
        ended=ended,
        focus=told.focus,
    )


_KINDS = frozenset({"handshake", "heartbeat", "event-notification"})


def _own_reference(resource: dict[str, Any]) -> tuple[str, ...]:
    found = parse_reference(f"{resource.get('resourceType')}/{resource.get('id')}")
    return (str(found),) if found else ()
