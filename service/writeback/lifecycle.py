"""What a document becomes after it was drafted: attested, amended, superseded or withdrawn.

Nothing is overwritten. An attested text is a document of its own that replaces the draft, so that the AI's
own text stays beside it; what is superseded or withdrawn keeps its content, and what others changed in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from fhir.resources.R4B.documentreference import DocumentReference
from fhir.resources.R4B.provenance import Provenance
from pydantic import BaseModel, ValidationError

from connectors.fhir.codec import dicts
from service.errors import FilingError
from service.ports import ATTESTED_SYSTEM, StoredRun
from service.record.labels import CONFIDENTIALITY, LEVEL_SYSTEMS, LEVELS
from service.writeback.json_form import Sign
from service.writeback.labels import AI_ASSERTED, NOT_FOR_PATIENT, TERMINOLOGY, WriteProfile
from service.writeback.lasting import Addition, Change, lasting_content, lasting_description
from service.writeback.moment import fhir_instant
from service.writeback.sources import LITERAL
from service.writeback.transaction import build_transaction

_COMPLETION = f"{TERMINOLOGY}/v3-DocumentCompletion"
_OPERATION = f"{TERMINOLOGY}/v3-DataOperation"
_ATTEST = {"system": _COMPLETION, "code": "LA", "display": "legally authenticated"}
_AMEND = {"system": _OPERATION, "code": "APPEND", "display": "append"}
_WITHDRAW = {"system": _OPERATION, "code": "NULLIFY", "display": "nullify"}
_HISTORY = {"system": "http://loinc.org", "code": "60591-5", "display": "Patient summary Document"}
_EPISODE = {"system": "http://loinc.org", "code": "34133-9", "display": "Summary of episode note"}
_MODELS: Mapping[str, type[BaseModel]] = {"DocumentReference": DocumentReference, "Provenance": Provenance}
_CLINICIANS = ("Practitioner", "PractitionerRole")
_OF_THE_SERVER = frozenset({"id", "meta", "text", "contained"})


@dataclass(frozen=True, slots=True)
class Attestation:
    """Who takes responsibility for a text, and when. A second or later one adds text of its own."""

    by: str
    """`Practitioner/7`"""
    at: datetime
    additions: tuple[Addition, ...] = ()
    """All that clinicians added, oldest first."""
    identifier: str = ""
    """Value of its identifier: the run key, and for an amendment what tells it from others."""
    changes: tuple[Change, ...] = ()
    """What clinicians wrote in the place of statements, or left out."""


def attested_transaction(
    run: StoredRun,
    attestation: Attestation,
    replaced: Sequence[Mapping[str, Any]],
    *,
    software_version: str,
    profile: WriteProfile,
    sign: Sign | None = None,
) -> dict[str, Any]:
    """Return the transaction that makes a text final, or amended where something was added.

    `replaced` are the documents that it replaces, as they are on the server now, the one that was reviewed
    first: they become superseded in the same transaction, each only in that version.
    Raises FilingError as `build_transaction` does, and for a verifier who is no clinician.
    """
    kind = attestation.by.partition("/")[0]
    if kind not in _CLINICIANS or LITERAL.fullmatch(attestation.by) is None:
        raise FilingError("Only a clinician attests: give a reference such as Practitioner/7.")
    bundle = build_transaction(run, software_version=software_version, profile=profile, sign=sign)
    entries = bundle["entry"]
    index = next(i for i, e in enumerate(entries) if e["resource"].get("docStatus"))
    origin = entries[-1]["resource"]
    final = _attested(run, attestation, entries[index]["resource"], replaced, software_version, profile, sign)
    by_id = f"identifier={ATTESTED_SYSTEM}|{final['identifier'][0]['value']}"
    entries[index] = _created(entries[index]["fullUrl"], final, by_id)
    entries[-1] = {
        "fullUrl": entries[-1]["fullUrl"],
        "resource": _attesting(origin, attestation, replaced, final["meta"]["security"]),
        "request": {
            "method": "POST",
            "url": "Provenance",
            "ifNoneExist": f"target:DocumentReference.{by_id}",
        },
    }
    for written in (final, entries[-1]["resource"]):
        _check(written)
    bundle["entry"] = [*entries[:-1], *map(supersede_entry, replaced), entries[-1]]
    return bundle


def _check(written: dict[str, Any]) -> None:
    """Validate what is ours; what others wrote into a document must not keep it from being withdrawn."""
    try:
        _MODELS[written["resourceType"]].model_validate(written)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
        raise FilingError(f"What was to be written is not valid FHIR R4 ({where}).") from None


def _created(urn: str, final: dict[str, Any], condition: str) -> dict[str, Any]:
    request = {"method": "POST", "url": "DocumentReference", "ifNoneExist": condition}
    return {"fullUrl": urn, "resource": final, "request": request}


def _attested(
    run: StoredRun,
    attestation: Attestation,
    draft: dict[str, Any],
    replaced: Sequence[Mapping[str, Any]],
    software_version: str,
    profile: WriteProfile,
    sign: Sign | None,
) -> dict[str, Any]:
    """Return the draft made final. What others added to the reviewed document on the server stays."""
    reviewed = replaced[0] if replaced else {}
    carried = {
        name: value
        for name, value in reviewed.items()
        if name not in draft and name not in _OF_THE_SERVER and not name.startswith("_")
    }
    document = {**carried, **draft}
    labels = _highest(draft, replaced)
    document["meta"] = draft["meta"] | {"security": labels}
    if "securityLabel" in document:
        document["securityLabel"] = [
            {"coding": [label]} for label in labels if label not in (AI_ASSERTED, NOT_FOR_PATIENT)
        ]
    document["identifier"] = [{"system": ATTESTED_SYSTEM, "value": attestation.identifier or run.inputs.key}]
    document["docStatus"] = "amended" if attestation.additions else "final"
    document["type"] = {"coding": [dict(_EPISODE if run.inputs.encounter else _HISTORY)]}
    document["date"] = fhir_instant(attestation.at)
    document["authenticator"] = {"reference": attestation.by}
    document["description"] = lasting_description(run, attestation.by, attestation.at)
    document["content"] = lasting_content(
        run, attestation.by, attestation.at, attestation.additions, software_version, profile, sign, labels,
        attestation.changes,
    )  # fmt: skip
    document.pop("relatesTo", None)
    if replaced:
        document["relatesTo"] = [
            {"code": "replaces", "target": {"reference": plain(one)}} for one in replaced
        ]
    return document


def _highest(draft: Mapping[str, Any], replaced: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the labels of all of them, and of the confidentialities the highest (SAFETY 20)."""
    labels = [label for one in (draft, *replaced) for label in _labels_of(one)]
    levels = [x for x in labels if x.get("code") in LEVELS and x.get("system", "") in LEVEL_SYSTEMS]
    others = {(x.get("system"), x.get("code")): x for x in reversed(labels) if x not in levels}
    highest = max(levels, key=lambda x: LEVELS.index(x["code"]))
    return [*reversed(others.values()), {**highest, "system": CONFIDENTIALITY}]


