"""The sources of a site: each is asked what happened, and what it said is stored with where it stands.

Events and cursor go into the store in one transaction: whatever dies, nothing is lost and nothing comes
twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path

import msgspec

from connectors.admissions.backfill import Backfill, read_admissions
from connectors.admissions.census import list_by_hand, read_census
from connectors.admissions.cursor import Cursor, CursorUnreadable
from connectors.admissions.encounter import Ward
from connectors.admissions.events import Batch, Event
from connectors.admissions.export import Manifest, Progress, start_export, wait_for_export
from connectors.admissions.polling import Pace, poll_encounters
from connectors.admissions.stays import Phase
from connectors.errors import RequestRejected
from connectors.fhir.client import FhirClient
from service.admissions.form import dump_events
from service.errors import SettingsError
from service.ports import AdmissionStore, Clock

CENSUS = "census"


@dataclass
class Ears:
    """The sources, and the store that keeps what they say. `odd` counts what could not be used, by reason."""

    client: FhirClient
    store: AdmissionStore
    clock: Clock
    zone: tzinfo = UTC
    pace: Pace = field(default_factory=Pace)
    census: Path | None = None
    """A file that is read whole each time."""
    odd: Counter[str] = field(default_factory=Counter)

    async def poll(self, ward: Ward) -> frozenset[str]:
        """Ask for Encounters, and return the stays that go on, as far as the server says.

        Raises ConnectorError where the server cannot be asked at all, and StoreError.
        """
        source = _source(ward)
        before = await self._cursor(source)
        try:
            batch = await poll_encounters(self.client, ward, before, now=self.clock(), pace=self.pace)
        except RequestRejected:
            self.odd["no_encounter_search"] += 1
            return frozenset()
        await self._keep(source, batch)
        return frozenset(stay.id for stay in batch.cursor.stays if stay.phase is Phase.OPEN)

    async def read_census(self) -> None:
        """Read the census file, where there is one. Raises CensusUnreadable, SettingsError, StoreError."""
        if self.census is None:
            return
        data = await asyncio.to_thread(_bytes_of, self.census)
        batch = read_census(data, await self._cursor(CENSUS), now=self.clock(), zone=self.zone)
        await self._keep(CENSUS, batch)

    async def read_list(self, path: Path) -> frozenset[str]:
        """Take a list by hand, and return what it names. Raises SettingsError, StoreError."""
        lines = (await asyncio.to_thread(_bytes_of, path)).decode("utf-8", "replace").splitlines()
        batch = list_by_hand(lines, now=self.clock())
        self.odd.update(batch.odd)
        await self.hear(batch.events)
        return frozenset(one.patient.reference or one.visit.reference for one in batch.events)

    async def read_group(self, group: str, ward: Ward) -> None:
        """Take the admissions of a Bulk Data export of `Group/1`; polling then goes on from its time.

        One that is cut off is read on from there the next time, as long as the server has it. Raises
        ConnectorError, StoreError.
        """
        source = f"export-{_digest([group, ward])}"
        manifest, start = await self._export(group, source)
        batches = read_admissions(self.client, manifest, ward, start, now=self.clock())
        async with aclosing(batches):
            async for batch in batches:
                kept = b"" if batch.is_complete else _dump_export(manifest, batch.cursor)
                await asyncio.to_thread(self.store.hear, dump_events(batch.events), source, kept)
                self.odd.update(batch.odd)
                if batch.is_complete:
                    await asyncio.to_thread(self.store.hear, [], _source(ward), batch.cursor.cursor.dump())

    async def _export(self, group: str, source: str) -> tuple[Manifest, Backfill]:
        """Return the export that was left off, or a new one."""
        kept = await asyncio.to_thread(self.store.cursor, source)
        if kept:
            try:
                return _load_export(kept)
            except (ValueError, TypeError, msgspec.MsgspecError):
                self.odd["export_begun_again"] += 1
        export = await start_export(self.client, group, types=("Encounter",))
        return await wait_for_export(self.client, export), Backfill(Progress(), Cursor())

    async def hear(self, events: Sequence[Event]) -> None:
        """Keep events whose source keeps no cursor. Raises StoreError."""
        await asyncio.to_thread(self.store.hear, dump_events(events))

    async def _keep(self, source: str, batch: Batch[Cursor]) -> None:
        await asyncio.to_thread(self.store.hear, dump_events(batch.events), source, batch.cursor.dump())
        self.odd.update(batch.odd)
        if not batch.is_complete:
            self.odd["look_incomplete"] += 1

    async def _cursor(self, source: str) -> Cursor:
        kept = await asyncio.to_thread(self.store.cursor, source)
        try:
            return Cursor() if kept is None else Cursor.load(kept)
        except CursorUnreadable:
            return Cursor()


def _source(ward: Ward) -> str:
    """Name where polling stands: another ward is another cursor."""
    return f"poll-{_digest(ward)}"


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:16]


def _dump_export(manifest: Manifest, backfill: Backfill) -> bytes:
    parts = (manifest.dump(), backfill.progress.dump(), backfill.cursor.dump())
    return msgspec.json.encode(parts)  # bytes as base64


def _load_export(kept: bytes) -> tuple[Manifest, Backfill]:
    """Raises ValueError, TypeError or MsgspecError."""
    manifest, progress, cursor = msgspec.json.decode(kept, type=tuple[bytes, bytes, bytes])
    return Manifest.load(manifest), Backfill(Progress.load(progress), Cursor.load(cursor))


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise SettingsError(f"The file {path.name} cannot be read.", "See its name and its rights.") from None
