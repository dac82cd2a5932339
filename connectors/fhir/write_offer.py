"""What a server says about being written to, and what it thinks of a resource before it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from connectors.errors import BrokenJson, ConnectorError, NotFoundError, RequestRejected
from connectors.fhir.client import FHIR_JSON, FhirClient
from connectors.fhir.codec import decode, dicts, encode
from connectors.fhir.outcome import issue_codes

_PATH = re.compile(r"[A-Z][A-Za-z]+(\.[A-Za-z]+(\[\d+\])?)*")
"""An element's path in the specification's words: safe to show, unlike a server's own text."""


@dataclass(frozen=True, slots=True)
class WriteOffer:
    """What a CapabilityStatement says; empty where there is none."""

    software: str = ""
    """Its name and publisher."""
    guides: tuple[str, ...] = ()
    """Implementation guides, and profiles that it supports."""
    creates: frozenset[str] | None = None
    """Types of which it takes new ones; None where it does not say."""


async def read_offer(client: FhirClient) -> WriteOffer:
    """Return what the server declares. Raises ConnectorError where nothing answers."""
    session = client.session
    try:
        answer = await session.send(
            "GET", session.url("metadata"), headers={"Accept": FHIR_JSON}, repeatable=True
        )
        statement = decode(answer.body)
    except (BrokenJson, NotFoundError, RequestRejected):
        return WriteOffer()
    if not isinstance(statement, dict) or statement.get("resourceType") != "CapabilityStatement":
        return WriteOffer()
    rests = dicts(statement.get("rest"))
    types = [one for rest in rests for one in dicts(rest.get("resource"))]
    guides = [*_words(statement.get("implementationGuide")), *_words(statement.get("instantiates"))]
    for one in types:
        guides += _words(one.get("supportedProfile"))
    return WriteOffer(_software(statement), tuple(guides), _creates(types))


def _software(statement: dict[str, Any]) -> str:
    software = statement.get("software")
    name = software.get("name") if isinstance(software, dict) else None
    return " ".join(word for word in (name, statement.get("publisher")) if isinstance(word, str))


def _creates(types: list[dict[str, Any]]) -> frozenset[str] | None:
    if not any("interaction" in one for one in types):
        return None
    return frozenset(
        str(one.get("type"))
        for one in types
        if any(interaction.get("code") == "create" for interaction in dicts(one.get("interaction")))
    )


def _words(value: Any) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that a server would not accept, in codes and paths of the specification alone."""

    resource_type: str
    codes: tuple[str, ...]
    paths: tuple[str, ...]


async def validate_bundle(client: FhirClient, bundle: dict[str, Any]) -> list[Complaint] | None:
    """Return what the server's `$validate` has against the resources of a transaction, writing nothing.

    None where it offers no `$validate`. Raises ConnectorError where it does not answer.
    """
    complaints = []
    for entry in dicts(bundle.get("entry")):
        resource = entry["resource"]
        outcome = await _validate(client, resource)
        if outcome is None:
            return None
        wrong = [i for i in dicts(outcome.get("issue")) if i.get("severity") in ("fatal", "error")]
        if wrong:
            paths = (path for issue in wrong for path in _words(issue.get("expression")))
            complaints.append(
                Complaint(
                    str(resource["resourceType"]),
                    issue_codes({"resourceType": "OperationOutcome", "issue": wrong}),
                    tuple(path for path in paths if _PATH.fullmatch(path)),
                )
            )
    return complaints


async def _validate(client: FhirClient, resource: dict[str, Any]) -> dict[str, Any] | None:
    session = client.session
    try:
        answer = await session.send(
            "POST",
            session.url(f"{resource['resourceType']}/$validate"),
            headers={"Accept": FHIR_JSON, "Content-Type": FHIR_JSON},
            content=encode(resource),
            repeatable=True,
        )
        outcome = decode(answer.body)
    except (NotFoundError, BrokenJson):
        return None
    except ConnectorError as error:
        if error.status in (400, 412, 422):  # some answer an invalid resource so, with the issues withheld
            return {"issue": [{"severity": "error", "code": "invalid"}]}
        if error.status in (403, 405, 501):
            return None
        raise
    is_outcome = isinstance(outcome, dict) and outcome.get("resourceType") == "OperationOutcome"
    return outcome if is_outcome else None
