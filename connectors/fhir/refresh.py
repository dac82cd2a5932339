"""Bringing a known record up to date at the cost of what changed.

Each type is searched for what changed since the last read (`_lastUpdated`), and counted, so that deletions
are noticed. Nothing is believed that was not shown: where the server's answers do not add up, the caller is
told to read the record whole.

Types that came by `$everything` and cannot be searched are read again one by one, or by `$everything?_since`
where that works; new ones among them are noticed where a changed resource refers to them, the others at the
next whole read. Where that could hide a vital type, the record is read whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from connectors.errors import ConnectorError, NotFoundError, RequestRejected, TooLarge
from connectors.fhir.attachments import Attachments, fetch_attachments
from connectors.fhir.capabilities import Capabilities
from connectors.fhir.client import FhirClient, Progress
from connectors.fhir.codec import dicts
from connectors.fhir.compartment import COMPARTMENT, VITAL, search_param, searched_types
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
from connectors.http import Params, metered

_NEVER = "2999-01-01T00:00:00Z"
"""No resource was changed after it: a search from there on must find nothing."""
_PROOF_BYTES = 64 * 1024
"""What an honest answer to `$everything?_since` with that date stays far below."""
_HOLDERS = frozenset({"DocumentReference", "DiagnosticReport"})

_ID_LENGTH = 64

Key = tuple[str, str]
"""(type, id)"""


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
    with metered() as meter:
        patient, capabilities = await together(
            read_patient(client, known.patient_id, _patient_of(known)), client.capabilities()
        )
        seen_until = seen_by(client, read_at)
        delta = _Delta(client, known, capabilities, on_progress or silent)
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


def _patient_of(known: Pull) -> dict[str, Any] | None:
    """Return the Patient as known: it is the first resource of every pull."""
    first = next(iter(known.resources), None)
    is_patient = isinstance(first, dict) and _key(first) == ("Patient", known.patient_id)
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
    changed: dict[Key, dict[str, Any]] = field(default_factory=dict)
    gone: set[Key] = field(default_factory=set)
    gaps: list[Gap] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    _versions: dict[Key, tuple[str, str]] = field(default_factory=dict)
    """Of the known resources: version and instant of the newest one."""
    _ids: dict[str, set[str]] = field(default_factory=dict)
    """Type → ids that are held by now."""

    def __post_init__(self) -> None:
        for resource in self.known.resources:
            if isinstance(resource, dict):
                key, stamp = _key(resource), _stamp(resource)
                if key not in self._versions or is_newer(stamp, self._versions[key]):
                    self._versions[key] = stamp
                self._ids.setdefault(key[0], set()).add(key[1])

    async def read(self, patient: dict[str, Any]) -> None:
        """Read what changed. Raises _Untrusted where the record must be read whole."""
        self._take([patient])
        self.on_progress("Patient", 1)
        searched = searched_types(self.capabilities)
        unsearchable = [kind for kind in COMPARTMENT if kind in self._ids and kind not in searched]
        by_search = not VITAL & set(unsearchable) and await self._honours_last_updated(searched)
        if not by_search:
            await self._read_everything()
        adds_up = True
        try:
            async with asyncio.TaskGroup() as group:
                for kind in searched:
                    group.create_task(self._read_type(kind, by_search))
                for kind in unsearchable:
                    group.create_task(self._read_again(kind))
        except* (_Untrusted, RequestRejected):
            adds_up = False
        if not adds_up:
            raise _Untrusted
        await self._follow_references(set(self._ids) - {*searched, "Patient", "Medication"})

    def merged(self) -> Gathered:
        """Return the known record with every change in its place, new resources last."""
        new = dict(self.changed)

        def revise(resource: Any) -> Any:
            if not isinstance(resource, dict):
                return None
            key = _key(resource)
            if key in self.gone or (key in self.changed and key not in new):
                return None
            return new.pop(key, resource)

        resources = self.known.resources.revised(revise)
        resources.extend(resource for key, resource in new.items() if key not in self.gone)
        return Gathered(self.on_progress, resources, list(self.gaps))

    @property
    def _since(self) -> datetime:
        start = self.known.seen_until or self.known.read_at
        return (start - timedelta(seconds=self.client.limits.refresh_overlap_s)).replace(microsecond=0)

    def _search(self, kind: str, *more: tuple[str, str]) -> Search:
        subject = (search_param(kind, self.capabilities), f"Patient/{self.known.patient_id}")
        return Search(kind, (subject, *more), kind)

    async def _read_type(self, kind: str, by_search: bool) -> None:
        whole = kind in self.known.broken
        if not whole and by_search and kind not in self._ids and kind not in VITAL:
            whole = await self._exists(kind)
            by_search = False
        if whole or by_search:
            listed = await self._read_changes(kind, whole)
            if listed is None:
                return
            if whole:
                await self._drop_gone(kind, self._ids.get(kind, set()) - listed)
                return
        if self._ids.get(kind):
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
        since = self._since
        search = self._search(kind) if whole else self._search(kind, ("_lastUpdated", f"ge{_instant(since)}"))
        came, gaps = Gathered(self.on_progress), list[Gap]()
        complete = await read_pages(self.client, search, came, gaps, () if whole else (RequestRejected,))
        resources = [r for r in came.resources if isinstance(r, dict)]
        if not whole:
            _refuse_older(kind, resources, since)
        self._take(resources)
        if gaps:
            self.gaps += gaps
            self.broken.add(kind)
        return {_key(r)[1] for r in resources if r.get("resourceType") == kind} if complete else None

    def _take(self, resources: Iterable[dict[str, Any]]) -> None:
        for resource in resources:
            key, stamp = _key(resource), _stamp(resource)
            before = self._versions.get(key)
            if before is None or is_newer(stamp, before):
                self._versions[key] = stamp
                self._ids.setdefault(key[0], set()).add(key[1])
                self.changed[key] = resource

    async def _compare_count(self, kind: str) -> None:
        """Drop what the server no longer counts."""
        total = await self._total(self._search(kind, ("_summary", "count")))
        if total is None:
            raise _Untrusted
        if total != len(self._ids[kind]):
            listed = await self._list(kind)
            await self._drop_gone(kind, self._ids[kind] - listed)

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
            version = self._versions.get(_key(resource))
            listed = _stamp(resource)[0]
            if version is None or (listed and version[0] != listed):
                raise _Untrusted
        return {_key(resource)[1] for resource in found}

    async def _drop_gone(self, kind: str, ids: set[str]) -> None:
        """Drop what was deleted. What is still there although its search hides it cannot be judged here."""
        keys = {(kind, i) for i in ids}
        await self._read_each(keys)
        if not keys <= self.gone:
            raise _Untrusted

    async def _read_again(self, kind: str) -> None:
        await self._read_each((kind, i) for i in self._ids[kind])

    async def _follow_references(self, kinds: set[str]) -> None:
        """Read what changed resources newly refer to, of the types that no search brings."""
        found = {
            (r.resource_type, r.id) for resource in self.changed.values() for r in self._references(resource)
        }
        await self._read_each(key for key in found if key[0] in kinds and key not in self._versions)

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
        version = self._versions.get(key, ("", ""))[0]
        try:
            resource = await self.client.read_if_changed("/".join(key), version)
        except NotFoundError:
            self.gone |= {key} & self._versions.keys()
        except ConnectorError:
            raise _Untrusted from None
        else:
            self._take([resource] if resource else [])

    async def _honours_last_updated(self, searched: list[str]) -> bool:
        """Tell whether a search for the far future finds nothing, in the type of which most is known."""
        most = max(searched, key=lambda kind: len(self._ids.get(kind, ())), default="")
        if not self._ids.get(most):
            raise _Untrusted

        async def prove() -> bool:
            search = self._search(most, ("_lastUpdated", f"ge{_NEVER}"), ("_count", "1"))
            return await _finds_nothing(self.client, search)

        return await self._proven("_lastUpdated", prove)

    async def _read_everything(self) -> None:
        """Take over what `$everything` says changed. Raises _Untrusted where it cannot be trusted to."""
        path = f"Patient/{self.known.patient_id}/$everything"
        if not self.capabilities.everything or not await self._proven("_since", self._honours_since):
            raise _Untrusted
        came, gaps = Gathered(self.on_progress), list[Gap]()
        search = Search(path, (("_since", _instant(self._since)),), None)
        if not await read_pages(self.client, search, came, gaps) or gaps:
            raise _Untrusted
        self._take(r for r in came.resources if isinstance(r, dict))

    async def _honours_since(self) -> bool:
        """Tell whether `$everything` for the far future brings the Patient at most.

        Servers that ignore the parameter send the whole record: the answer is given up as it grows long.
        """
        path = f"Patient/{self.known.patient_id}/$everything"
        params: Params = (("_since", _NEVER), ("_count", "2"))
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
        changed_at = _parse_instant(_stamp(resource)[1])
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
        if urls and (_key(resource) in changed or not (is_full or urls <= known.binaries.keys())):
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


def _key(resource: dict[str, Any]) -> Key:
    return (str(resource.get("resourceType")), str(resource.get("id")))


def _stamp(resource: dict[str, Any]) -> tuple[str, str]:
    """Return (versionId, lastUpdated) as text, empty where the server gives none."""
    meta = resource.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    return (str(meta.get("versionId") or ""), str(meta.get("lastUpdated") or ""))


def is_newer(stamp: tuple[str, str], known: tuple[str, str]) -> bool:
    """Tell whether an answer is another version than the known one, and not an older one."""
    if stamp == known and any(stamp):
        return False
    if stamp[0] and stamp[0] == known[0]:
        return False
    after, before = _parse_instant(stamp[1]), _parse_instant(known[1])
    if after is not None and before is not None and after != before:
        return after > before
    if all(version.isdecimal() and len(version) <= _ID_LENGTH for version in (stamp[0], known[0])):
        return int(stamp[0]) > int(known[0])
    return True


def _instant(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_instant(text: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
