"""Which version of a resource is at hand, and which of two is the newer one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

_ID_LENGTH = 64

Key = tuple[str, str]
"""(type, id)"""
Stamp = tuple[str, str]
"""(versionId, lastUpdated) as text, empty where the server gives none."""


@dataclass(slots=True)
class Held:
    """Which resources are held, each in its newest version."""

    versions: dict[Key, Stamp] = field(default_factory=dict)
    ids: dict[str, set[str]] = field(default_factory=dict)
    """Type → ids"""

    @classmethod
    def of(cls, resources: Iterable[Any]) -> Held:
        """Return what these resources are; what is no JSON object is none."""
        held = cls()
        for resource in resources:
            if isinstance(resource, dict):
                held.take(resource)
        return held

    def take(self, resource: dict[str, Any]) -> bool:
        """Note a resource that came; tell whether it is new, or newer than the one that was held."""
        key, stamp = key_of(resource), stamp_of(resource)
        before = self.versions.get(key)
        if before is not None and not is_newer(stamp, before):
            return False
        self.versions[key] = stamp
        self.ids.setdefault(key[0], set()).add(key[1])
        return True

    def holds(self, resource: dict[str, Any]) -> bool:
        """Tell whether exactly this version is held."""
        before = self.versions.get(key_of(resource))
        return before is not None and is_same(stamp_of(resource), before)


def key_of(resource: dict[str, Any]) -> Key:
    """Return type and id as text."""
    return (str(resource.get("resourceType")), str(resource.get("id")))


def stamp_of(resource: dict[str, Any]) -> Stamp:
    """Return version id and instant of the last change as text, empty where the server gives none."""
    meta = resource.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    return (str(meta.get("versionId") or ""), str(meta.get("lastUpdated") or ""))


def is_same(stamp: Stamp, known: Stamp) -> bool:
    """Tell whether two stamps surely name one version: by version id, else by everything they say."""
    if stamp[0] and known[0]:
        return stamp[0] == known[0]
    return stamp == known and any(stamp)


def is_newer(stamp: Stamp, known: Stamp) -> bool:
    """Tell whether an answer is another version than the known one, and not an older one."""
    if is_same(stamp, known):
        return False
    after, before = parse_instant(stamp[1]), parse_instant(known[1])
    if after is not None and before is not None and after != before:
        return after > before
    if all(version.isdecimal() and len(version) <= _ID_LENGTH for version in (stamp[0], known[0])):
        return int(stamp[0]) > int(known[0])
    return True


def write_instant(when: datetime) -> str:
    """Return an instant in UTC with whole seconds, as `_lastUpdated` and `_since` take it."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_instant(text: str) -> datetime | None:
    """Return an aware instant (UTC where no zone is said), or None for what is none."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
