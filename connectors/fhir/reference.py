"""References and ids of FHIR R4 (datatypes: `id`; references: literal), checked before they become URLs."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from connectors.errors import InvalidId

_TYPE = r"[A-Z][A-Za-z]{1,63}"
_ID = r"[A-Za-z0-9\-.]{1,64}"
_PATTERN = re.compile(rf"(?P<type>{_TYPE})/(?P<id>{_ID})(?:/_history/(?P<version>{_ID}))?")


class Reference(NamedTuple):
    """A literal reference on one server. `version` is empty for the current one."""

    resource_type: str
    id: str
    version: str = ""

    def __str__(self) -> str:
        history = f"/_history/{self.version}" if self.version else ""
        return f"{self.resource_type}/{self.id}{history}"


def parse_reference(value: Any, base_url: str = "") -> Reference | None:
    """Return `Type/id[/_history/v]`, relative or below `base_url`; None for anything else."""
    if not isinstance(value, str):
        return None
    if base_url and value.startswith(f"{base_url}/"):
        value = value[len(base_url) + 1 :]
    found = _PATTERN.fullmatch(value)
    if found is None or found["id"] in (".", ".."):
        return None
    return Reference(found["type"], found["id"], found["version"] or "")


def parse_patient_id(value: str) -> str:
    """Return the id of `1` or `Patient/1`. Raises InvalidId, without repeating what was given."""
    found = parse_reference(value if "/" in value else f"Patient/{value}")
    if found is None or found.resource_type != "Patient" or found.version:
        raise InvalidId("This is not a legal FHIR patient id.")
    return found.id


def reference_of(resource: Any) -> Reference | None:
    """Return the versioned reference of a resource as it came from a server, or None without type and id."""
    if not isinstance(resource, dict):
        return None
    resource_type, given_id, meta = resource.get("resourceType"), resource.get("id"), resource.get("meta")
    if not isinstance(resource_type, str) or not isinstance(given_id, str):
        return None
    version = meta.get("versionId") if isinstance(meta, dict) else None
    found = parse_reference(f"{resource_type}/{given_id}")
    return found and found._replace(version=version if isinstance(version, str) else "")


def reference_of_write(location: str, etag: str, resource: Any) -> Reference | None:
    """Return where a write ended up: from Location, completed by ETag and the resource that came back."""
    parts = location.partition("?")[0].rstrip("/").split("/")
    found = parse_reference("/".join(parts[-4:])) or parse_reference("/".join(parts[-2:]))
    found = found or reference_of(resource)
    if found is None or found.version:
        return found
    same = reference_of(resource)
    version = same.version if same and same[:2] == found[:2] else ""
    return found._replace(version=version or etag.removeprefix("W/").strip('"'))
