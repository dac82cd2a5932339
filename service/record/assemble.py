"""Resources → PatientRecord: every resource is kept as facts, or counted with the reason why it was not.

Total: no JSON value makes it raise, and `seen = kept + sum(skipped.values())` always holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from connectors.fhir.pull import Gap
from service.record.dates import load_zone
from service.record.directives import is_directive_consent
from service.record.facts import Fact, Identity, Kind, PatientRecord, Resource, ResourceVersion
from service.record.fhirjson import Element
from service.record.identity import (
    NO_IDENTITY,
    check_patient,
    find_patient,
    plain_id,
    read_identity,
    stop_reason,
)
from service.record.labels import (
    has_own_identifier,
    is_ai_device,
    is_ai_labelled,
    is_restricted,
    labels_ai_output,
    security_codes,
)
from service.record.readers import ADMINISTRATIVE, READERS, SUPPORTING
from service.record.reading import Chart, Reading
from service.record.references import (
    References,
    base_of,
    full_url_of,
    identifier_query,
    own_reference,
    plain,
    resources_of,
)
from service.record.statuses import is_entered_in_error
from service.record.versions import content_digest, last_updated, record_digest, version_id

__all__ = ["Policy", "assemble_record", "check_patient", "resources_of", "stop_reason"]

NOT_A_RESOURCE = "not_a_resource"
DUPLICATE = "duplicate"
OLDER_VERSION = "older_version"
OTHER_PATIENT = "other_patient"
NO_SUBJECT = "no_subject"
NO_PATIENT = "no_patient"
ENTERED_IN_ERROR = "entered_in_error"
OWN_OUTPUT = "own_output"
RESTRICTED = "restricted"
UNSUPPORTED_TYPE = "unsupported_type"
SUPPORTING_ONLY = "supporting"
ADMINISTRATIVE_ONLY = "administrative"
NO_STATEMENT = "no_statement"

UNREADABLE = "nothing in it could be read"
"""Problem of a resource of a supported type without a statement: `AllergyIntolerance: nothing in it…`."""
WITHOUT_SUBJECT = "no subject"
READER_FAILED = "its reader failed"
ATTESTED_AI = "an AI document that a human made final was left out"

_KIND_ORDER = {kind: place for place, kind in enumerate(Kind)}
_SUBJECT_KEYS = ("subject", "patient")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a site decides about reading records."""

    time_zone: str | None = None
    """IANA name of the zone in which days are shown; None shows the recorded offset."""
    keep_restricted: bool = False
    """True only for a run with a user's own token: labelled data is then kept (SAFETY 20)."""
    allowed_labels: frozenset[tuple[str, str]] = frozenset()
    """(system, code) of security labels that this site declares harmless."""
    note_types: frozenset[tuple[str, str]] = frozenset()
    """(system, code) of document types and categories to leave out: psychotherapy, adolescent…"""
    departments: frozenset[str] = frozenset()
    """`Location/12`, `Organization/3` or `system|code` of departments whose data is left out."""


@dataclass(slots=True)
class _Candidate:
    element: Element
    kind: str
    version: ResourceVersion


@dataclass(slots=True)
class _Sorting:
    """What is known while resources are sorted into kept and skipped."""

    chart: Chart
    policy: Policy
    identifiers: frozenset[tuple[str, str]]
    ai_targets: set[str] = field(default_factory=set)
    closed_encounters: set[str] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)


def assemble_record(
    resources: Iterable[Any],
    patient_id: str | None = None,
    *,
    gaps: Sequence[Gap] = (),
    policy: Policy = Policy(),
    binaries: Mapping[str, bytes] | None = None,
    base_url: str = "",
) -> PatientRecord:
    """Turn one patient's resources into a record. Never raises, whatever JSON comes in.

    Without `patient_id` the first Patient of the input is meant. `base_url` is the FHIR server that the
    resources came from: an absolute reference to another server means another resource. The order of the
    resources changes nothing in the result.
    """
    given = list(resources)
    skipped: Counter[str] = Counter()
    notes: set[str] = set()
    candidates = _versions(given, skipped, notes)
    patient = find_patient((c.element.raw for c in candidates), patient_id)
    chart = _chart(candidates, patient, patient_id, base_url, notes)
    chart.zone, chart.binaries = load_zone(policy.time_zone), dict(binaries or {})
    if policy.time_zone and chart.zone is None:
        notes.add("site: unknown time zone")
    sorting = _Sorting(chart, policy, _identifiers(patient))
    readable = _sort(candidates, sorting, skipped)
    facts, kept = _read_all(readable, chart, skipped)
    inputs = _inputs(kept, sorting, candidates)
    return PatientRecord(
        identity=_identity(patient, chart, notes),
        facts=tuple(sorted(facts, key=_place)),
        seen=len(given),
        kept=len(kept),
        skipped=dict(sorted(skipped.items())),
        gaps=tuple(gaps),
        inputs=inputs,
        digest=record_digest(inputs),
        as_of=chart.newest,
        problems=tuple(sorted(notes)),
    )