def _labels_of(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the codings of both places where a document is labelled."""
    yield from dicts((document.get("meta") or {}).get("security"))
    for concept in dicts(document.get("securityLabel")):
        yield from dicts(concept.get("coding"))


def _attesting(
    origin: dict[str, Any],
    attestation: Attestation,
    replaced: Sequence[Mapping[str, Any]],
    security: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the Provenance of an attestation: all that the draft's said, and who verified it.

    It names the model and every source again, so that recall finds the attested text as it does the draft.
    """
    origin = {name: value for name, value in origin.items() if name not in ("id", "signature")}
    verifier = {"type": _participant("verifier", "Verifier"), "who": {"reference": attestation.by}}
    revised = [{"role": "revision", "what": {"reference": versioned(one)}} for one in replaced]
    coding = _AMEND if attestation.additions else _ATTEST
    return origin | {
        "meta": {"security": security},
        "target": [*origin["target"], *({"reference": plain(one)} for one in replaced)],
        "recorded": fhir_instant(attestation.at),
        "activity": {"coding": [dict(coding)]},
        "agent": [*origin["agent"], verifier],
        "entity": [*origin["entity"], *revised],
    }


def withdrawal_transaction(
    document: Mapping[str, Any], *, by: str, reason: str, at: datetime
) -> dict[str, Any]:
    """Return the transaction that withdraws a document, as it is on the server now, in both statuses.

    `by` is a reference (`Practitioner/7`), or words for what is not a person, such as `Epicrisis`.
    """
    withdrawn = {**document, "status": "entered-in-error", "docStatus": "entered-in-error"}
    who: dict[str, Any] = {"reference": by} if LITERAL.fullmatch(by) else {"display": by}
    labels = (document.get("meta") or {}).get("security")
    provenance = {
        "resourceType": "Provenance",
        **({"meta": {"security": labels}} if labels else {}),
        "target": [{"reference": plain(document)}],
        "recorded": fhir_instant(at),
        "reason": [{"text": reason}],
        "activity": {"coding": [dict(_WITHDRAW)]},
        "agent": [{"type": _participant("performer", "Performer"), "who": who}],
        "entity": [{"role": "removal", "what": {"reference": versioned(document)}}],
    }
    _check(provenance)
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            _update_entry(document, withdrawn),
            {
                "fullUrl": f"urn:epicrisis:withdrawal:{document['id']}",
                "resource": provenance,
                "request": {"method": "POST", "url": "Provenance"},
            },
        ],
    }


