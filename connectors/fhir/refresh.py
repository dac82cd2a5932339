"""Bringing a known record up to date at the cost of what changed.

Each type is searched for what changed since the last read (`_lastUpdated`), and counted, so that deletions
are noticed; where the server takes a batch, one request says first which types need no second look. Nothing
is believed that was not shown: where the server's answers do not add up, the caller is told to read the
record whole.

Types that came by `$everything` and cannot be searched are read again one by one, or by `$everything?_since`
where that works; new ones among them are noticed where a changed resource refers to them, the others at the
next whole read. Where that could hide a vital type, the record is read whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from connectors.errors import ConnectorError, NotFoundError, RequestRejected, TooLarge
from connectors.fhir.attachments import Attachments, fetch_attachments
from connectors.fhir.capabilities import Capabilities
from connectors.fhir.client import FhirClient, Progress
from connectors.fhir.codec import dicts
from connectors.fhir.compartment import COMPARTMENT, VITAL, search_param, searched_types
from connectors.fhir.glance import HONOURS_LAST_UPDATED, NEVER, Glance, glance_at
from connectors.fhir.patient import (
    Gathered,
    Search,
    gap_of_error,
    merge_gaps,
    not_offered,
    read_medications,
    read_pages,
    read_patient,
    seen_by,
    silent,
    together,
)
from connectors.fhir.pull import Gap, GapReason, Pull
from connectors.fhir.reference import Reference, parse_reference
from connectors.fhir.stamp import Held, Key, key_of, parse_instant, stamp_of, write_instant
from connectors.http import Params, metered

_PROOF_BYTES = 64 * 1024
"""What an honest answer to `$everything?_since` with that date stays far below."""
_HOLDERS = frozenset({"DocumentReference", "DiagnosticReport"})


class _Untrusted(Exception):
    """The server's answers do not add up to a refreshed record."""


async def refresh_patient(
    client: FhirClient, known: Pull, *, now: Callable[[], datetime], on_progress: Progress | None = None
) -> Pull | None:
    """Return the record as it is now, or None where it must be read whole instead.

    Raises ConnectorError only when the Patient itself cannot be read, or the server is not R4.
    """
    read_at = now()
    if not _can_build_on(known, read_at, client.limits.whole_every_s):
        return None
    if known.capabilities is not None:
        client.adopt(known.capabilities)
    held = Held.of(known.resources)
    with metered() as meter:
        glance = await glance_at(client, known, held, _since(client, known))
        patient, capabilities = await _read_patient(client, known, glance)
        seen_until = min(seen_by(client, read_at), read_at - _lag(known))
        delta = _Delta(client, known, capabilities, on_progress or silent, held, glance)
        try:
            await delta.read(patient)
        except _Untrusted:
            return None
        gathered = delta.merged()
        found = len(gathered.resources)
        gathered.gaps += not_offered(capabilities, gathered.resources)
        await read_medications(client, gathered)
        attachments = await _read_attachments(client, known, gathered, delta.changed)
    return Pull(
        patient_id=known.patient_id,
        resources=gathered.resources,
        gaps=merge_gaps([*gathered.gaps, *attachments.gaps]),
        read_at=read_at,
        requests=meter.requests,
        bytes_received=meter.bytes,
        binaries=attachments.contents,
        whole_at=known.whole_at,
        changed=len(delta.changed.keys() - delta.gone) + len(gathered.resources) - found,
        dropped=len(delta.gone),
        seen_until=seen_until,
        broken=frozenset(delta.broken),
        capabilities=capabilities,
    )


async def _read_patient(
    client: FhirClient, known: Pull, glance: Glance
) -> tuple[dict[str, Any], Capabilities]:
    patient = _patient_of(known)
    if patient is not None and glance.capabilities is not None and "Patient" in glance.unchanged:
        return patient, glance.capabilities
    return await together(read_patient(client, known.patient_id, patient), client.capabilities())


def _since(client: FhirClient, known: Pull) -> datetime:
    start = known.seen_until or known.read_at
    return (start - timedelta(seconds=client.limits.refresh_overlap_s)).replace(microsecond=0)


