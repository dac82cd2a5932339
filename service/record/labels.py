"""What may not be used: restricted data (SAFETY 20), and what we or another AI wrote (SAFETY 25).

Of data that may be used, the labels that whatever rests on it must carry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

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

LEVELS = ("U", "L", "M", "N", "R", "V")
"""Codes of confidentiality, the lowest first."""
RESTRICTED_LEVELS = {"R": "restricted", "V": "very restricted"}

_ORDINARY = frozenset({"U", "L", "M", "N"})
_OLD_CONFIDENTIALITY = ("http://hl7.org/fhir/v3/Confidentiality", "urn:oid:2.16.840.1.113883.5.25")
LEVEL_SYSTEMS = frozenset({CONFIDENTIALITY, *_OLD_CONFIDENTIALITY, ""})  # the system is sometimes left out
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
    """Return every security label: `meta.security` and `securityLabel`. One without a code counts.

    So does one that cannot be read, among others that can.
    """
    found: list[Code] = []
    for holder, key in ((resource.child("meta"), "security"), (resource, "securityLabel")):
        value = holder.raw.get(key)
        if value is None:
            continue
        labels = holder.concepts(key)
        for label in labels:
            found.extend(label.codes or (Code("", "", label.name),))
        if len(labels) < (len(value) or 1 if isinstance(value, list) else 1):
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


def labels_to_carry(
    labels: Iterable[Code], allowed: Set[tuple[str, str]] = frozenset(), *, is_restricted: bool = False
) -> tuple[Code, ...]:
    """Return the labels that whatever rests on a resource with these labels must carry; none if harmless.

    Every code that may restrict is kept. Its level is R, or V where a label says so: an unknown label counts
    as R. What a site declared harmless (`allowed`) is kept and does not raise the level, unless it is a level
    itself. `is_restricted` is for what the site restricts without a label.
    """
    bearing = [
        label
        for label in labels
        if label.code not in AI_CODES and label.code not in _HARMLESS.get(label.system, frozenset())
    ]
    raising = is_restricted or any((label.system, label.code) not in allowed for label in bearing)
    least = (_level("R"),) if raising else ()
    return highest_labels((*(label for label in bearing if label.code), *least))


def highest_labels(labels: Iterable[Code]) -> tuple[Code, ...]:
    """Return these labels each once, sorted, and of the restricted levels among them the highest, last."""
    levels: set[str] = set()
    others: dict[tuple[str, str], Code] = {}
    for label in labels:
        if label.system in LEVEL_SYSTEMS and label.code in RESTRICTED_LEVELS:
            levels.add(label.code)
        else:
            others.setdefault((label.system, label.code), label)
    sensitive = tuple(others[key] for key in sorted(others))
    return (*sensitive, _level(max(levels, key=LEVELS.index))) if levels else sensitive


def level_of(labels: Iterable[Code]) -> str:
    """Return `V`, `R`, or `N` where none of these labels restricts more."""
    found = {label.code for label in labels if label.system == CONFIDENTIALITY and label.code in LEVELS}
    return max(found | {"N"}, key=LEVELS.index)


def _level(code: str) -> Code:
    return Code(CONFIDENTIALITY, code, RESTRICTED_LEVELS[code])


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
