"""Events as bytes and back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.admissions.events import (
    Admitted,
    Cancelled,
    Deceased,
    Discharged,
    Event,
    Identifier,
    Merged,
    Reinstated,
    Source,
    Subject,
    Transferred,
    Updated,
    Visit,
)
from service.admissions.form import dump_event, dump_events, load_event
from service.errors import StoreError
from tests.conftest import CANARY

COMMON: dict[str, Any] = {
    "patient": Subject("Patient/1", (Identifier("urn:x", CANARY, "MR"),)),
    "visit": Visit("Encounter/9", Identifier("urn:v", "9")),
    "encounter_class": "IMP",
    "location": "Location/7",
    "at": datetime(2026, 11, 24, 5, 30, tzinfo=UTC),
    "source": Source.HL7,
    "key": "k",
}
PLAIN = (Admitted, Updated, Discharged, Deceased, Cancelled, Reinstated)


@pytest.mark.parametrize(
    "event",
    [
        *[kind(**COMMON) for kind in PLAIN],
        Transferred(**COMMON, from_location="Location/6", leaves=True),
        Merged(**COMMON, retired=Subject("Patient/2")),
        Updated(patient=Subject(), visit=Visit(), source=Source.HAND),
    ],
)
def test_every_kind_of_event_comes_back_as_it_was(event: Event) -> None:
    back = load_event(dump_event(event))
    assert (type(back), back) == (type(event), event)


def test_a_key_is_of_its_source_and_an_event_without_one_has_none() -> None:
    events = [Admitted(**COMMON), Admitted(**{**COMMON, "key": ""}), Admitted(**{**COMMON, "source": "poll"})]
    assert [key for key, _ in dump_events([*events[:2]])] == ["hl7 k", ""]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'["Admitted"]',
        b'["Nothing", {}]',
        f'["Admitted", {{"patient": "{CANARY}"}}]'.encode(),
        CANARY.encode(),
    ],
)
def test_what_is_no_event_is_an_error_that_repeats_nothing_of_it(content: bytes) -> None:
    with pytest.raises(StoreError) as raised:
        load_event(content)
    assert CANARY not in f"{raised.value!r} {raised.value.__cause__} {raised.value.message}"
    assert raised.value.__suppress_context__