def _lag(known: Pull) -> timedelta:
    """Return how far the server's clock was behind at the last read: an answer of 304 does not tell it."""
    return known.read_at - (known.seen_until or known.read_at)


def _patient_of(known: Pull) -> dict[str, Any] | None:
    """Return the Patient as known: it is the first resource of every pull."""
    first = next(iter(known.resources), None)
    is_patient = isinstance(first, dict) and key_of(first) == ("Patient", known.patient_id)
    return first if is_patient else None


def _can_build_on(known: Pull, read_at: datetime, whole_every_s: float) -> bool:
    """Tell whether the known record is whole, recent, and not from the future."""
    if known.whole_at is None or any(gap.resource_type is None for gap in known.gaps):
        return False
    return known.read_at <= read_at and (read_at - known.whole_at).total_seconds() <= whole_every_s


@dataclass(slots=True)
class _Delta:
    """What changed on the server since the known record was read."""

    client: FhirClient
    known: Pull
    capabilities: Capabilities
    on_progress: Progress
    held: Held
    glance: Glance
    """What it calls unchanged is not asked about again, what it brought is not searched for again."""
    changed: dict[Key, dict[str, Any]] = field(default_factory=dict)
    gone: set[Key] = field(default_factory=set)
    gaps: list[Gap] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    async def read(self, patient: dict[str, Any]) -> None:
        """Read what changed. Raises _Untrusted where the record must be read whole."""
        self._take([patient])
        self.on_progress("Patient", 1)
        searched = searched_types(self.capabilities)
        unsearchable = [kind for kind in COMPARTMENT if kind in self.held.ids and kind not in searched]
        to_search = [kind for kind in searched if kind not in self.glance.unchanged]
        by_search = not VITAL & set(unsearchable)
        if by_search and set(to_search) - self.glance.changes.keys():
            by_search = await self._honours_last_updated(searched)
        if not by_search:
            await self._read_everything()
        adds_up = True
        try:
            async with asyncio.TaskGroup() as group:
                for kind in to_search:
                    group.create_task(self._read_type(kind, by_search))
                for kind in set(unsearchable) - self.glance.unchanged:
                    group.create_task(self._read_again(kind))
        except* (_Untrusted, RequestRejected):
            adds_up = False
        if not adds_up:
            raise _Untrusted
        await self._follow_references(set(self.held.ids) - {*searched, "Patient", "Medication"})

    def merged(self) -> Gathered:
        """Return the known record with every change in its place, new resources last."""
        new = dict(self.changed)

        def revise(resource: Any) -> Any:
            if not isinstance(resource, dict):
                return None
            key = key_of(resource)
            if key in self.gone or (key in self.changed and key not in new):
                return None
            return new.pop(key, resource)

        resources = self.known.resources.revised(revise)
        resources.extend(resource for key, resource in new.items() if key not in self.gone)
        return Gathered(self.on_progress, resources, list(self.gaps))

    def _search(self, kind: str, *more: tuple[str, str]) -> Search:
        subject = (search_param(kind, self.capabilities), f"Patient/{self.known.patient_id}")
        return Search(kind, (subject, *more), kind)

    async def _read_type(self, kind: str, by_search: bool) -> None:
        told = self.glance.changes.get(kind)
        if told is not None:
            self.on_progress(kind, len(told.resources))
            self._take(told.resources)
            await self._drop_uncounted(kind, told.total)
            return
        whole = kind in self.known.broken
        if not whole and by_search and kind not in self.held.ids and kind not in VITAL:
            whole = await self._exists(kind)
            by_search = False
        if whole or by_search:
            listed = await self._read_changes(kind, whole)
            if listed is None:
                return
            if whole:
                await self._drop_gone(kind, self.held.ids.get(kind, set()) - listed)
                return
        if self.held.ids.get(kind):
            await self._compare_count(kind)

    async def _exists(self, kind: str) -> bool:
        """Tell whether there is anything of a type of which nothing is known: cheaper than a search."""
        try:
            async for page in self.client.pages(*self._search(kind, ("_summary", "count"))[:2]):
                return page.total != 0 or bool(page.outcomes)
        except RequestRejected:
            return True
        except ConnectorError as error:
            self.gaps.append(gap_of_error(error, kind, 0))
            self.broken.add(kind)
        return False

    async def _read_changes(self, kind: str, whole: bool) -> set[str] | None:
        """Take over what changed (all there is, where `whole`); return its ids, None where it broke off."""
        since = _since(self.client, self.known)
        search = (
            self._search(kind) if whole else self._search(kind, ("_lastUpdated", f"ge{write_instant(since)}"))
        )
        came, gaps = Gathered(self.on_progress), list[Gap]()
        complete = await read_pages(self.client, search, came, gaps, () if whole else (RequestRejected,))
        resources = [r for r in came.resources if isinstance(r, dict)]
        if not whole:
            _refuse_older(kind, resources, since)
        self._take(resources)
        if gaps:
            self.gaps += gaps
            self.broken.add(kind)
        return {key_of(r)[1] for r in resources if r.get("resourceType") == kind} if complete else None

    def _take(self, resources: Iterable[dict[str, Any]]) -> None:
        for resource in resources:
            if self.held.take(resource):
                self.changed[key_of(resource)] = resource

    async def _compare_count(self, kind: str) -> None:
        """Drop what the server no longer counts."""
        total = await self._total(self._search(kind, ("_summary", "count")))
        if total is None:
            raise _Untrusted
        await self._drop_uncounted(kind, total)

    async def _drop_uncounted(self, kind: str, total: int) -> None:
        if total != len(self.held.ids[kind]):
            listed = await self._list(kind)
            await self._drop_gone(kind, self.held.ids[kind] - listed)

    async def _total(self, search: Search) -> int | None:
        try:
            async for page in self.client.pages(search.path, search.query):
                return page.total
        except ConnectorError:
            raise _Untrusted from None
        return None

    async def _list(self, kind: str) -> set[str]:
        """Return the ids of all there is of a type. Raises _Untrusted for one whose change went unnoticed."""
        came, gaps = Gathered(), list[Gap]()
        search = self._search(kind, ("_elements", "id,meta"))
        if not await read_pages(self.client, search, came, gaps) or gaps:
            raise _Untrusted
        found = [r for r in came.resources if isinstance(r, dict) and r.get("resourceType") == kind]
        for resource in found:
            version = self.held.versions.get(key_of(resource))
            listed = stamp_of(resource)[0]
            if version is None or (listed and version[0] != listed):
                raise _Untrusted
        return {key_of(resource)[1] for resource in found}

    async def _drop_gone(self, kind: str, ids: set[str]) -> None:
        """Drop what was deleted. What is still there although its search hides it cannot be judged here."""
        keys = {(kind, i) for i in ids}
        await self._read_each(keys)
        if not keys <= self.gone:
            raise _Untrusted

    async def _read_again(self, kind: str) -> None:
        await self._read_each((kind, i) for i in self.held.ids[kind])

    async def _follow_references(self, kinds: set[str]) -> None:
        """Read what changed resources newly refer to, of the types that no search brings."""
        found = {
            (r.resource_type, r.id) for resource in self.changed.values() for r in self._references(resource)
        }
        await self._read_each(key for key in found if key[0] in kinds and key not in self.held.versions)

    def _references(self, value: Any) -> Iterator[Reference]:
        if isinstance(value, list):
            for item in value:
                yield from self._references(item)
        elif isinstance(value, dict):
            target = parse_reference(value.get("reference"), self.client.base_url)
            if target is not None:
                yield target
            for item in value.values():
                yield from self._references(item)

    async def _read_each(self, keys: Iterable[Key]) -> None:
        """Read resources one by one; those that were known and are not there are gone."""
        wanted = sorted(keys)
        if len(wanted) > self.client.limits.max_rereads:
            raise _Untrusted
        await asyncio.gather(*map(self._read_one, wanted))

    async def _read_one(self, key: Key) -> None:
        version = self.held.versions.get(key, ("", ""))[0]
        try:
            resource = await self.client.read_if_changed("/".join(key), version)
        except NotFoundError:
            self.gone |= {key} & self.held.versions.keys()
        except ConnectorError:
            raise _Untrusted from None
        else:
            self._take([resource] if resource else [])

    async def _honours_last_updated(self, searched: list[str]) -> bool:
        """Tell whether a search for the far future finds nothing, in the type of which most is known."""
        most = max(searched, key=lambda kind: len(self.held.ids.get(kind, ())), default="")
        if not self.held.ids.get(most):
            raise _Untrusted

        async def prove() -> bool:
            search = self._search(most, ("_lastUpdated", f"ge{NEVER}"), ("_count", "1"))
            return await _finds_nothing(self.client, search)

        return await self._proven(HONOURS_LAST_UPDATED, prove)

    async def _read_everything(self) -> None:
        """Take over what `$everything` says changed. Raises _Untrusted where it cannot be trusted to."""
        path = f"Patient/{self.known.patient_id}/$everything"
        if not self.capabilities.everything or not await self._proven("_since", self._honours_since):
            raise _Untrusted
        came, gaps = Gathered(self.on_progress), list[Gap]()
        search = Search(path, (("_since", write_instant(_since(self.client, self.known))),), None)
        if not await read_pages(self.client, search, came, gaps) or gaps:
            raise _Untrusted
        self._take(r for r in came.resources if isinstance(r, dict))

    async def _honours_since(self) -> bool:
        """Tell whether `$everything` for the far future brings the Patient at most.

        Servers that ignore the parameter send the whole record: the answer is given up as it grows long.
        """
        path = f"Patient/{self.known.patient_id}/$everything"
        params: Params = (("_since", NEVER), ("_count", "2"))
        try:
            async for page in self.client.pages(path, params, max_bytes=_PROOF_BYTES):
                others = [r for r in page.resources if r.get("resourceType") != "Patient"]
                return not others and page.next_link is None
        except (TooLarge, RequestRejected):
            return False
        return False

    async def _proven(self, what: str, prove: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await self.client.proven(what, prove)
        except ConnectorError:
            raise _Untrusted from None


async def _finds_nothing(client: FhirClient, search: Search) -> bool:
    try:
        async for page in client.pages(search.path, search.query):
            return not page.resources and not page.total
    except RequestRejected:
        return False
    return False


def _refuse_older(kind: str, resources: Iterable[dict[str, Any]], since: datetime) -> None:
    """Raise _Untrusted where a search brought what was changed before the time that was asked for."""
    for resource in resources:
        changed_at = parse_instant(stamp_of(resource)[1])
        if resource.get("resourceType") == kind and changed_at is not None and changed_at < since:
            raise _Untrusted


async def _read_attachments(
    client: FhirClient, known: Pull, gathered: Gathered, changed: dict[Key, dict[str, Any]]
) -> Attachments:
    """Fetch what changed documents link to and what could not be had before; keep what is known.

    Where the last read came to a limit, only changed documents are asked for, and its gaps stay.
    """
    old = [gap for gap in known.gaps if gap.resource_type in _HOLDERS - known.broken]
    is_full = any(gap.reason is GapReason.TOO_LARGE for gap in old)
    linked: set[str] = set()
    wanted: list[dict[str, Any]] = []
    for resource in gathered.resources:
        urls = set(_urls(resource)) if isinstance(resource, dict) else set()
        linked |= urls
        if urls and (key_of(resource) in changed or not (is_full or urls <= known.binaries.keys())):
            wanted.append(resource)
    found = await fetch_attachments(client, wanted, gathered.on_progress)
    kept = {url: content for url, content in known.binaries.items() if url in linked}
    return Attachments({**kept, **found.contents}, [*(old if is_full else ()), *found.gaps])


def _urls(resource: dict[str, Any]) -> Iterator[str]:
    """Yield what a document or report only links to."""
    if resource.get("resourceType") not in _HOLDERS:
        return
    attachments = [content.get("attachment") for content in dicts(resource.get("content"))]
    for attachment in dicts([*attachments, *dicts(resource.get("presentedForm"))]):
        url = attachment.get("url")
        if isinstance(url, str) and url and not attachment.get("data") and not url.startswith("#"):
            yield url
