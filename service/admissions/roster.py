"""Who is admitted: events become admissions, and what ends, moves or dies ends or redirects the work.

An event is a hint that something happened: the patient and the stay are looked up before anything is kept. An
event that cannot be acted on is tried again later; what can never be is counted, and shown by its reason.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from connectors.admissions.events import (
    Cancelled,
    Deceased,
    Discharged,
    Event,
    Merged,
    Source,
    Transferred,
    Visit,
)
from connectors.admissions.resolve import Resolved, Resolver, Unresolved
from connectors.errors import ConnectorError, NoSuchHost, NothingListens
from service.admissions.form import load_event
from service.errors import EpicrisisError, FilingError, StoreError
from service.filing.desk import Desk
from service.filing.withdraw import DISCHARGED, MERGED, lapse
from service.ports import Admission, AdmissionStore, DocumentState, Heard, Standing

ACTOR = "system:schedule"
_ENDINGS = (Discharged, Deceased, Cancelled)
_OVER = frozenset({"finished", "cancelled", "entered-in-error"})
_TOO_EARLY = frozenset({Unresolved.UNKNOWN_PATIENT, Unresolved.UNKNOWN_STAY, Unresolved.NO_STAY})
"""A message may be faster than the record system, which knows the patient or the stay a moment later."""
TOO_EARLY_TRIES = 5

Order = Callable[[Admission], Awaitable[None]]
"""Has an admission visited soon."""
Cancel = Callable[[Admission], Awaitable[None]]
"""Stops what is under way for an admission."""


async def _nothing(_admission: Admission) -> None:
    """Leave it to the next sweep."""


@dataclass
class Roster:
    """Acts on what was heard. One instance is one session: what it looked up it does not look up again."""

    store: AdmissionStore
    resolver: Resolver
    desk: Desk
    order: Order = _nothing
    cancel: Cancel = _nothing
    counts: Counter[str] = field(default_factory=Counter)
    """How many events ended how: `admitted`, `ended`, …, or why nothing came of them."""

    async def heed_all(self, *, again: bool = True) -> int:
        """Act on all that was heard by now, and return how many events that were. Raises StoreError.

        With `again`, on what was tried before, too. While nobody answers nothing counts as tried.
        """
        done = 0
        seen: set[int] = set()
        while heard := [one for one in await self._unheeded(again) if one.id not in seen]:
            seen |= {one.id for one in heard}
            events = [(one, event) for one in heard if (event := await self._load(one)) is not None]
            with suppress(ConnectorError):  # what could not be read at once is read one by one
                await self.resolver.prefetch([event for _, event in events])
            for one, event in events:
                try:
                    is_done = await self._heed(one, event)
                except (NothingListens, NoSuchHost) as error:
                    self.counts[f"failed:{error.code}"] += 1
                    return done
                await asyncio.to_thread(self.store.heed, one.id, again=not is_done)
                done += 1
        return done

    async def _unheeded(self, again: bool) -> Sequence[Heard]:
        heard = await asyncio.to_thread(self.store.unheeded)
        return heard if again else [one for one in heard if not one.tries]

    async def _load(self, heard: Heard) -> Event | None:
        try:
            return load_event(heard.content)
        except StoreError:
            self.counts["unreadable_event"] += 1
            await asyncio.to_thread(self.store.heed, heard.id)
            return None

    async def _heed(self, heard: Heard, event: Event) -> bool:
        """Act on one event; False where it is to be tried again.

        Raises NothingListens and NoSuchHost, and StoreError.
        """
        try:
            resolved = await self.resolver.resolve(event)
            await self._act(event, resolved)
        except (NothingListens, NoSuchHost):
            raise
        except (ConnectorError, FilingError) as error:
            self.counts[f"failed:{error.code}"] += 1
            return False
        is_early = event.source is Source.HL7 and resolved.reason in _TOO_EARLY
        return not is_early or heard.tries >= TOO_EARLY_TRIES

    async def _act(self, event: Event, resolved: Resolved) -> None:
        if isinstance(event, Merged):
            await self._merge(event, resolved)
        if isinstance(event, _ENDINGS):
            await self._end(event, resolved)
        elif isinstance(event, Transferred) and event.leaves:
            if not await self._is_watched_there(event, resolved):
                await self._end(event, resolved)
        elif resolved.reason is not None or not resolved.encounter:
            self.counts[str(resolved.reason or "no_stay")] += 1
        elif (resolved.encounter_resource or {}).get("status") in _OVER:
            await self._end(event, resolved)  # news of a stay that is over by now
        else:
            await self._go_on(event, resolved)

    async def _go_on(self, event: Event, resolved: Resolved) -> None:
        """Keep a stay that begins, goes on or goes on again, and have it visited."""
        server = self.desk.ehr.base_url
        before = await asyncio.to_thread(self.store.find_admission, server, resolved.encounter)
        if before is None:
            before = await self._keep_new(resolved)
        elif before.patient != resolved.patient:
            await self.cancel(before)
            await self._lapse(before, MERGED)

        def change(kept: Admission) -> Admission:
            run_id = kept.run_id if kept.patient == resolved.patient else ""
            return replace(
                kept,
                patient=resolved.patient,
                encounter_class=event.encounter_class or kept.encounter_class,
                location=event.location or kept.location,
                standing=Standing.STALE if run_id else Standing.MISSING,
                since=self.desk.clock(),
                reason="",
                run_id=run_id,
            )

        self.counts["kept"] += 1
        await self.order(await asyncio.to_thread(self.store.change_admission, before.id, change))

    async def _keep_new(self, resolved: Resolved) -> Admission:
        """Keep a stay for the first time; where another process was faster, return what that one kept."""
        server = self.desk.ehr.base_url
        new = Admission(secrets.token_hex(8), server, resolved.patient, resolved.encounter)
        try:
            await asyncio.to_thread(self.store.put_admission, new)
        except StoreError:
            kept = await asyncio.to_thread(self.store.find_admission, server, resolved.encounter)
            if kept is None:
                raise
            return kept
        self.counts["admitted"] += 1
        return new

    async def _is_watched_there(self, event: Transferred, resolved: Resolved) -> bool:
        """Tell whether another schedule, which watches the place that a stay went to, has taken it over."""
        server = self.desk.ehr.base_url
        kept = await asyncio.to_thread(self.store.find_admission, server, resolved.encounter)
        is_elsewhere = event.location not in ("", event.from_location)
        return kept is not None and kept.is_open and is_elsewhere and kept.location == event.location

    async def _end(self, event: Event, resolved: Resolved) -> None:
        """End a stay: nothing more is made for it, its drafts are withdrawn. With a death, all stays end."""
        patient, encounter = resolved.patient, resolved.encounter or event.visit.reference
        mine = [
            admission
            for admission in await asyncio.to_thread(self.store.admissions, self.desk.ehr.base_url)
            if admission.encounter == encounter
            or (isinstance(event, Deceased) and patient and admission.patient == patient)
        ]
        self.counts["ended" if mine else "ended_unknown"] += 1
        for admission in mine:
            await self.end(admission, type(event).__name__.lower())

    async def end(self, admission: Admission, reason: str) -> None:
        """End an admission for a reason in one word. Raises ConnectorError, FilingError, StoreError."""

        def change(kept: Admission) -> Admission:
            return replace(
                kept, standing=Standing.ENDED, reason=reason, since=self.desk.clock(), epoch=kept.epoch + 1
            )

        await asyncio.to_thread(self.store.change_admission, admission.id, change)
        await self.cancel(admission)
        await self._lapse(admission, DISCHARGED)

    async def _merge(self, event: Merged, resolved: Resolved) -> None:
        """Withdraw what was drafted about the retired record (SAFETY 1), and look after the surviving one.

        Where one stay went to another patient, and the record that it went from lives on, that stay alone is
        meant.
        """
        found = await self.resolver.resolve(replace(event, patient=event.retired, visit=Visit()))
        retired = {event.retired.reference, found.patient, *found.retired, *resolved.retired}
        retired -= {"", resolved.patient}
        lives_on = found.patient not in ("", resolved.patient)
        stay = (resolved.encounter or event.visit.reference) if event.visit and lives_on else ""
        for admission in await asyncio.to_thread(self.store.admissions, self.desk.ehr.base_url):
            if admission.patient in retired and stay in ("", admission.encounter):
                await self.end(admission, "merged")
        for patient in retired:
            await self._lapse_of(patient, MERGED, stay)
        self.counts["merged"] += 1

    async def _lapse(self, admission: Admission, reason: str) -> None:
        await self._lapse_of(admission.patient, reason, admission.encounter)

    async def _lapse_of(self, patient: str, reason: str, encounter: str = "") -> None:
        """Withdraw a patient's drafts, of one stay or of all; what the EHR refuses now expires later."""
        for row in await asyncio.to_thread(self.desk.documents.documents_of, patient):
            is_meant = row.state is DocumentState.DRAFT and row.server == self.desk.ehr.base_url
            if is_meant and (not encounter or row.encounter in ("", encounter)):
                try:
                    await lapse(self.desk, row, reason, ACTOR)
                    self.counts["withdrawn"] += 1
                except (ConnectorError, EpicrisisError) as error:
                    self.counts[f"not_withdrawn:{error.code}"] += 1
