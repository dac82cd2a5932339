"""Resources → PatientRecord: every resource is kept as facts, or counted with the reason why it was not.

Total: no JSON value makes it raise, and `seen = kept + len(skips)` always holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from connectors.fhir.codec import collector_paused
from connectors.fhir.pull import Gap
from service.record.dates import load_zone
from service.record.directives import is_directive_consent
from service.record.drafts import Echo, is_attested, read_draft
from service.record.facts import (
    Code,
    Extracted,
    Fact,
    Kind,
    PatientRecord,
    Resource,
    ResourceVersion,
    Skip,
)
from service.record.fhirjson import Element
from service.record.identity import check_patient, find_patient, identity_of, patient_reference, stop_reason
from service.record.labels import (
    ai_targets,
    highest_labels,
    is_ai_output,
    is_in_department,
    is_restricted,
    labels_to_carry,
    security_codes,
)
from service.record.merge import merge_alike
from service.record.named import without_ours_alone
from service.record.passages import read_passages
from service.record.readers import ADMINISTRATIVE, READERS, SUPPORTING
from service.record.reading import Chart, Reading, what_it_lends
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
OPEN_BANNER = "a banner of ours without its end: only the lines that have our form were left out"

MANY = 100
"""Resources from which on the collector is kept out of the way."""

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
    """What is known of one resource between the passes; the resource itself is not held."""

    place: int
    kind: str
    version: ResourceVersion
    full_url: str
    ident: str | None
    ai_targets: tuple[str, ...]
    """What an AI Provenance points to; the resource itself for the Device of an AI."""
    rests_on: str = ""
    """Reference of the Medication without which a medication order says nothing."""


Candidates = dict[int, _Candidate]
"""Place in the input → what is known of the resource there."""


@dataclass(slots=True)
class _Sorting:
    """What is known while resources are sorted into kept and skipped."""

    chart: Chart
    policy: Policy
    identifiers: frozenset[tuple[str, str]]
    ai_targets: set[str] = field(default_factory=set)
    closed_encounters: set[str] = field(default_factory=set)
    supporting: dict[int, ResourceVersion] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)
    drafts: Candidates = field(default_factory=dict)
    """Documents that an AI wrote."""
    ours: set[int] = field(default_factory=set)
    """Places of all that an AI wrote and nobody added a word to."""
    echo: Echo = field(default_factory=Echo)

    def skip(self, candidate: _Candidate, reason: str) -> None:
        self.skips.append(Skip(candidate.version.reference, reason))


def assemble_record(
    resources: Iterable[Any],
    patient_id: str | None = None,
    *,
    gaps: Sequence[Gap] = (),
    policy: Policy = Policy(),
    binaries: Mapping[str, bytes] | None = None,
    texts: Mapping[str, Extracted] | None = None,
    base_url: str = "",
    read_at: datetime | None = None,
) -> PatientRecord:
    """Turn one patient's resources into a record. Never raises, whatever JSON comes in.

    Without `patient_id` the first Patient of the input is meant. `texts` holds the texts of attachments
    that are not plain text. `base_url` is the FHIR server that the resources came from: an absolute
    reference to another server means another resource. `read_at` (aware) bounds the record's newest time.
    The order of the resources changes nothing.

    The resources are read three times and none is held, so that a `Packed` chart of any size goes through:
    what is there, what may be read, and what it says.
    """
    given: Any = resources if isinstance(resources, Sized) else list(resources)
    with collector_paused(len(given) >= MANY):
        return _assemble(given, patient_id, gaps, policy, binaries or {}, texts or {}, base_url, read_at)


def _assemble(
    given: Any,
    patient_id: str | None,
    gaps: Sequence[Gap],
    policy: Policy,
    binaries: Mapping[str, bytes],
    texts: Mapping[str, Extracted],
    base_url: str,
    read_at: datetime | None,
) -> PatientRecord:
    notes: set[str] = set()
    candidates, skips, patients = _scan(given, notes)
    patient = find_patient(patients, patient_id)
    chart = _chart(candidates, patient, patient_id, base_url, notes)
    chart.read_at = read_at
    chart.zone, chart.binaries, chart.texts = load_zone(policy.time_zone), binaries, texts
    if policy.time_zone and chart.zone is None:
        notes.add("site: unknown time zone")
    sorting = _Sorting(chart, policy, _identifiers(patient), skips=skips)
    readable = _sort(given, candidates, sorting)
    read, kept = _read_all(given, readable, sorting)
    facts = [sorting.echo.strip(fact) for fact in read]
    if sorting.echo.open_banners:
        notes.add(f"DocumentReference: {OPEN_BANNER}")
    inputs = _inputs(kept, sorting)
    return PatientRecord(
        identity=identity_of(patient, chart.patient, notes, policy.allowed_labels),
        facts=tuple(sorted(read_passages(merge_alike(facts)), key=_place)),
        seen=len(given),
        kept=len(kept),
        skips=tuple(sorted(sorting.skips, key=lambda skip: (skip.reason, skip.reference))),
        gaps=tuple(gaps),
        inputs=inputs,
        digest=record_digest(inputs),
        as_of=chart.newest,
        problems=tuple(sorted(notes)),
        pasted=sorting.echo.passages,
    )


def _scan(given: Iterable[Any], notes: set[str]) -> tuple[Candidates, list[Skip], list[Resource]]:
    """Keep the newest version of every resource; count repeats, older versions and what is no resource."""
    newest: dict[str, _Candidate] = {}
    ranks: dict[str, tuple[Any, ...]] = {}
    skips: list[Skip] = []
    patients: dict[int, Resource] = {}
    for place, raw in enumerate(given):
        candidate = _candidate(place, raw, notes)
        if candidate is None:
            skips.append(Skip(f"entry {place + 1}", NOT_A_RESOURCE))
            continue
        reference, rank = candidate.version.reference, _rank(candidate, raw)
        if candidate.kind == "Patient":
            patients[place] = raw
        other = newest.get(reference)
        if other is None or rank > ranks[reference]:
            newest[reference], ranks[reference] = candidate, rank
        if other is not None:
            older = other if newest[reference] is candidate else candidate
            skips.append(Skip(reference, _repeat(older, newest[reference], notes)))
    kept = {c.place: c for c in sorted(newest.values(), key=lambda c: c.place)}
    return kept, skips, [raw for place, raw in patients.items() if place in kept]


def _candidate(place: int, raw: Any, notes: set[str]) -> _Candidate | None:
    kind = raw.get("resourceType") if isinstance(raw, dict) else None
    if not isinstance(kind, str) or not kind:
        return None
    digest = content_digest(raw)
    if digest is None:
        return None
    # What cites a resource that a Bundle gave neither id nor fullUrl can only name its content.
    reference = own_reference(raw) or f"{kind}/~{digest[:16]}"
    version = ResourceVersion(reference, version_id(raw), digest, last_updated(raw))
    ident = raw.get("id")
    return _Candidate(
        place, kind, version, full_url_of(raw), ident if isinstance(ident, str) else None,
        ai_targets(_element(raw, kind, notes), reference),
    )  # fmt: skip


def _element(raw: Resource, kind: str, notes: set[str]) -> Element:
    known = kind if kind in READERS or kind in SUPPORTING or kind in ADMINISTRATIVE else "other type"
    return Element(raw, known, notes)


def _repeat(older: _Candidate, newest: _Candidate, notes: set[str]) -> str:
    same_content = older.version.digest == newest.version.digest
    same_version = older.version.version == newest.version.version
    if same_version and not same_content:
        _element({}, newest.kind, notes).note("two contents of one version")
    return DUPLICATE if same_content or same_version else OLDER_VERSION


def _rank(candidate: _Candidate, raw: Resource) -> tuple[str, int, str, str, str]:
    number = candidate.version.version or ""
    counted = int(number) if number.isdecimal() and len(number) < 19 else 0
    return candidate.version.updated, counted, number, candidate.version.digest, candidate.full_url


def _chart(
    candidates: Candidates, patient: Resource | None, patient_id: str | None, base_url: str, notes: set[str]
) -> Chart:
    bases = {base_url.rstrip("/")} if base_url else set()
    bases |= {base for c in candidates.values() if (base := base_of(c.full_url))}
    references = References(bases)
    for candidate in sorted(candidates.values(), key=lambda c: c.version.reference):
        references.add(candidate.version.reference, candidate.full_url, candidate.ident)
    own = patient_reference(patient, patient_id)
    accepted = {own} if own else set()
    for link in Element(patient or {}, "Patient", notes).children("link"):
        if link.text("type") == "replaces" and link.reference("other"):
            accepted.add(references.resolve(link.reference("other")))
    return Chart(own, frozenset(accepted), references, notes=notes)


def _identifiers(patient: Resource | None) -> frozenset[tuple[str, str]]:
    holders = Element(patient or {}, "Patient", set()).children("identifier")
    pairs = ((h.text("system"), h.text("value")) for h in holders)
    return frozenset(pair for pair in pairs if all(pair))


def _sort(given: Iterable[Any], candidates: Candidates, sorting: _Sorting) -> Candidates:
    """Decide for every resource why it is not read; return those that are."""
    for candidate in candidates.values():
        sorting.ai_targets.update(map(sorting.chart.references.resolve, candidate.ai_targets))
    if sorting.policy.departments:
        _find_closed_encounters(given, candidates, sorting)
    chart, readable = sorting.chart, dict(candidates)
    for candidate, element in _elements(given, candidates, chart.notes):
        reason, reference = _reason(candidate, element, sorting), candidate.version.reference
        if reason in (OWN_OUTPUT, RESTRICTED, ENTERED_IN_ERROR):
            chart.hidden.add(reference)
        elif reason in ("", SUPPORTING_ONLY):
            chart.readable[reference] = what_it_lends(element.raw)
            _label(candidate, element, sorting)
        if reason:
            del readable[candidate.place]
            _put_aside(candidate, reason, sorting)
        candidate.rests_on = _rests_on(element, candidate.kind)
    for candidate in list(readable.values()):
        if candidate.rests_on and chart.references.resolve(plain(candidate.rests_on)) in chart.hidden:
            # A medication order names its drug by a resource that may not show.
            chart.hidden.add(candidate.version.reference)
            chart.readable.pop(candidate.version.reference, None)
            del readable[candidate.place]
            sorting.skip(candidate, RESTRICTED)
    for candidate in _with_additions(given, sorting):
        chart.hidden.discard(candidate.version.reference)
        readable[candidate.place] = candidate
        sorting.ours.discard(candidate.place)
    sorting.supporting = without_ours_alone(
        given, candidates, sorting.ours, sorting.supporting, chart.references.resolve
    )
    return readable


def _put_aside(candidate: _Candidate, reason: str, sorting: _Sorting) -> None:
    if reason == OWN_OUTPUT:
        sorting.ours.add(candidate.place)
    if reason == OWN_OUTPUT and candidate.kind == "DocumentReference":
        sorting.drafts[candidate.place] = candidate
        return
    if reason == SUPPORTING_ONLY:
        sorting.supporting[candidate.place] = candidate.version
    sorting.skip(candidate, reason)


def _with_additions(given: Iterable[Any], sorting: _Sorting) -> Iterator[_Candidate]:
    """Read what an AI wrote into the chart; yield the attested documents to which a person added words."""
    if not sorting.drafts:
        return
    for candidate, element in _elements(given, sorting.drafts, set()):
        try:
            draft = read_draft(element, Reading(sorting.chart, element, candidate.version))
        except Exception:  # as a reader's bug: the document is no evidence anyway
            sorting.chart.notes.add(f"{candidate.kind}: {READER_FAILED}")
            sorting.skip(candidate, OWN_OUTPUT)
            continue
        sorting.echo.add(draft)
        reason = _barred(candidate, element, security_codes(element), sorting)
        if draft.has_addition and not reason:
            _label(candidate, element, sorting)
            yield candidate
            continue
        sorting.skip(candidate, OWN_OUTPUT)
        if is_attested(element) and not draft.attested_by:
            sorting.chart.notes.add(f"{candidate.kind}: {ATTESTED_AI}")


def _elements(
    given: Iterable[Any], candidates: Candidates, notes: set[str]
) -> Iterator[tuple[_Candidate, Element]]:
    for place, raw in enumerate(given):
        candidate = candidates.get(place)
        if candidate is not None:
            yield candidate, _element(raw, candidate.kind, notes)


def _reason(candidate: _Candidate, element: Element, sorting: _Sorting) -> str:
    """Return why a resource is not read for facts; empty where it is."""
    kind = candidate.kind
    is_supporting = _is_supporting(kind, element)
    if kind in ADMINISTRATIVE or (kind == "Consent" and not is_directive_consent(element)):
        return ADMINISTRATIVE_ONLY
    if not is_supporting and kind not in READERS:
        return UNSUPPORTED_TYPE
    labels, resolve = security_codes(element), sorting.chart.references.resolve
    if is_ai_output(element, candidate.version.reference, labels, sorting.ai_targets, resolve):
        return OWN_OUTPUT
    return _barred(candidate, element, labels, sorting) or (SUPPORTING_ONLY if is_supporting else "")


def _barred(candidate: _Candidate, element: Element, labels: tuple[Code, ...], sorting: _Sorting) -> str:
    """Return why a resource of a type that is read may not be; empty where it may."""
    if not _is_supporting(candidate.kind, element):
        misplaced = _misplaced(candidate, element, sorting)
        if misplaced:
            return misplaced
    if is_entered_in_error(element):
        return ENTERED_IN_ERROR
    if not sorting.policy.keep_restricted and (
        is_restricted(labels, sorting.policy.allowed_labels)
        or _is_site_restricted(candidate, element, sorting)
    ):
        return RESTRICTED
    return ""


def _label(candidate: _Candidate, element: Element, sorting: _Sorting) -> None:
    """Give a resource that is read the labels that whatever rests on it must carry (SAFETY 20)."""
    policy = sorting.policy
    is_listed = policy.keep_restricted and _is_site_restricted(candidate, element, sorting)
    labels = labels_to_carry(security_codes(element), policy.allowed_labels, is_restricted=is_listed)
    if labels:
        candidate.version = replace(candidate.version, security=labels)
        sorting.chart.security[candidate.version.reference] = labels


def _is_supporting(kind: str, element: Element) -> bool:
    return kind in SUPPORTING or (kind == "Device" and "patient" not in element.raw)


def _misplaced(candidate: _Candidate, element: Element, sorting: _Sorting) -> str:
    """Return why a resource is not this patient's (SAFETY 1); empty where its subject is this patient."""
    if not sorting.chart.patient:
        return NO_PATIENT
    if candidate.kind == "Patient":
        return "" if candidate.version.reference == sorting.chart.patient else OTHER_PATIENT
    holders = [element.child(key) for key in _SUBJECT_KEYS if element.raw.get(key)]
    if not holders:
        element.note(WITHOUT_SUBJECT)
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


