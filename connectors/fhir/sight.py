"""What one user's token can read now: of each type the named resources, or why they could not be looked at.

One paged search a type, for ids and versions alone. It must never call a type readable of which an answer is
missing, refused or admitted to be incomplete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from connectors.errors import (
    ConnectorError,
    NotFoundError,
    RefusedError,
    RequestRejected,
    TokenRefused,
    Unauthorized,
)
from connectors.fhir.client import FhirClient
from connectors.fhir.compartment import COMPARTMENT
from connectors.fhir.grant import granted_of
from connectors.fhir.outcome import gap_of_outcome
from connectors.fhir.pull import GapReason
from connectors.fhir.reference import parse_reference

LIMIT_S: Final = 4.0
"""How long a reader waits for one type."""
IDS_A_SEARCH: Final = 50
"""Ids in one address: 50 of 64 characters keep it below what proxies take (RFC 9110 4.1: 8,000 octets)."""
MOST_READS: Final = 50
"""Resources that are read one by one where a server does not search by `_id`."""


class Reach(StrEnum):
    """How far a token reaches into one type."""

    READ = "read"
    REFUSED = "refused"
    """401, 403, no scope for it, or results that the server left out because of who asks."""
    FAILED = "failed"
    """No answer in time, 5xx, or results that the server left out because something failed."""
    NOT_OFFERED = "not offered"
    """The server does not know the type, for nobody."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one type. What is not in `versions` could not be read, whatever the reach."""

    reach: Reach
    versions: Mapping[str, str] = field(default_factory=dict)
    """`Observation/1` → its version id; its `lastUpdated` where the server has no versions."""
    has_ended: bool = False
    """True where the token itself is not good any more."""


@dataclass(frozen=True, slots=True)
class FhirSight:
    """Looks with one user's client at one patient's record. `scope` is what the token was granted."""

    client: FhirClient
    patient: str
    """`Patient/1`"""
    scope: str = ""
    limit_s: float = LIMIT_S

    async def see(self, wanted: Mapping[str, Collection[str]]) -> Mapping[str, Seen]:
        """Return what can be read of each type: of the named ids; without ids, whether it can be read at all.

        All types are asked at once, each for `limit_s` at most. It never raises ConnectorError.
        """
        kinds = sorted(wanted)
        seen = await asyncio.gather(*[self._see_in_time(kind, sorted(wanted[kind])) for kind in kinds])
        return dict(zip(kinds, seen, strict=True))

    async def _see_in_time(self, kind: str, ids: Sequence[str]) -> Seen:
        granted = granted_of(self.scope, kind)
        if granted == "none":
            return Seen(Reach.REFUSED)
        found: dict[str, str] = {}
        try:
            async with asyncio.timeout(self.limit_s):
                reach = await (self._see(kind, ids, found) if ids else self._probe(kind))
        except TimeoutError:
            reach = Reach.FAILED
        except (Unauthorized, TokenRefused):
            return Seen(Reach.REFUSED, {}, has_ended=True)
        except ConnectorError as error:
            reach = reach_of(error)
        if granted == "part" and reach is Reach.READ:
            reach = Reach.REFUSED
        return Seen(reach, found)

    async def _see(self, kind: str, ids: Sequence[str], found: dict[str, str]) -> Reach:
        reaches = []
        for start in range(0, len(ids), IDS_A_SEARCH):
            some = ids[start : start + IDS_A_SEARCH]
            query = (("_id", ",".join(some)), ("_elements", "id,meta"), ("_count", str(len(some))))
            try:
                reaches.append(await self._search(kind, query, found, frozenset(some)))
            except RequestRejected:  # some servers search a type by its patient alone
                reaches.append(await self._read_singly(kind, some, found))
        return worst(reaches)

    async def _search(
        self, kind: str, query: Sequence[tuple[str, str]], found: dict[str, str], ids: Collection[str]
    ) -> Reach:
        reach = Reach.READ
        async for page in self.client.pages(kind, query):
            for resource in page.resources:
                if resource.get("resourceType") == kind and resource.get("id") in ids:
                    found[f"{kind}/{resource['id']}"] = version_of(resource)
            gaps = [gap for outcome in page.outcomes if (gap := gap_of_outcome(outcome, kind))]
            reach = worst([reach, *(reach_of_reason(gap.reason) for gap in gaps)])
        return reach

    async def _read_singly(self, kind: str, ids: Sequence[str], found: dict[str, str]) -> Reach:
        async def read(resource_id: str) -> Reach:
            try:
                resource = await self.client.read(f"{kind}/{resource_id}")
            except (Unauthorized, TokenRefused):
                raise
            except NotFoundError:
                return Reach.READ
            except ConnectorError as error:
                return reach_of(error)
            found[f"{kind}/{resource_id}"] = version_of(resource)
            return Reach.READ

        reaches = await asyncio.gather(*[read(one) for one in ids[:MOST_READS]])
        return worst([*reaches, *([Reach.FAILED] if len(ids) > MOST_READS else [])])

    async def _probe(self, kind: str) -> Reach:
        if kind == "Patient":
            subject = ("_id", self.patient.removeprefix("Patient/"))
        elif kind in COMPARTMENT:
            subject = (COMPARTMENT[kind], self.patient)
        else:
            return Reach.READ
        async for page in self.client.pages(kind, (subject, ("_elements", "id,meta"), ("_count", "1"))):
            gaps = [gap for outcome in page.outcomes if (gap := gap_of_outcome(outcome, kind))]
            return worst([Reach.READ, *(reach_of_reason(gap.reason) for gap in gaps)])
        return Reach.FAILED


def version_of(resource: Mapping[str, Any]) -> str:
    """Return a resource's version id, its `lastUpdated` where it has none, else an empty text."""
    meta = resource.get("meta")
    given = (meta.get("versionId") or meta.get("lastUpdated")) if isinstance(meta, Mapping) else None
    return given if isinstance(given, str) else ""


def reach_of(error: ConnectorError) -> Reach:
    """Return how an error that came instead of an answer is told to a reader."""
    if isinstance(error, RefusedError):
        return Reach.REFUSED
    return Reach.NOT_OFFERED if isinstance(error, NotFoundError) else Reach.FAILED


def reach_of_reason(reason: GapReason) -> Reach:
    """Return how a gap of a search is told to a reader."""
    if reason in (GapReason.REFUSED, GapReason.SUPPRESSED):
        return Reach.REFUSED
    return Reach.NOT_OFFERED if reason is GapReason.NOT_SUPPORTED else Reach.FAILED


def worst(reaches: Iterable[Reach]) -> Reach:
    """Return the shortest of several reaches; READ of none."""
    order = (Reach.FAILED, Reach.REFUSED, Reach.NOT_OFFERED)
    came = set(reaches)
    return next((reach for reach in order if reach in came), Reach.READ)


def ids_by_type(references: Iterable[str]) -> dict[str, set[str]]:
    """Return the ids of plain references by type; what is no `Type/id` cannot be asked for."""
    found: dict[str, set[str]] = {}
    for reference in references:
        target = parse_reference(reference)
        if target is not None and reference == f"{target.resource_type}/{target.id}":
            found.setdefault(target.resource_type, set()).add(target.id)
    return found
