"""Which resource a reference means: ids, `fullUrl`s, absolute URLs and versions come down to one key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from service.record.facts import Resource


class LocatedResource(dict[str, Any]):
    """A resource of a Bundle that remembers its entry's `fullUrl`; in all else a plain resource."""

    __slots__ = ("full_url",)

    def __init__(self, resource: Resource, full_url: str) -> None:
        super().__init__(resource)
        self.full_url = full_url


def resources_of(bundle: Any) -> Iterator[Resource]:
    """Yield the resources of a Bundle of any type, of nested Bundles and lists, or the single resource.

    Odd entries (no resource, not an object) are yielded as they are, so that assembly counts them.
    """
    stack: list[Any] = [bundle]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, dict) and item.get("resourceType") == "Bundle":
            entries = item.get("entry", [])
            found = [_of_entry(entry) for entry in (entries if isinstance(entries, list) else [entries])]
            stack.extend(reversed(found))
        else:
            yield item


def _of_entry(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return {} if isinstance(entry, list) else entry
    resource, full_url = entry.get("resource"), entry.get("fullUrl")
    if isinstance(resource, dict) and isinstance(full_url, str) and resource.get("resourceType") != "Bundle":
        return LocatedResource(resource, full_url)
    return {} if isinstance(resource, list) else resource


def own_reference(resource: Resource) -> str:
    """Return `Type/id`; the `fullUrl` where there is no id; an empty string where there is neither."""
    kind, ident = resource.get("resourceType"), resource.get("id")
    if isinstance(ident, str) and ident and "/" not in ident:
        return f"{kind}/{ident}"
    return full_url_of(resource)


def full_url_of(resource: Resource) -> str:
    """Return the `fullUrl` of the Bundle entry that a resource came from, or an empty string."""
    return resource.full_url if isinstance(resource, LocatedResource) else ""


def base_of(url: str) -> str:
    """Return the server's base of an absolute resource URL: `https://a/fhir` of `https://a/fhir/Patient/1`."""
    parts = url.split("/")
    return "/".join(parts[:-2]) if is_http(url) and len(parts) > 4 else ""


def is_http(url: str) -> bool:
    """Tell whether a reference is an absolute web URL."""
    return url.startswith(("http://", "https://"))


def plain(reference: str) -> str:
    """Remove a version (`/_history/2`) and a fragment from a reference."""
    if "#" not in reference and "/_history/" not in reference:
        return reference
    return (
        reference.split("/_history/", 1)[0].split("#", 1)[0] if not reference.startswith("#") else reference
    )


def identifier_query(reference: str) -> tuple[str, str, str] | None:
    """Read a conditional reference `Patient?identifier=system|value` as (type, system, value)."""
    kind, mark, query = reference.partition("?identifier=")
    if not mark:
        return None
    system, bar, value = unquote(query.split("&", 1)[0]).partition("|")
    return (kind.rsplit("/", 1)[-1], system, value) if bar else (kind.rsplit("/", 1)[-1], "", system)


class References:
    """Every name under which a resource can be meant → its own reference.

    `bases` are the servers' base URLs that the resources came from. With a known base, an absolute URL of
    another server means another resource (SAFETY 1); with none, its last two parts decide.
    """

    def __init__(self, bases: set[str]) -> None:
        self.bases = bases
        self._by_name: dict[str, str] = {}
        self._by_id: dict[str, str] = {}

    def add(self, own: str, full_url: str, ident: str | None) -> None:
        """Register the names of one resource: its own reference, its Bundle entry's URL and its id."""
        self._by_name[own] = own
        if full_url:
            self._by_name[plain(full_url)] = own
        if ident is not None:
            self._by_id[ident] = "" if ident in self._by_id and self._by_id[ident] != own else own

    def resolve(self, reference: str) -> str:
        """Return the own reference that is meant; the plain reference where nothing is known of it."""
        found = self._by_name.get(reference)
        if found is not None:
            return found
        name = plain(reference)
        found = self._by_name.get(name)
        if found is not None:
            return found
        if name.startswith("urn:uuid:"):
            # Bundles that lost their fullUrls on the way still carry the UUID as the resource's id.
            return self._by_id.get(name[9:]) or name
        if is_http(name):
            return self._absolute(name)
        return name

    def _absolute(self, url: str) -> str:
        base = base_of(url)
        if self.bases and base not in self.bases:
            return url
        tail = "/".join(url.split("/")[-2:])
        return self._by_name.get(tail, tail)
