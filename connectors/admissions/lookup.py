"""Reading many resources by id with few requests, and the tokens of searches by identifier.

One search for `_id=a,b,…` costs as much as one read. What it does not bring is read singly, since a server
may not know the parameter, take only one value, or leave out what this caller may not see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from connectors.errors import ConnectorError, NotFoundError
from connectors.fhir.client import FhirClient

CHUNK = 40
"""Ids in one search: with the longest legal ids the URL stays below 4,000 characters."""
_SPECIAL = "\\,|$"


@dataclass(slots=True)
class Lookup:
    """What became of the ids that were asked for; each is in exactly one of the three."""

    found: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    """By id."""
    gone: set[str] = field(default_factory=set, repr=False)
    """The server has no such resource (404, 410)."""
    unread: dict[str, ConnectorError | None] = field(default_factory=dict, repr=False)
    """Not read, and why; None where there were too many to read them singly."""
    singly: int = 0
    """How many were asked for one by one."""


async def read_many(client: FhirClient, resource_type: str, ids: Iterable[str], *, max_singly: int) -> Lookup:
    """Return the resources of one type with these ids. Raises nothing: what failed is `unread`."""
    wanted = list(dict.fromkeys(ids))
    lookup = Lookup()
    chunks = [wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK)]
    await asyncio.gather(*[_search(client, resource_type, chunk, lookup) for chunk in chunks if chunk[1:]])
    missing = [one for one in wanted if one not in lookup.found]
    lookup.singly = len(missing[:max_singly])
    await asyncio.gather(*[_read(client, resource_type, one, lookup) for one in missing[:max_singly]])
    lookup.unread |= dict.fromkeys(missing[max_singly:])
    return lookup


async def _search(client: FhirClient, resource_type: str, ids: list[str], lookup: Lookup) -> None:
    """Take what one search brings; whatever goes wrong, the single reads find out."""
    missing = set(ids)
    params = (("_id", ",".join(ids)), ("_count", str(len(ids))))
    try:
        async for page in client.pages(resource_type, params):
            came = {str(r.get("id")): r for r in page.resources if r.get("resourceType") == resource_type}
            lookup.found |= {one: came[one] for one in missing & came.keys()}
            if not missing & came.keys():
                return
            missing -= came.keys()
            if not missing:
                return
    except ConnectorError:
        return


async def _read(client: FhirClient, resource_type: str, one: str, lookup: Lookup) -> None:
    try:
        resource = await client.read(f"{resource_type}/{one}")
    except NotFoundError:
        lookup.gone.add(one)
    except ConnectorError as error:
        lookup.unread[one] = error
    else:
        if resource.get("id") == one:
            lookup.found[one] = resource
        else:
            lookup.gone.add(one)


def identifier_token(system: str, value: str) -> str:
    """Return the value of a search by identifier (R4 search 3.1.1.4.10); without a system, of any system."""
    return f"{_escaped(system)}|{_escaped(value)}" if system else _escaped(value)


def _escaped(text: str) -> str:
    """Escape what separates values in a search (R4 search 3.1.1.5.8)."""
    for special in _SPECIAL:
        text = text.replace(special, f"\\{special}")
    return text
