"""Calls to the hook: who may call, what a call means, and what was missed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.admissions.notification import MAX_BYTES, Call, HookState, Kind, receive
from connectors.admissions.subscription import HOOK_HEADER, Hook
from tests.conftest import CANARY

NOW = datetime(2026, 11, 24, 5, tzinfo=UTC)
SECRET = "0123456789abcdef" * 3
HOOK = Hook("https://epicrisis.example/hook", SECRET)
TRUSTED = ((HOOK_HEADER.lower(), SECRET),)


def status(kind: str, count: int | None, *events: int, state: str = "active") -> bytes:
    """A notification as the backport writes it for R4."""
    parameters: list[dict[str, Any]] = [
        {"name": "type", "valueCode": kind},
        {"name": "status", "valueCode": state},
    ]
    if count is not None:
        parameters.append({"name": "events-since-subscription-start", "valueString": str(count)})
    for number in events:
        focus = {"name": "focus", "valueReference": {"reference": f"Encounter/{number}"}}
        parts = [{"name": "event-number", "valueString": str(number)}, focus]
        parameters.append({"name": "notification-event", "part": parts})
    entry = {"resource": {"resourceType": "Parameters", "parameter": parameters}}
    return json.dumps({"resourceType": "Bundle", "type": "history", "entry": [entry]}).encode()


def call(body: bytes, state: HookState | None = None) -> Call:
    return receive(TRUSTED, body, HOOK, state or HookState(), NOW)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((HOOK_HEADER, ""),),
        ((HOOK_HEADER, SECRET[:-1]),),
        ((HOOK_HEADER, SECRET + "x"),),
        (("Authorization", SECRET),),
        ((HOOK_HEADER, SECRET), (HOOK_HEADER, SECRET)),
        ((HOOK_HEADER, "ü" * 48),),
    ],
)
def test_who_does_not_know_the_secret_is_refused_and_changes_nothing(
    headers: tuple[tuple[str, str], ...],
) -> None:
    before = HookState(events=3)
    got = receive(headers, status("event-notification", 4, 4), HOOK, before, NOW)
    assert (got.status, got.kind, got.poll, got.state) == (401, Kind.REFUSED, False, before)


@pytest.mark.parametrize(
    ("body", "answer"),
    [(b"x" * (MAX_BYTES + 1), 413), (b"{", 400), (b"[]", 400), (b'"x"', 400), (b"{}", 400)],
)
def test_a_body_that_is_no_notification_is_refused(body: bytes, answer: int) -> None:
    got = call(body)
    assert (got.status, got.poll, got.state) == (answer, False, HookState())


def test_an_empty_call_of_plain_r4_means_that_someone_should_look() -> None:
    got = call(b"")
    assert (got.status, got.kind, got.poll, got.state.heard_at) == (200, Kind.EVENT, True, NOW)


def test_a_resource_as_payload_is_a_hint_and_no_more() -> None:
    got = call(json.dumps({"resourceType": "Encounter", "id": "7", "subject": {"display": CANARY}}).encode())
    assert (got.poll, got.focus) == (True, ("Encounter/7",))
    assert "Encounter/7" not in repr(got)


def test_a_handshake_is_accepted_and_looked_after() -> None:
    got = call(status("handshake", 0))
    assert (got.status, got.kind, got.poll, got.state.events) == (200, Kind.HANDSHAKE, True, 0)


def test_a_heartbeat_with_nothing_new_asks_for_nothing() -> None:
    got = call(status("heartbeat", 5), HookState(events=5))
    assert (got.kind, got.poll, got.missed, got.ended) == (Kind.HEARTBEAT, False, 0, False)


def test_a_heartbeat_tells_of_ten_that_never_came() -> None:
    got = call(status("heartbeat", 15), HookState(events=5))
    assert (got.poll, got.missed, got.state.events) == (True, 10, 15)


def test_a_gap_in_the_numbers_is_counted() -> None:
    assert call(status("event-notification", 6, 6), HookState(events=5)).missed == 0
    assert call(status("event-notification", 8, 7, 8), HookState(events=5)).missed == 1
    assert call(status("event-notification", None, 9), HookState(events=5)).missed == 3


def test_one_event_that_another_overtook_does_not_turn_the_count_back() -> None:
    got = call(status("event-notification", 4, 4), HookState(events=5))
    assert (got.poll, got.missed, got.state.events) == (True, 0, 5)


def test_a_count_that_begins_anew_means_that_something_may_be_missed() -> None:
    got = call(status("heartbeat", 0), HookState(events=5))
    assert (got.poll, got.state.events) == (True, 0)


@pytest.mark.parametrize("state", ["off", "error"])
def test_a_subscription_that_the_server_switched_off_is_ended(state: str) -> None:
    got = call(status("heartbeat", 5, state=state), HookState(events=5))
    assert (got.ended, got.poll) == (True, True)


def test_absolute_references_below_the_servers_base_are_read() -> None:
    body = status("event-notification", 1, 1).replace(b"Encounter/1", b"https://ehr.example/fhir/Encounter/1")
    got = receive(TRUSTED, body, HOOK, HookState(), NOW, "https://ehr.example/fhir")
    assert got.focus == ("Encounter/1",)
    assert receive(TRUSTED, body, HOOK, HookState(), NOW, "https://other.example/fhir").focus == ()


def test_a_subscription_status_resource_says_the_same() -> None:
    events = [{"eventNumber": "7", "focus": {"reference": "Encounter/7"}}]
    told = {"resourceType": "SubscriptionStatus", "type": "event-notification", "status": "active",
            "eventsSinceSubscriptionStart": "7", "notificationEvent": events}  # fmt: skip
    bundle = {"resourceType": "Bundle", "entry": [{"resource": told}]}
    got = call(json.dumps(bundle).encode(), HookState(events=5))
    assert (got.kind, got.missed, got.focus, got.state.events) == (Kind.EVENT, 1, ("Encounter/7",), 7)


def test_silence_is_three_heartbeats_without_a_call() -> None:
    state = HookState(heard_at=NOW)
    assert not state.is_silent(NOW + timedelta(seconds=899), 300)
    assert state.is_silent(NOW + timedelta(seconds=901), 300)
    assert HookState().is_silent(NOW, 300)


KEYS = "resourceType entry resource parameter name part type focus valueX".split()
WORDS = "Bundle Parameters notification-event event-number".split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_no_json_at_all_raises(value: Any) -> None:
    assert call(json.dumps(value).encode()).status in (200, 400)


def test_a_weak_secret_is_refused_and_a_good_one_is_not_shown() -> None:
    with pytest.raises(ValueError, match="32"):
        Hook("https://epicrisis.example/hook", "short")
    assert SECRET not in repr(HOOK)
    assert HOOK.resource()["channel"]["header"] == [f"{HOOK_HEADER}: {SECRET}"]