def _find_closed_encounters(given: Iterable[Any], candidates: Candidates, sorting: _Sorting) -> None:
    for candidate, element in _elements(given, candidates, sorting.chart.notes):
        departments, resolve = sorting.policy.departments, sorting.chart.references.resolve
        if candidate.kind == "Encounter" and is_in_department(element, departments, resolve):
            sorting.closed_encounters.add(candidate.version.reference)


def _is_site_restricted(candidate: _Candidate, element: Element, sorting: _Sorting) -> bool:
    policy = sorting.policy
    if policy.note_types and candidate.kind in ("DocumentReference", "DiagnosticReport"):
        concepts = [c for key in ("type", "category", "code") for c in element.concepts(key)]
        if any(concept.has(policy.note_types) for concept in concepts):
            return True
    if not policy.departments:
        return False
    resolve = sorting.chart.references.resolve
    return (
        is_in_department(element, policy.departments, resolve)
        or _encounter_of(element, sorting) in sorting.closed_encounters
    )


def _encounter_of(element: Element, sorting: _Sorting) -> str:
    context = element.child("context")
    reference = element.reference("encounter") or context.reference("encounter") or context.text("reference")
    own = own_reference(element.raw) if element.text("resourceType") == "Encounter" else ""
    return sorting.chart.references.resolve(reference) if reference else own


