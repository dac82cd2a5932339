"""Where a stay is: its current places and provider, and what these are part of.

A ward's no, and what a ward is for, may be recorded at the bed, the ward, the department or the hospital.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from connectors.admissions.consents import local_reference
from connectors.admissions.lookup import read_many
from connectors.fhir.client import FhirClient
from connectors.fhir.codec import dicts

Resource = dict[str, Any]

_TYPES = ("Location", "Organization")
_MAX_LEVELS = 8
"""Bed, room, ward, level, wing, building, site, and the organization above."""
_MAX_SINGLY = 500
"""Places that are read one by one where the server takes no search by id."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where one stay is."""

    references: frozenset[str] = field(default=frozenset(), repr=False)
    """`Location/7`, `Organization/3`: current places, the provider, and all that these are part of."""
    resources: tuple[Resource, ...] = field(default=(), repr=False)
    """Those that could be read."""
    is_known: bool = True
    """False where one of them could not be read for another reason than that it does not exist."""


@dataclass(slots=True)
class Places:
    """Locations and Organizations, read once for many stays. Give it on to the next `read_places`."""

    resources: dict[str, Resource] = field(default_factory=dict, repr=False)
    """By reference."""
    unread: set[str] = field(default_factory=set, repr=False)
    not_offered: frozenset[str] = frozenset()
    """Types that the server says it does not have."""

    def around(self, encounter: Resource) -> Surroundings:
        """Return where this stay is."""
        todo = list(places_of(encounter))
        seen: set[str] = set()
        while todo:
            place = todo.pop()
            if place not in seen:
                seen.add(place)
                todo += _parents(self.resources.get(place, {}))
        resources = tuple(self.resources[place] for place in sorted(seen & self.resources.keys()))
        return Surroundings(frozenset(seen), resources, not seen & self.unread)


async def read_places(
    client: FhirClient, encounters: Iterable[Resource], known: Places | None = None
) -> Places:
    """Return the places of these stays, a few requests for each level. Raises where no server answers."""
    capabilities = await client.capabilities()
    missing_types = [t for t in _TYPES if capabilities.declared and t not in capabilities.types]
    known = known or Places()
    places = Places(dict(known.resources), set(known.unread), frozenset(missing_types))
    wanted = {place for encounter in encounters for place in places_of(encounter)}
    tried: set[str] = set()
    for _ in range(_MAX_LEVELS):
        level = wanted - tried - places.resources.keys()
        for resource_type in _TYPES:
            if resource_type not in places.not_offered:
                await _read(client, resource_type, level, places)
        tried |= level
        wanted |= {parent for place in wanted for parent in _parents(places.resources.get(place, {}))}
        if wanted <= tried | places.resources.keys():
            break
    places.unread |= wanted - tried - places.resources.keys()
    return places


async def _read(client: FhirClient, resource_type: str, references: set[str], places: Places) -> None:
    ids = sorted(one.partition("/")[2] for one in references if one.startswith(f"{resource_type}/"))
    lookup = await read_many(client, resource_type, ids, max_singly=_MAX_SINGLY)
    places.resources |= {f"{resource_type}/{one}": resource for one, resource in lookup.found.items()}
    places.unread -= {f"{resource_type}/{one}" for one in ids}
    places.unread |= {f"{resource_type}/{one}" for one in lookup.unread}


def places_of(encounter: Resource) -> Iterator[str]:
    """Yield the references of where a stay is now, and of who provides it."""
    for place in current_places(encounter):
        yield from _reference(place.get("location"))
    yield from _reference(encounter.get("serviceProvider"))


def _parents(place: Resource) -> list[str]:
    return [*_reference(place.get("partOf")), *_reference(place.get("managingOrganization"))]


def _reference(value: Any) -> list[str]:
    reference = local_reference(value.get("reference")) if isinstance(value, dict) else ""
    return [reference] if reference.partition("/")[0] in _TYPES else []


def current_places(encounter: Resource) -> list[Resource]:
    """Return the entries of `location` where the patient is: it also lists former and future ones."""
    return [place for place in dicts(encounter.get("location")) if _is_current(place)]


def _is_current(place: Resource) -> bool:
    status = place.get("status")
    if status is not None:
        return bool(status == "active")
    period = place.get("period")
    return not (isinstance(period, dict) and period.get("end"))
