"""An R4 Subscription to Encounters: made or taken over, and looked after.

Plain R4 subscriptions (criteria are a search, the notification is empty) and topic-based ones (Subscriptions
R5 Backport 1.1 for R4: id-only notifications, handshake, heartbeat) are both asked for by one `Hook`.
A notification only says: look now. What happened is always found by polling from the cursor, so that a
missed, doubled or forged one can neither lose nor invent anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from connectors.errors import NotFoundError, PreconditionFailed
from connectors.fhir.client import FhirClient
from connectors.fhir.reference import Reference, parse_reference, reference_of

HOOK_HEADER = "X-Epicrisis-Hook"
_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
_ALIVE = frozenset({"requested", "active"})
MIN_SECRET = 32
"""Characters: the endpoint is open to whoever reaches it."""


@dataclass(frozen=True, slots=True)
class Hook:
    """What is wanted: to be called at `endpoint` for Encounters, with the secret in a header."""

    endpoint: str
    secret: str = field(repr=False)
    filters: str = "Encounter?status=in-progress,onleave,finished,cancelled,entered-in-error"
    """A search. A discharge is a change of status, so that all of them are asked for."""
    topic: str = ""
    """Canonical URL of a topic, for servers that speak the backport; empty for plain R4."""
    heartbeat_s: int = 300
    reason: str = "epicrisis: admissions"

    def __post_init__(self) -> None:
        if len(self.secret) < MIN_SECRET or not self.secret.isascii() or not self.secret.isprintable():
            raise ValueError(f"The hook's secret must have at least {MIN_SECRET} printable ASCII characters.")

    def resource(self) -> dict[str, Any]:
        """Return the Subscription (R4)."""
        channel: dict[str, Any] = {
            "type": "rest-hook",
            "endpoint": self.endpoint,
            "header": [f"{HOOK_HEADER}: {self.secret}"],
        }
        subscription = {
            "resourceType": "Subscription",
            "status": "requested",
            "reason": self.reason,
            "criteria": self.topic or self.filters,
            "channel": channel,
        }
        if self.topic:
            subscription["meta"] = {"profile": [f"{_BACKPORT}/backport-subscription"]}
            criteria = {"url": f"{_BACKPORT}/backport-filter-criteria", "valueString": self.filters}
            if self.filters:
                subscription["_criteria"] = {"extension": [criteria]}
            heartbeat = {
                "url": f"{_BACKPORT}/backport-heartbeat-period",
                "valueUnsignedInt": self.heartbeat_s,
            }
            content = {"url": f"{_BACKPORT}/backport-payload-content", "valueCode": "id-only"}
            channel |= {
                "extension": [heartbeat],
                "payload": "application/fhir+json",
                "_payload": {"extension": [content]},
            }
        return subscription


class How(StrEnum):
    """How a subscription came to be ours."""

    CREATED = "created"
    ADOPTED = "adopted"
    RENEWED = "renewed"


@dataclass(frozen=True, slots=True)
class Ensured:
    """A subscription that should be delivering, or will after its handshake."""

    reference: Reference
    how: How
    status: str
    """As the server had it before: `off` and `error` say that notifications were missed."""


async def ensure_subscription(client: FhirClient, hook: Hook) -> Ensured:
    """Return the server's subscription for this hook: found alive, switched on again, or made.

    Call it at start, and whenever `HookState.is_silent`. Raises ConnectorError: RequestRejected where the
    server takes no subscriptions.
    """
    for found in await client.search("Subscription", (("url", hook.endpoint),)):
        reference = reference_of(found)
        if reference is not None and _is_for(found, hook):
            return await _adopt(client, hook, found, reference)
    written = await client.create(hook.resource())
    return Ensured(written.reference, How.CREATED, "requested")


async def subscription_status(client: FhirClient, reference: str) -> str:
    """Return the status the server has (`requested`, `active`, `error`, `off`), or `gone`."""
    target = parse_reference(reference)
    try:
        resource = await client.read(f"Subscription/{target.id if target else reference}")
    except NotFoundError:
        return "gone"
    status = resource.get("status")
    return status if isinstance(status, str) else ""


async def end_subscription(client: FhirClient, reference: str) -> None:
    """Have the server stop calling. Does nothing where it knows the subscription no more."""
    target = parse_reference(reference)
    try:
        resource = await client.read(f"Subscription/{target.id if target else reference}")
    except NotFoundError:
        return
    await client.update({**resource, "status": "off"})


async def _adopt(client: FhirClient, hook: Hook, found: dict[str, Any], reference: Reference) -> Ensured:
    status = found.get("status")
    status = status if isinstance(status, str) else ""
    if status in _ALIVE and _has_secret(found, hook):
        return Ensured(reference, How.ADOPTED, status)
    wanted = {**hook.resource(), "id": reference.id}
    try:
        written = await client.update(wanted, if_match=reference.version or None)
    except PreconditionFailed:  # another worker, or the server's own engine, was faster
        again = await client.read(f"Subscription/{reference.id}")
        if again.get("status") in _ALIVE and _has_secret(again, hook):
            return Ensured(reference, How.ADOPTED, status)
        written = await client.update(wanted)
    return Ensured(written.reference, How.RENEWED, status)


def _is_for(resource: dict[str, Any], hook: Hook) -> bool:
    """Some servers ignore the search by `url` and send everything: look at what came."""
    channel = resource.get("channel")
    endpoint = channel.get("endpoint") if isinstance(channel, dict) else None
    return endpoint == hook.endpoint and resource.get("criteria") == (hook.topic or hook.filters)


def _has_secret(resource: dict[str, Any], hook: Hook) -> bool:
    """A server that hides headers shows none: then ours is written again, which does no harm."""
    channel = resource.get("channel")
    headers = channel.get("header") if isinstance(channel, dict) else None
    return isinstance(headers, list) and f"{HOOK_HEADER}: {hook.secret}" in headers
