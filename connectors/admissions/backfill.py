"""The admissions of a cohort: the Encounters of a Bulk Data export, as events."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime

from connectors.admissions.cursor import Cursor
from connectors.admissions.encounter import Ward, read_encounter
from connectors.admissions.events import Batch, Event, Source
from connectors.admissions.export import ExportPace, Manifest, Progress, read_export
from connectors.admissions.stays import Stays
from connectors.fhir.client import FhirClient

_EVENTS_A_BATCH = 200


@dataclass(frozen=True, slots=True)
class Backfill:
    """How far an export was read, and which stays are known by then. `cursor` is one for polling, too."""

    progress: Progress
    cursor: Cursor


async def read_admissions(
    client: FhirClient,
    manifest: Manifest,
    ward: Ward,
    start: Backfill,
    *,
    now: datetime,
    pace: ExportPace | None = None,
) -> AsyncGenerator[Batch[Backfill], None]:
    """Yield the watched stays of an export, some at a time; the last batch is complete.

    The last cursor's `since` is the export's own time, so that polling can go on from there.
    Raises ConnectorError; the last batch's cursor is where to begin again.
    """
    stays, odd = Stays.of(Source.EXPORT, start.cursor.stays), Counter[str]()
    events: list[Event] = []
    progress, seen = start.progress, 0

    def batch(cursor: Cursor, is_complete: bool) -> Batch[Backfill]:
        known = replace(cursor, stays=tuple(stays))
        return Batch(tuple(events), Backfill(progress, known), +odd, seen, is_complete)

    async with aclosing(read_export(client, manifest, progress, odd, pace=pace)) as lines:
        async for line in lines:
            progress = line.progress
            if line.resource is not None and line.resource.get("resourceType") == "Encounter":
                seen += 1
                reading = read_encounter(line.resource, ward, client.base_url)
                odd[reading.odd or "-"] += bool(reading.odd)
                events += stays.take(reading.stay) if reading.stay else ()
            if len(events) >= _EVENTS_A_BATCH:
                yield batch(start.cursor, False)
                events, seen = [], 0
                odd.clear()
    finished = Cursor(manifest.transaction_time, now if manifest.transaction_time else None)
    yield batch(finished, True)
