"""Admissions by asking: one search of all watched stays now and then, and in between of what has changed.

Nothing is lost and nothing comes twice, since news is what differs from the known stays (`stays`), not what
lies after an instant. The instant only bounds what is asked for, and is always one of the server's own:
`_lastUpdated` of what was seen. A search by pages is not one moment: what changes meanwhile moves others
across a page's edge. So a search of several pages counts only when nothing changed while it ran.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from connectors.admissions.cursor import Cursor
from connectors.admissions.encounter import Ward, parse_instant, read_encounter
from connectors.admissions.events import Batch, Event, Source
from connectors.admissions.filters import honours_last_updated, offered_filters
from connectors.admissions.stays import GOES_ON, Phase, Stay, Stays
from connectors.errors import ConnectorError, NotFoundError
from connectors.fhir.client import FhirClient, Identity, identity
from connectors.fhir.outcome import gap_of_outcome
from connectors.http import Params


@dataclass(frozen=True, slots=True)
class Pace:
    """How far back and how often is looked. Seconds end in `_s`."""

    overlap_s: float = 300.0
    """How far before the newest change a search begins: transactions commit late, servers cut to seconds."""
    whole_every_s: float = 24 * 3600.0
    """A deleted Encounter is in no search of changes: all stays are looked at so often."""
    keep_ended_s: float = 7 * 24 * 3600.0
    """For how long an ended stay is remembered, so that a discharge taken back is told from an admission."""
    max_scans: int = 4
    """How often one search is repeated while the ward is too busy to be seen at one moment."""
    max_looked_up: int = 200
    """Stays that are read one by one because a search does not bring them any more."""
    max_unfound: int = 5
    """More stays than that, and more than half of all, do not vanish at once: then none of them has ended."""


async def poll_encounters(
    client: FhirClient, ward: Ward, cursor: Cursor, *, now: datetime, pace: Pace | None = None
) -> Batch[Cursor]:
    """Return what happened since the cursor, and the next cursor.

    Raises ConnectorError where the server cannot be asked at all; a failure later on leaves `is_complete`
    False, with the code of the error among `odd`.
    """
    look = _Look(client, ward, cursor, now, pace or Pace())
    await look.run()
    return look.batch()


@dataclass(slots=True)
class _Scan:
    """What one search by pages brought."""

    versions: set[Identity] = field(default_factory=set)
    totals: set[int | None] = field(default_factory=set)
    pages: int = 0
    repeats: int = 0
    is_partial: bool = False

    def adds_up(self, page_size: int) -> bool:
        """Tell whether the pages agree with each other, and none was cut."""
        if self.is_partial or len(self.totals) > 1 or (self.repeats and self.pages > 1):
            return False
        count = len(self.versions) + self.repeats
        total = next(iter(self.totals), None)
        if total is None:
            return self.pages > 1 or count < page_size
        return total <= count


@dataclass(slots=True)
class _Look:
    client: FhirClient
    ward: Ward
    cursor: Cursor
    now: datetime
    pace: Pace
    events: list[Event] = field(default_factory=list)
    odd: Counter[str] = field(default_factory=Counter)
    versions: set[Identity] = field(default_factory=set)
    seen: int = 0
    is_complete: bool = True
    is_whole: bool = False
    newest: datetime | None = None
    by_change: bool = True
    stays: Stays = field(init=False)

    def __post_init__(self) -> None:
        self.stays = Stays.of(Source.POLL, self.cursor.stays)
        self.newest = self.cursor.since

    async def run(self) -> None:
        """Look at what changed, or at everything where that is due or the server cannot tell."""
        self.by_change = await honours_last_updated(self.client)
        if self.by_change and not self._is_due():
            self.is_complete = await self._scan_until_steady(self._changed_since(self.cursor.since))
            return
        offer = await offered_filters(self.client, self.ward)
        for name in offer.refused:
            self.odd[f"filter_applied_here:{name}"] += 1
        self.is_whole = self.is_complete = await self._scan_until_steady(offer.params)
        if self.is_whole:
            await self._look_up_vanished()

    def batch(self) -> Batch[Cursor]:
        """Return what was found. An incomplete look moves no instant, so that the next one asks again."""
        since, whole_at = self.cursor.since, self.cursor.whole_at
        if self.is_complete:
            since = self.newest
            whole_at = self.now if self.is_whole else whole_at
        oldest = self.now - timedelta(seconds=self.pace.keep_ended_s)
        kept = tuple(stay for stay in self.stays if stay.phase is Phase.OPEN or _is_after(stay, oldest))
        return Batch(
            tuple(self.events), Cursor(since, whole_at, kept), +self.odd, self.seen, self.is_complete
        )

    def _is_due(self) -> bool:
        """A clock of ours that jumped back makes a whole look due: better one too many."""
        whole_at = self.cursor.whole_at
        if self.cursor.since is None or whole_at is None or whole_at > self.now:
            return True
        return (self.now - whole_at).total_seconds() >= self.pace.whole_every_s

    def _changed_since(self, instant: datetime | None) -> Params:
        """Ask for changes of any stay: one that was discharged answers to no filter by status any more."""
        if instant is None:
            return ()
        start = instant - timedelta(seconds=self.pace.overlap_s)
        return (("_lastUpdated", f"ge{start.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"),)

    async def _scan_until_steady(self, params: Params) -> bool:
        """Search until one search was one moment: one page, or nothing that changed since before it began."""
        for _ in range(self.pace.max_scans):
            before = self.versions | self._known_versions
            scan = await self._scan(params)
            if scan.is_partial:
                return False
            adds_up = scan.adds_up(self.client.limits.page_size)
            if scan.pages == 1:
                self.odd["page_cut_off"] += not adds_up
                return adds_up
            if await self._nothing_changed(scan, before) and adds_up:
                return True
        self.odd["too_busy"] += 1
        return False

    async def _nothing_changed(self, scan: _Scan, before: set[Identity]) -> bool:
        """Tell whether all that is newest was there before the search began. What is new is taken at once."""
        if not self.by_change:
            return scan.versions <= before
        closing = await self._scan(self._changed_since(self.newest))
        return not closing.is_partial and closing.versions <= before

    @property
    def _known_versions(self) -> set[Identity]:
        return {("Encounter", stay.id.partition("/")[2], stay.version) for stay in self.cursor.stays}

    async def _scan(self, params: Params) -> _Scan:
        scan = _Scan()
        sized = (*params, ("_count", str(self.client.limits.page_size)))
        try:
            async for page in self.client.pages("Encounter", sized):
                scan.pages += 1
                scan.totals.add(page.total)
                if any(gap_of_outcome(outcome, "Encounter") for outcome in page.outcomes):
                    self.odd["server_left_results_out"] += 1
                    scan.is_partial = True
                for resource in page.resources:
                    self._take(resource, scan)
        except ConnectorError as error:
            if not scan.pages and not self.seen:
                raise
            self.odd[f"failed:{error.code}"] += 1
            scan.is_partial = True
        return scan

    def _take(self, resource: dict[str, Any], scan: _Scan) -> None:
        version = identity(resource)
        scan.repeats += version in scan.versions
        scan.versions.add(version)
        is_first = version not in self.versions
        self.versions.add(version)
        self.seen += is_first
        self._note_instant(resource, is_first)
        reading = read_encounter(resource, self.ward, self.client.base_url)
        if reading.odd and is_first:
            self.odd[reading.odd] += 1
        stay = reading.stay
        if stay is None:
            return
        is_unknown = stay.id not in self.stays.known
        self.events += self.stays.take(stay)
        if is_unknown and is_first and reading.is_of_class and self._ended_unseen(stay):
            self.odd["ended_before_it_was_seen"] += 1

    def _ended_unseen(self, stay: Stay) -> bool:
        """Tell whether a whole stay went by between two looks; before the first look that is no surprise."""
        return self.cursor.since is not None and stay.phase in (Phase.ENDED, Phase.DIED)

    def _note_instant(self, resource: dict[str, Any], is_first: bool) -> None:
        """An instant far ahead of our clock (an import, a wrong clock) must not hide what comes before it."""
        meta = resource.get("meta")
        updated = parse_instant(meta.get("lastUpdated")) if isinstance(meta, dict) else None
        if updated is None:
            self.odd["without_last_updated"] += is_first
        elif updated > self.now + timedelta(seconds=self.pace.overlap_s):
            self.odd["updated_in_the_future"] += is_first
        elif self.newest is None or updated > self.newest:
            self.newest = updated

    async def _look_up_vanished(self) -> None:
        """Find out what became of stays that went on, and that the search of all stays did not bring."""
        phases = {Phase.OPEN} if self.by_change else GOES_ON
        open_ids = [stay.id for stay in self.stays if stay.phase in phases]
        vanished = [stay_id for stay_id in open_ids if stay_id not in self.stays.touched]
        unfound: list[str] = []
        for stay_id in vanished[: self.pace.max_looked_up]:
            try:
                resource = await self.client.read(stay_id)
            except NotFoundError:
                unfound.append(stay_id)
            except ConnectorError as error:
                self.odd[f"failed:{error.code}"] += 1
                self.is_complete = self.is_whole = False
            else:
                self._take(resource, _Scan())
        self._end_unfound(unfound, len(open_ids))
        if len(vanished) > self.pace.max_looked_up:
            self.is_complete = self.is_whole = False

    def _end_unfound(self, unfound: list[str], open_count: int) -> None:
        if len(unfound) > max(self.pace.max_unfound, open_count // 2):
            self.odd["too_many_unfound"] += len(unfound)
            self.is_complete = self.is_whole = False
            return
        for stay_id in unfound:
            self.events += self.stays.end(stay_id, Phase.VOID, None, "deleted")


def _is_after(stay: Stay, oldest: datetime) -> bool:
    when = parse_instant(stay.updated) or stay.at
    return when is not None and when > oldest
