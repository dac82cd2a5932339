"""What may not be used: restricted data (SAFETY 20), and what we or another AI wrote (SAFETY 25)."""

from __future__ import annotations

from collections.abc import Callable, Set

from service.record.facts import Code
from service.record.fhirjson import Element

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
ACT_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
OBSERVATION_VALUE = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
OWN_SYSTEMS = "urn:epicrisis:"
"""Every identifier system that we write begins so."""

AI_CODES = frozenset({"AIAST", "AIRPT", "CLINAST_AIRPT", "AIAST_CLINRPT"})
"""The last three were in a ballot and removed; documents written in that time still carry them."""

_ORDINARY = frozenset({"U", "L", "M", "N"})
_HARMLESS: dict[str, frozenset[str]] = {
    CONFIDENTIALITY: _ORDINARY,
    "http://hl7.org/fhir/v3/Confidentiality": _ORDINARY,  # the STU3 name, still sent by R4 servers
    "urn:oid:2.16.840.1.113883.5.25": _ORDINARY,
    ACT_CODE: frozenset({"NOPAT"}),  # not for the patient's own eyes; the reader is a clinician
    ACT_REASON: frozenset({"HTEST", "TREAT", "ETREAT", "CAREMGT"}),
    OBSERVATION_VALUE: frozenset(
        [
            "ABSTRED",
            "AGGRED",
            "ANONYED",
            "MAPPED",
            "MASKED",
            "PSEUDED",
            "REDACTED",
            "SUBSETTED",
            "SYNTAC",
            "TRSLT",
            "VERSIONED",
            "CRYTOHASH",
            "DIGSIG",
            "HRELIABLE",
            "RELIABLE",
            "UNCERTREL",
            "UNRELIABLE",
            "CLINAST",
            "DEVAST",
            "HCPAST",
            "PACQAST",
            "PATAST",
            "PAYAST",
            "PROAST",
            "SDMAST",
            "CLINRPT",
            "DEVRPT",
            "HCPRPT",
            "PACQRPT",
            "PATRPT",
            "PAYRPT",
            "PRORPT",
            "SDMRPT",
        ]
    ),
}


def security_codes(resource: Element) -> tuple[Code, ...]:
    """Return every security label: `meta.security` and `securityLabel`. One without a code counts."""
    found: list[Code] = []
    for holder, key in ((resource.child("meta"), "security"), (resource, "securityLabel")):
        if holder.raw.get(key) is None:
            continue
        for label in holder.concepts(key):
            found.extend(label.codes or (Code("", "", label.name),))
        if not found:
            found.append(Code("", "", "unreadable label"))
    return tuple(found)


def is_restricted(labels: tuple[Code, ...], allowed: frozenset[tuple[str, str]]) -> bool:
    """Tell whether a label restricts; every label that is not known to be harmless does."""
    return any(
        label.code not in AI_CODES
        and label.code not in _HARMLESS.get(label.system, frozenset())
        and (label.system, label.code) not in allowed
        for label in labels
    )


def is_ai_labelled(labels: tuple[Code, ...]) -> bool:
    """Tell whether a label says that an AI asserted or wrote this. The system is often left out."""
    return any(label.code in AI_CODES for label in labels)


def has_own_identifier(resource: Element) -> bool:
    """Tell whether one of our own identifier systems marks this resource as ours."""
    holders = [*resource.children("identifier"), *resource.children("masterIdentifier")]
    return any(h.text("system").startswith(OWN_SYSTEMS) for h in holders)


def is_ai_device(device: Element) -> bool:
    """Tell whether a Device stands for an AI model, ours or another's."""
    kinds = device.concepts("type")
    return any("aitransparency" in c.system.lower() for kind in kinds for c in kind.codes) or any(
        "artificial intelligence" in kind.name.lower().replace("-", " ") for kind in kinds
    )


def labels_ai_output(provenance: Element) -> bool:
    """Tell whether a Provenance says that its targets were written by an AI."""
    reasons = [c for concept in provenance.concepts("reason") for c in concept.codes]
    return is_ai_labelled(tuple(reasons))


def ai_targets(element: Element, reference: str) -> tuple[str, ...]:
    """Find AI output by its Provenance, since some servers drop `meta.security`, and AI by its Device."""
    kind = element.raw["resourceType"]
    if kind == "Provenance" and labels_ai_output(element):
        return tuple(text for t in element.children("target") if (text := t.text("reference")))
    if kind == "Device" and (
        has_own_identifier(element) or is_ai_device(element) or is_ai_labelled(security_codes(element))
    ):
        return (reference,)
    return ()


def is_ai_output(
    element: Element,
    reference: str,
    labels: tuple[Code, ...],
    targets: Set[str],
    resolve: Callable[[str], str],
) -> bool:
    """Tell whether an AI wrote this: by label, identifier, author, or what an AI's Provenance points to.

    `targets` are the resolved `ai_targets` of the chart.
    """
    return (
        reference in targets
        or is_ai_labelled(labels)
        or has_own_identifier(element)
        or _is_authored_by(element, targets, resolve)
    )


def _is_authored_by(element: Element, targets: Set[str], resolve: Callable[[str], str]) -> bool:
    if not targets:
        return False
    holders = [*element.children("author"), *element.children("performer"), element.child("device")]
    return any(resolve(h.text("reference")) in targets for h in holders if h.text("reference"))


def is_in_department(element: Element, departments: Set[str], resolve: Callable[[str], str]) -> bool:
    """Tell whether a resource belongs to a department, named by `Location/12` or `system|code`."""
    concepts = [*element.concepts("serviceType"), *element.child("context").concepts("practiceSetting")]
    if any(f"{c.system}|{c.code}" in departments for concept in concepts for c in concept.codes):
        return True
    places = [location.child("location") for location in element.children("location")]
    own = [element.child(key) for key in ("location", "serviceProvider", "custodian")]
    return any(resolve(h.text("reference")) in departments for h in (*places, *own) if h.text("reference"))
