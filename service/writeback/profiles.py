"""The write profiles by name: what kinds of servers take, and what is left out for them.

What is left out is returned in words, for the store and for `doctor`; nothing is left out silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from service.errors import FilingError, SettingsError
from service.writeback.labels import DRAFT_TYPE_SYSTEM, WriteProfile

_REQUIRED = frozenset(
    {"resourceType", "identifier", "status", "type", "category", "subject", "date", "content", "context"}
)
"""What US Core and the vendors' create operations agree on."""
_DOCUMENTS_ONLY = frozenset({"DocumentReference"})

PROFILES: Mapping[str, WriteProfile] = {
    profile.name: profile
    for profile in (
        WriteProfile("generic"),
        WriteProfile("us-core"),
        # Oracle Health, Millennium Platform R4: unknown elements are accepted and not kept, `meta.security`
        # among them; the newer API set alone takes XHTML, and neither takes JSON.
        WriteProfile(
            "oracle-millennium",
            keeps_labels=False,
            device_author=False,
            shared_documents=False,
            resource_types=_DOCUMENTS_ONLY,
            media_types=frozenset({"text/plain", "application/xhtml+xml"}),
            elements=_REQUIRED | {"docStatus", "authenticator", "description", "relatesTo"},
            needs_encounter=True,
        ),
        # Epic, DocumentReference.Create (Clinical Notes): note types of the site's own list, and a docStatus
        # that the site's workflow decides.
        WriteProfile(
            "epic",
            keeps_doc_status=False,
            keeps_labels=False,
            keeps_draft_type=False,
            device_author=False,
            shared_documents=False,
            resource_types=_DOCUMENTS_ONLY,
            media_types=frozenset({"text/plain"}),
            elements=_REQUIRED | {"description"},
            needs_encounter=True,
        ),
        WriteProfile(
            "minimal",
            keeps_doc_status=False,
            keeps_labels=False,
            device_author=False,
            shared_documents=False,
            resource_types=_DOCUMENTS_ONLY,
            media_types=frozenset({"text/plain"}),
            elements=_REQUIRED | {"description"},
        ),
    )
}
_BY_SOFTWARE = (("epic", "epic"), ("cerner", "oracle-millennium"), ("millennium", "oracle-millennium"),
                ("oracle health", "oracle-millennium"))  # fmt: skip


def profile_named(name: str, *, risk_signed_by: str = "") -> WriteProfile:
    """Return a profile by name, with who signed its risk. Raises SettingsError for an unknown name."""
    if name not in PROFILES:
        raise SettingsError(
            "There is no write profile of this name.",
            f"EPICRISIS_WRITE_PROFILE is one of {', '.join(PROFILES)}.",
        )
    return replace(PROFILES[name], risk_signed_by=risk_signed_by)


def choose_profile(software: str, guides: Iterable[str], creates: Iterable[str] | None) -> str:
    """Return the name of the profile for a server, by its CapabilityStatement.

    `software` is its name and publisher, `guides` the implementation guides and profiles that it declares,
    `creates` the types of which it takes new ones; None where it does not say.
    """
    lowered = software.lower()
    for word, name in _BY_SOFTWARE:
        if word in lowered:
            return name
    if creates is not None and not {"Device", "Provenance"} <= set(creates):
        return "minimal"
    return "us-core" if any("us/core" in guide or "us-core" in guide for guide in guides) else "generic"


class Adapted(NamedTuple):
    """What is sent to a server, and what was left out of it for the server's sake."""

    bundle: dict[str, Any]
    dropped: tuple[str, ...]
    """Sorted, each once: `attachment application/json`, `DocumentReference.author`, `Provenance`."""


def adapt(bundle: Mapping[str, Any], profile: WriteProfile) -> Adapted:
    """Return a transaction as the profile's server takes it. Raises FilingError where it takes none."""
    dropped: set[str] = set()
    entries = []
    for entry in bundle["entry"]:
        resource = entry["resource"]
        kind = resource["resourceType"]
        if kind not in profile.resource_types:
            dropped.add(kind)
        elif kind == "DocumentReference" and "ifMatch" not in entry["request"]:
            entries.append({**entry, "resource": _document(resource, profile, dropped)})
        else:
            entries.append(entry)
    return Adapted({**bundle, "entry": entries}, tuple(sorted(dropped)))


def _document(document: Mapping[str, Any], profile: WriteProfile, dropped: set[str]) -> dict[str, Any]:
    if "subject" in document and profile.needs_encounter:
        _check_encounter(document)
    kept = dict(document)
    if profile.media_types is not None:
        kept["content"] = _contents(document, profile.media_types, dropped)
    if not profile.keeps_draft_type:
        kept["type"] = _known_type(document["type"], dropped)
    names = profile.elements or frozenset(kept)
    lost = [
        name for name in kept if name not in names or (name == "docStatus" and not profile.keeps_doc_status)
    ]
    dropped.update(f"DocumentReference.{name}" for name in lost)
    if not profile.keeps_labels:
        dropped.add("DocumentReference.meta.security")
    return {name: value for name, value in kept.items() if name not in lost}


def _check_encounter(document: Mapping[str, Any]) -> None:
    if not document.get("context", {}).get("encounter"):
        raise FilingError(
            "This server takes no document without an encounter, and none is at hand.",
            "Name one: --encounter Encounter/<id>.",
        )


def _contents(document: Mapping[str, Any], taken: frozenset[str], dropped: set[str]) -> list[dict[str, Any]]:
    kept = []
    for content in document["content"]:
        media_type = content["attachment"]["contentType"].partition(";")[0]
        if media_type in taken:
            kept.append(content)
        else:
            dropped.add(f"attachment {media_type}")
    return kept


def _known_type(concept: Mapping[str, Any], dropped: set[str]) -> dict[str, Any]:
    """Keep the codes of public systems: our own draft code is in nobody's list."""
    codings = [c for c in concept["coding"] if c["system"] != DRAFT_TYPE_SYSTEM]
    if len(codings) < len(concept["coding"]):
        dropped.add("DocumentReference.type: the draft code")
    return {**concept, "coding": codings}
