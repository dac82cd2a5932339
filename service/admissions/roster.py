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
    Transferred,
)
from connectors.admissions.resolve import Resolved, Resolver
from connectors.errors import ConnectorError
from service.admissions.form import load_event
from service.errors import EpicrisisError, FilingError, StoreError
from service.filing.desk import Desk
from service.filing.withdraw import DISCHARGED, MERGED, lapse
from service.ports import Admission, AdmissionStore, DocumentState, Heard, Standing

ACTOR = "system:schedule"
_ENDINGS = (Discharged, Deceased, Cancelled)
_OVER = frozenset({"finished", "cancelled", "entered-in-error"})

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

    async def heed_all(self) -> int:
        """Act on all that was heard by now, and return how many events that were. Raises StoreError."""
        done = 0
        seen: set[int] = set()
        while heard := [one for one in await self._unheeded() if one.id not in seen]:
            seen |= {one.id for one in heard}
            events = [(one, event) for one in heard if (event := await self._load(one)) is not None]
            with suppress(ConnectorError):  # what could not be read at once is read one by one
                await self.resolver.prefetch([event for _, event in events])
            for one, event in events:
                again = not await self._heed(event)
                await asyncio.to_thread(self.store.heed, one.id, again=again)
                done += 1
        return done

    async def _unheeded(self) -> Sequence[Heard]:
        return await asyncio.to_thread(self.store.unheeded)

    async def _load(self, heard: Heard) -> Event | None:
        try:
            return load_event(heard.content)
        except StoreError:
            self.counts["unreadable_event"] += 1
            await asyncio.to_thread(self.store.heed, heard.id)
            return None

    async def _heed(self, event: Event) -> bool:
        """Act on one event; False where it is to be tried again."""
        try:
            resolved = await self.resolver.resolve(event)
            await self._act(event, resolved)
        except (ConnectorError, FilingError) as error:
            self.counts[f"failed:{error.code}"] += 1
            return False
        return True

    async def _act(self, event: Event, resolved: Resolved) -> None:
        if isinstance(event, Merged):
            await self._merge(event, resolved)
        if isinstance(event, _ENDINGS) or (isinstance(event, Transferred) and event.leaves):
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
            self.counts["admitted"] += 1
            before = Admission(secrets.token_hex(8), server, resolved.patient, resolved.encounter)
        elif before.patient != resolved.patient:
            await self._lapse(before, MERGED)
        after = replace(
            before,
            patient=resolved.patient,
            encounter_class=event.encounter_class or before.encounter_class,
            location=event.location or before.location,
            standing=Standing.STALE if before.run_id else Standing.MISSING,
            since=self.desk.clock(),
            reason="",
        )
        self.counts["kept"] += 1
        await asyncio.to_thread(self.store.put_admission, after)
        await self.order(after)

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
        ended = replace(
            admission,
            standing=Standing.ENDED,
            reason=reason,
            since=self.desk.clock(),
            epoch=admission.epoch + 1,
        )
        await asyncio.to_thread(self.store.put_admission, ended)
        await self.cancel(admission)
        await self._lapse(admission, DISCHARGED)

    async def _merge(self, event: Merged, resolved: Resolved) -> None:
        """Withdraw what was drafted about the retired record (SAFETY 1), and look after the surviving one."""
        retired = {event.retired.reference, *resolved.retired} - {"", resolved.patient}
        for patient in retired:
            await self._lapse_of(patient, MERGED)
        for admission in await asyncio.to_thread(self.store.admissions, self.desk.ehr.base_url):
            if admission.patient in retired:
                await self.cancel(admission)
                await self.end(admission, "merged")
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
