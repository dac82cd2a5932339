"""Who said no, of patients whose summaries are to be handed out for training. What cannot be read is a no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from connectors.admissions.consents import PreferenceRules, Resource
from connectors.admissions.lookup import CHUNK, read_many
from connectors.admissions.preferences import (
    Preferences,
    read_preferences,
    read_preferences_of,
    references_of,
)
from connectors.admissions.sitelist import SiteList
from connectors.fhir.client import FhirClient
from service.eligibility import Reason

NOT_READABLE = "not_readable"


async def find_refusals(
    client: FhirClient,
    wishes: PreferenceRules,
    listed: SiteList | None,
    patients: Sequence[str],
    now: datetime,
) -> Mapping[str, str]:
    """Return why each of these patients (`Patient/1`) is left out; who is not there said no nowhere.

    `listed` is the site's list of opt-outs, None where it could not be read. Raises ConnectorError where no
    server answers at all.
    """
    if listed is None or listed.is_everyone:
        why = Reason.LIST_UNREADABLE if listed is None else Reason.SWITCHED_OFF
        return dict.fromkeys(patients, str(why))
    preferences = await read_preferences(client, wishes)
    refused: dict[str, str] = {}
    for start in range(0, len(patients), CHUNK):
        some = patients[start : start + CHUNK]
        found = (
            await read_many(client, "Patient", [one.partition("/")[2] for one in some], max_singly=CHUNK)
        ).found
        read = {f"Patient/{one}": resource for one, resource in found.items()}
        known = preferences
        if preferences.unknown:
            known = await read_preferences_of(client, wishes, preferences, list(read.values()))
        why_not = {one: _why_not(read.get(one), known, listed, now) for one in some}
        refused |= {one: why for one, why in why_not.items() if why}
    return refused


def _why_not(patient: Resource | None, preferences: Preferences, listed: SiteList, now: datetime) -> str:
    if patient is None:
        return NOT_READABLE
    choice = preferences.of(patient, now=now)
    for is_no, why in (
        (listed.names_patient(references_of(patient), patient), Reason.OPTED_OUT_BY_LIST),
        (choice.flagged, Reason.OPTED_OUT_BY_FLAG),
        (choice.refused, Reason.OPTED_OUT_BY_CONSENT),
        (not choice.is_known, Reason.PREFERENCES_UNKNOWN),
    ):
        if is_no:
            return str(why)
    return ""