def _versions(given: list[Any], skipped: Counter[str], notes: set[str]) -> list[_Candidate]:
    """Keep the newest version of every resource; count repeats, older versions and what is no resource."""
    groups: dict[str, list[_Candidate]] = {}
    for raw in given:
        candidate = _candidate(raw, notes)
        if candidate is None:
            skipped[NOT_A_RESOURCE] += 1
        else:
            groups.setdefault(candidate.version.reference, []).append(candidate)
    return [_newest(group, skipped) for group in groups.values()]


def _candidate(raw: Any, notes: set[str]) -> _Candidate | None:
    kind = raw.get("resourceType") if isinstance(raw, dict) else None
    if not isinstance(kind, str) or not kind:
        return None
    digest = content_digest(raw)
    if digest is None:
        return None
    # What cites a resource that a Bundle gave neither id nor fullUrl can only name its content.
    reference = own_reference(raw) or f"{kind}/~{digest[:16]}"
    known = kind if kind in READERS or kind in SUPPORTING or kind in ADMINISTRATIVE else "other type"
    return _Candidate(Element(raw, known, notes), kind, ResourceVersion(reference, version_id(raw), digest))


def _newest(group: list[_Candidate], skipped: Counter[str]) -> _Candidate:
    if len(group) == 1:
        return group[0]
    group.sort(key=_rank, reverse=True)
    newest = group[0]
    for other in group[1:]:
        same_content = other.version.digest == newest.version.digest
        same_version = other.version.version == newest.version.version
        skipped[DUPLICATE if same_content or same_version else OLDER_VERSION] += 1
        if same_version and not same_content:
            newest.element.note("two contents of one version")
    return newest


def _rank(candidate: _Candidate) -> tuple[str, int, str, str, str]:
    number = candidate.version.version or ""
    counted = int(number) if number.isdecimal() and len(number) < 19 else 0
    raw = candidate.element.raw
    return last_updated(raw), counted, number, candidate.version.digest, full_url_of(raw)


def _chart(
    candidates: list[_Candidate],
    patient: Resource | None,
    patient_id: str | None,
    base_url: str,
    notes: set[str],
) -> Chart:
    bases = {base_url.rstrip("/")} if base_url else set()
    bases |= {base for c in candidates if (base := base_of(full_url_of(c.element.raw)))}
    references = References(bases)
    for candidate in sorted(candidates, key=lambda c: c.version.reference):
        references.add(candidate.element.raw, candidate.version.reference)
    own = _patient_reference(patient, patient_id, candidates)
    accepted = {own} if own else set()
    for link in Element(patient or {}, "Patient", notes).children("link"):
        if link.text("type") == "replaces" and link.reference("other"):
            accepted.add(references.resolve(link.reference("other")))
    return Chart(own, frozenset(accepted), references, notes=notes)


def _patient_reference(patient: Resource | None, patient_id: str | None, candidates: list[_Candidate]) -> str:
    if patient is not None:
        return next(c.version.reference for c in candidates if c.element.raw is patient)
    return f"Patient/{plain_id(patient_id)}" if patient_id else ""


def _identifiers(patient: Resource | None) -> frozenset[tuple[str, str]]:
    holders = Element(patient or {}, "Patient", set()).children("identifier")
    return frozenset(
        (h.text("system"), h.text("value")) for h in holders if h.text("system") and h.text("value")
    )


def _identity(patient: Resource | None, chart: Chart, notes: set[str]) -> Identity:
    if patient is None:
        return Identity(chart.patient, "", "", "", "") if chart.patient else NO_IDENTITY
    return read_identity(Element(patient, "Patient", notes), chart.patient)