def supersede_entry(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry that marks a document as superseded, changing nothing else."""
    return _update_entry(document, {**document, "status": "superseded"})


def _update_entry(document: Mapping[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    reference = plain(document)
    version = (document.get("meta") or {}).get("versionId") or ""
    meta = {name: value for name, value in (changed.get("meta") or {}).items() if name not in _VOLATILE}
    changed = {**changed, "meta": meta} if meta else {n: v for n, v in changed.items() if n != "meta"}
    request = {"method": "PUT", "url": reference, "ifMatch": f'W/"{version}"'}
    return {"fullUrl": f"urn:epicrisis:update:{document['id']}", "resource": changed, "request": request}


_VOLATILE = frozenset({"versionId", "lastUpdated"})


def standing_beside(bundle: dict[str, Any], attested: Sequence[str]) -> dict[str, Any]:
    """Return the transaction of a draft that says beside which attested documents it stands (SAFETY 15)."""
    for entry in bundle["entry"]:
        if entry["resource"].get("docStatus") and attested:
            entry["resource"]["relatesTo"] = [
                {"code": "appends", "target": {"reference": reference}} for reference in attested
            ]
    return bundle


def plain(document: Mapping[str, Any]) -> str:
    """`DocumentReference/7`"""
    return f"DocumentReference/{document['id']}"


def versioned(document: Mapping[str, Any]) -> str:
    """`DocumentReference/7/_history/2`; without a version where the server keeps none."""
    version = (document.get("meta") or {}).get("versionId")
    return f"{plain(document)}/_history/{version}" if version else plain(document)


Standing = Literal["draft", "attested", "amended", "superseded", "withdrawn"]


def standing_of(document: Mapping[str, Any]) -> Standing:
    """Say where a document stands, by its two statuses; a withdrawal in either one counts."""
    statuses = (document.get("status"), document.get("docStatus"))
    if "entered-in-error" in statuses:
        return "withdrawn"
    if statuses[0] == "superseded":
        return "superseded"
    known: dict[Any, Standing] = {"final": "attested", "amended": "amended"}
    return known.get(statuses[1], "draft")


def _participant(code: str, display: str) -> dict[str, Any]:
    system = f"{TERMINOLOGY}/provenance-participant-type"
    return {"coding": [{"system": system, "code": code, "display": display}]}