def _rests_on(element: Element, kind: str) -> str:
    if not kind.startswith("Medication") or element.concept("medicationCodeableConcept").name:
        return ""
    return element.reference("medicationReference")


def _read_all(
    given: Iterable[Any], readable: Candidates, sorting: _Sorting
) -> tuple[list[Fact], list[ResourceVersion]]:
    facts: list[Fact] = []
    kept: list[ResourceVersion] = []
    for candidate, element in _elements(given, readable, sorting.chart.notes):
        found = _read(candidate, element, sorting.chart)
        if found:
            facts.extend(found)
            kept.append(candidate.version)
        else:
            element.note(UNREADABLE)
            sorting.skip(candidate, NO_STATEMENT)
    return facts, kept


def _read(candidate: _Candidate, element: Element, chart: Chart) -> list[Fact]:
    try:
        reading = Reading(chart, element, candidate.version)
        facts = list(READERS[candidate.kind](element, reading))
    except Exception:  # a reader's bug must cost one resource, said aloud, and not the patient's whole record
        element.note(READER_FAILED)
        return []
    return _with_lent(facts, reading) if reading.lent_security else facts


def _with_lent(facts: list[Fact], reading: Reading) -> list[Fact]:
    """A name that a labelled resource lent brings its label along."""
    labels = highest_labels((*reading.version.security, *reading.lent_security))
    source = replace(reading.version, security=labels)
    return [replace(fact, source=source) for fact in facts]


def _place(fact: Fact) -> tuple[Any, ...]:
    when = fact.when
    times = (when.earliest.timestamp(), when.latest.timestamp()) if when else (float("-inf"), float("-inf"))
    base, _, number = fact.id.partition("#")
    return _KIND_ORDER[fact.kind], *times, base, fact.span or (0, 0), int(number) if number.isdecimal() else 1


def _inputs(kept: list[ResourceVersion], sorting: _Sorting) -> tuple[ResourceVersion, ...]:
    """Return every version that could shape the summary: kept, supporting, and attachments fetched by url."""
    found = [*kept, *sorting.supporting.values()]
    found += [ResourceVersion(url, None, digest) for url, digest in sorting.chart.binary_reads.items()]
    return tuple(sorted(found, key=lambda v: (v.reference, v.version or "", v.digest)))
