"""A part of one patient's record, read at once for somebody who waits: a few searches, each limited in time.

No failure loses what already came: each becomes a Gap, as in a whole pull. What nobody searches is no gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from connectors.errors import ConnectorError, TimedOut, TokenRefused, Unauthorized
from connectors.fhir.client import FhirClient
from connectors.fhir.patient import Gathered, Search, merge_gaps, read_medications, read_pages, read_patient
from connectors.fhir.pull import Gap, GapReason, Pull
from connectors.fhir.reference import parse_patient_id

ENDED = (Unauthorized, TokenRefused)
"""The token itself is not good any more: no other search would be answered either."""


async def pull_part(
    client: FhirClient,
    patient_id: str,
    searches: Sequence[Search],
    *,
    now: Callable[[], datetime],
    limit_s: float,
) -> Pull:
    """Return the Patient and what the searches find, with their gaps, `limit_s` after the call at the latest.

    Raises ConnectorError only where the Patient cannot be read, or the token is not good any more.
    """
    read_at = now()
    wanted = parse_patient_id(patient_id)
    gathered = Gathered()
    ends_at = asyncio.get_running_loop().time() + limit_s
    found = await asyncio.gather(
        _patient(client, wanted, gathered, ends_at),
        *[_in_time(client, search, gathered, ends_at) for search in searches],
        return_exceptions=True,
    )
    for failure in found:
        if isinstance(failure, BaseException):
            raise failure
    await _medications(client, gathered, ends_at)
    return Pull(
        patient_id=wanted,
        resources=gathered.resources,
        gaps=merge_gaps(gathered.gaps),
        read_at=read_at,
    )


async def _patient(client: FhirClient, patient_id: str, gathered: Gathered, ends_at: float) -> None:
    try:
        async with asyncio.timeout_at(ends_at):
            gathered.add("Patient", [await read_patient(client, patient_id)])
    except TimeoutError:
        raise _too_slow(client) from None


async def _in_time(client: FhirClient, search: Search, gathered: Gathered, ends_at: float) -> None:
    try:
        async with asyncio.timeout_at(ends_at):
            await read_pages(client, search, gathered, gathered.gaps, fatal=ENDED)
    except TimeoutError:
        gathered.gaps.append(Gap(search.resource_type, GapReason.TIMED_OUT))


async def _medications(client: FhirClient, gathered: Gathered, ends_at: float) -> None:
    """Read what prescriptions refer to: they name the drug."""
    try:
        async with asyncio.timeout_at(ends_at):
            await read_medications(client, gathered)
    except TimeoutError:
        gathered.gaps.append(Gap("Medication", GapReason.TIMED_OUT))


def _too_slow(client: FhirClient) -> ConnectorError:
    return TimedOut(f"{client.session.origin} did not answer in time.")