def _sort(candidates: list[_Candidate], sorting: _Sorting, skipped: Counter[str]) -> list[_Candidate]:
    """Decide for every resource why it is not read; return those that are."""
    _find_ai_output(candidates, sorting)
    _find_closed_encounters(candidates, sorting)
    chart = sorting.chart
    for candidate in candidates:
        reason = _reason(candidate, sorting)
        reference = candidate.version.reference
        if reason in (OWN_OUTPUT, RESTRICTED, ENTERED_IN_ERROR):
            chart.hidden.add(reference)
        elif reason in ("", SUPPORTING_ONLY):
            chart.readable[reference] = candidate.element.raw
        if reason:
            sorting.reasons[reference] = reason
    readable = []
    for candidate in candidates:
        reference = candidate.version.reference
        if reference not in sorting.reasons and _rests_on_hidden(candidate, chart):
            sorting.reasons[reference] = RESTRICTED
            chart.hidden.add(reference)
            chart.readable.pop(reference, None)
        if reference in sorting.reasons:
            skipped[sorting.reasons[reference]] += 1
        else:
            readable.append(candidate)
    return sorted(readable, key=lambda c: c.version.reference)


def _reason(candidate: _Candidate, sorting: _Sorting) -> str:
    """Return why a resource is not read for facts; empty where it is."""
    element, kind = candidate.element, candidate.kind
    is_supporting = kind in SUPPORTING or (kind == "Device" and "patient" not in element.raw)
    if kind in ADMINISTRATIVE or (kind == "Consent" and not is_directive_consent(element)):
        return ADMINISTRATIVE_ONLY
    if not is_supporting and kind not in READERS:
        return UNSUPPORTED_TYPE
    labels = security_codes(element)
    if _is_ai_output(candidate, labels, sorting):
        return OWN_OUTPUT
    if not is_supporting:
        misplaced = _misplaced(candidate, sorting)
        if misplaced:
            return misplaced
    if is_entered_in_error(element):
        return ENTERED_IN_ERROR
    if not sorting.policy.keep_restricted and (
        is_restricted(labels, sorting.policy.allowed_labels) or _is_site_restricted(candidate, sorting)
    ):
        return RESTRICTED
    return SUPPORTING_ONLY if is_supporting else ""


def _misplaced(candidate: _Candidate, sorting: _Sorting) -> str:
    """Return why a resource is not this patient's (SAFETY 1); empty where its subject is this patient."""
    if not sorting.chart.patient:
        return NO_PATIENT
    if candidate.kind == "Patient":
        return "" if candidate.version.reference == sorting.chart.patient else OTHER_PATIENT
    holders = [candidate.element.child(key) for key in _SUBJECT_KEYS if candidate.element.raw.get(key)]
    if not holders:
        candidate.element.note(WITHOUT_SUBJECT)
        return NO_SUBJECT
    return "" if all(_is_this_patient(holder, sorting) for holder in holders) else OTHER_PATIENT


def _is_this_patient(holder: Element, sorting: _Sorting) -> bool:
    reference = holder.text("reference")
    if reference:
        query = identifier_query(reference)
        if query is not None:
            return query[0] == "Patient" and query[1:] in sorting.identifiers
        return (
            not reference.startswith("#")
            and sorting.chart.references.resolve(reference) in sorting.chart.accepted
        )
    identifier = holder.child("identifier")
    return (identifier.text("system"), identifier.text("value")) in sorting.identifiers


def _find_ai_output(candidates: list[_Candidate], sorting: _Sorting) -> None:
    """Find AI output by its Provenance, since some servers drop `meta.security`, and AI by its Device."""
    resolve = sorting.chart.references.resolve
    for candidate in candidates:
        if candidate.kind == "Provenance" and labels_ai_output(candidate.element):
            targets = candidate.element.children("target")
            sorting.ai_targets.update(resolve(t.text("reference")) for t in targets if t.text("reference"))
        elif candidate.kind == "Device" and (
            has_own_identifier(candidate.element)
            or is_ai_device(candidate.element)
            or is_ai_labelled(security_codes(candidate.element))
        ):
            sorting.ai_targets.add(candidate.version.reference)


def _is_ai_output(candidate: _Candidate, labels: tuple[Any, ...], sorting: _Sorting) -> bool:
    element = candidate.element
    found = (
        candidate.version.reference in sorting.ai_targets
        or is_ai_labelled(labels)
        or has_own_identifier(element)
        or _is_authored_by_ai(element, sorting)
    )
    if found and element.text("docStatus") in ("final", "amended") and element.reference("authenticator"):
        element.note(ATTESTED_AI)
    return found


