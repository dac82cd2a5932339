"""What a server says it can do, read from its CapabilityStatement (R4) once, and leniently.

A statement that is missing or odd is no reason to stop: then nothing is assumed that could do harm (no
transactions, no conditional create), and every search is tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from connectors.errors import WrongRelease
from connectors.fhir.codec import dicts


@dataclass(frozen=True, slots=True)
class TypeSupport:
    """What the server offers for one resource type."""

    search: bool = False
    versioning: bool = False
    conditional_create: bool = False
    update_create: bool = False
    search_params: frozenset[str] = frozenset()


NOTHING = TypeSupport()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one server offers. `declared` is False where no statement could be read."""

    declared: bool = False
    fhir_version: str = ""
    transaction: bool = False
    everything: bool = False
    """`Patient/[id]/$everything`."""
    batch: bool = False
    types: Mapping[str, TypeSupport] = field(default_factory=lambda: MappingProxyType({}))

    def offers_search(self, resource_type: str) -> bool:
        """Tell whether to search this type: as declared, and everything where nothing is declared."""
        return self.of(resource_type).search or not self.declared

    @property
    def offers_batch(self) -> bool:
        """Tell whether to try a batch of reads: as declared, and where nothing is declared."""
        return self.batch or not self.declared

    def without_everything(self) -> Capabilities:
        """Return the same without `$everything`: for servers whose operation is known to be incomplete."""
        return replace(self, everything=False)

    def without_transaction(self) -> Capabilities:
        """Return the same without transactions."""
        return replace(self, transaction=False)

    def of(self, resource_type: str) -> TypeSupport:
        """Return what is offered for a type; nothing for one that is not named."""
        return self.types.get(resource_type, NOTHING)

    def plain(self) -> dict[str, Any]:
        """Return the same as JSON values, for `of_plain`."""
        types = {name: {**asdict(offer), "search_params": sorted(offer.search_params)}
                 for name, offer in self.types.items()}  # fmt: skip
        return {**{name: getattr(self, name) for name in _FLAGS}, "types": types}

    @classmethod
    def of_plain(cls, values: dict[str, Any]) -> Capabilities:
        """Return the capabilities of which `plain` gave the values."""
        types = {
            name: TypeSupport(**{**offer, "search_params": frozenset(offer["search_params"])})
            for name, offer in values["types"].items()
        }
        return cls(**{**values, "types": MappingProxyType(types)})


_FLAGS = ("declared", "fhir_version", "transaction", "everything", "batch")
UNDECLARED = Capabilities()


def parse_capabilities(statement: Any) -> Capabilities:
    """Return the capabilities of a CapabilityStatement; UNDECLARED for anything else. Raises WrongRelease."""
    if not isinstance(statement, dict) or statement.get("resourceType") not in _STATEMENTS:
        return UNDECLARED
    version = statement.get("fhirVersion")
    version = version if isinstance(version, str) else ""
    if version and not version.startswith("4."):
        release = version if version.replace(".", "").isdigit() else "another release"
        raise WrongRelease(f"The server speaks FHIR {release}, not R4 (4.0.1).")
    rests = [r for r in dicts(statement.get("rest")) if r.get("mode") in (None, "server")]
    return Capabilities(
        declared=bool(rests),
        fhir_version=version,
        transaction=any("transaction" in _codes(rest.get("interaction")) for rest in rests),
        everything=any(_offers_everything(rest) for rest in rests),
        batch=any("batch" in _codes(rest.get("interaction")) for rest in rests),
        types=MappingProxyType({name: support for rest in rests for name, support in _types(rest)}),
    )


_STATEMENTS = ("CapabilityStatement", "Conformance")
"""DSTU2 called it Conformance: read only to say that it is not R4."""


def _offers_everything(rest: dict[str, Any]) -> bool:
    at_patient = [r for r in dicts(rest.get("resource")) if r.get("type") == "Patient"]
    operations = [op for holder in [rest, *at_patient] for op in dicts(holder.get("operation"))]
    return any(_is_everything(op) for op in operations)


def _is_everything(operation: dict[str, Any]) -> bool:
    name, definition = operation.get("name"), operation.get("definition")
    definition = definition.get("reference") if isinstance(definition, dict) else definition
    if isinstance(definition, str) and definition.split("|")[0].endswith("/Patient-everything"):
        return True
    named = isinstance(name, str) and name.lstrip("$") in ("everything", "patient-everything")
    elsewhere = isinstance(definition, str) and definition.split("|")[0].endswith("-everything")
    return named and not elsewhere


def _types(rest: dict[str, Any]) -> list[tuple[str, TypeSupport]]:
    found = []
    for resource in dicts(rest.get("resource")):
        name = resource.get("type")
        if isinstance(name, str):
            found.append((name, _support(resource)))
    return found


def _support(resource: dict[str, Any]) -> TypeSupport:
    names = (param.get("name") for param in dicts(resource.get("searchParam")))
    return TypeSupport(
        search="search-type" in _codes(resource.get("interaction")),
        versioning=resource.get("versioning") in ("versioned", "versioned-update"),
        conditional_create=resource.get("conditionalCreate") is True,
        update_create=resource.get("updateCreate") is True,
        search_params=frozenset(name for name in names if isinstance(name, str)),
    )


def _codes(interactions: Any) -> set[str]:
    codes = (interaction.get("code") for interaction in dicts(interactions))
    return {code for code in codes if isinstance(code, str)}