def _is_authored_by_ai(element: Element, sorting: _Sorting) -> bool:
    if not sorting.ai_targets:
        return False
    resolve = sorting.chart.references.resolve
    holders = [*element.children("author"), *element.children("performer"), element.child("device")]
    return any(resolve(h.text("reference")) in sorting.ai_targets for h in holders if h.text("reference"))


def _find_closed_encounters(candidates: list[_Candidate], sorting: _Sorting) -> None:
    if not sorting.policy.departments:
        return
    for candidate in candidates:
        if candidate.kind == "Encounter" and _is_in_department(candidate.element, sorting):
            sorting.closed_encounters.add(candidate.version.reference)


def _is_site_restricted(candidate: _Candidate, sorting: _Sorting) -> bool:
    policy, element = sorting.policy, candidate.element
    if policy.note_types and candidate.kind in ("DocumentReference", "DiagnosticReport"):
        concepts = [c for key in ("type", "category", "code") for c in element.concepts(key)]
        if any(concept.has(policy.note_types) for concept in concepts):
            return True
    if not policy.departments:
        return False
    return _is_in_department(element, sorting) or _encounter_of(element, sorting) in sorting.closed_encounters


def _encounter_of(element: Element, sorting: _Sorting) -> str:
    context = element.child("context")
    reference = element.reference("encounter") or context.reference("encounter") or context.text("reference")
    own = own_reference(element.raw) if element.text("resourceType") == "Encounter" else ""
    return sorting.chart.references.resolve(reference) if reference else own


def _is_in_department(element: Element, sorting: _Sorting) -> bool:
    concepts = [*element.concepts("serviceType"), *element.child("context").concepts("practiceSetting")]
    if any(
        f"{c.system}|{c.code}" in sorting.policy.departments for concept in concepts for c in concept.codes
    ):
        return True
    places = [location.child("location") for location in element.children("location")]
    holders = [
        *places,
        element.child("location"),
        element.child("serviceProvider"),
        element.child("custodian"),
    ]
    resolve = sorting.chart.references.resolve
    return any(
        resolve(h.text("reference")) in sorting.policy.departments for h in holders if h.text("reference")
    )


def _rests_on_hidden(candidate: _Candidate, chart: Chart) -> bool:
    """Tell whether a medication order names its drug by a resource that may not show."""
    if (
        not candidate.kind.startswith("Medication")
        or candidate.element.concept("medicationCodeableConcept").name
    ):
        return False
    reference = candidate.element.reference("medicationReference")
    return bool(reference) and chart.references.resolve(plain(reference)) in chart.hidden


def _read_all(
    candidates: list[_Candidate], chart: Chart, skipped: Counter[str]
) -> tuple[list[Fact], list[_Candidate]]:
    facts: list[Fact] = []
    kept: list[_Candidate] = []
    for candidate in candidates:
        found = _read(candidate, chart)
        if found:
            facts.extend(found)
            kept.append(candidate)
        else:
            candidate.element.note(UNREADABLE)
            skipped[NO_STATEMENT] += 1
    return facts, kept


def _read(candidate: _Candidate, chart: Chart) -> list[Fact]:
    try:
        reading = Reading(chart, candidate.element, candidate.version)
        return list(READERS[candidate.kind](candidate.element, reading))
    except Exception:  # a reader's bug must cost one resource, said aloud, and not the patient's whole record
        candidate.element.note(READER_FAILED)
        return []


def _place(fact: Fact) -> tuple[Any, ...]:
    when = fact.when
    times = (when.earliest.timestamp(), when.latest.timestamp()) if when else (float("-inf"), float("-inf"))
    base, _, number = fact.id.partition("#")
    return _KIND_ORDER[fact.kind], *times, base, int(number or 1)


def _inputs(
    kept: list[_Candidate], sorting: _Sorting, candidates: list[_Candidate]
) -> tuple[ResourceVersion, ...]:
    """Return every version that could shape the summary: kept, supporting, and attachments fetched by url."""
    found = [c.version for c in kept]
    found += [c.version for c in candidates if sorting.reasons.get(c.version.reference) == SUPPORTING_ONLY]
    found += [ResourceVersion(url, None, digest) for url, digest in sorting.chart.binary_reads.items()]
    return tuple(sorted(found, key=lambda v: (v.reference, v.version or "", v.digest)))
