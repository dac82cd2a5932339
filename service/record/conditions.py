"""Condition → problem: what the patient has, had, may have, or was found not to have."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.dates import labelled, span
from service.record.facts import Fact, Kind, Status, When
from service.record.fhirjson import Element
from service.record.reading import Reading, clause, kept, line, tell
from service.record.statuses import CLINICAL, Standing, read_status, standing_of
from service.record.values import read_value

_ENDED = frozenset({Status.RESOLVED, Status.INACTIVE})
"""`Remission, since` would tell since when it is in remission; what is recorded is its onset."""
_DATED = ("DateTime", "Period")


def read_condition(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the one statement of a Condition, with its clinical and verification status."""
    concept = resource.concept("code")
    name = reading.name_or_narrative(concept.name)
    if not name:
        return
    start, onset = _edge(resource, reading, "onset")
    end, abatement = _edge(resource, reading, "abatement")
    recorded = reading.past(resource, "recordedDate") or reading.past(resource, "dateRecorded")
    certainty = verification_words(resource)
    standing = clinical_standing(resource, certainty, has_ended=bool(end or abatement))
    details = _details(resource, reading)
    lived = _course(standing.status, start, end)
    said = "" if certainty in ("confirmed", "refuted") else certainty
    text = line(
        name,
        ", ".join(p for p in (standing.words, said, lived) if p),
        clause("onset", onset),
        clause("abated", abatement),
        labelled("recorded", recorded) if not lived else "",
        *tell(details),
    )
    yield reading.fact(
        Kind.PROBLEM, name, text, codes=concept.codes, status=standing.status,
        recorded_status=standing.recorded,
        certainty=certainty, when=start or recorded, until=end, details=details,
        category=", ".join(c.name for c in resource.concepts("category")),
        author=reading.name_of(resource.child("asserter")) or reading.name_of(resource.child("recorder")),
    )  # fmt: skip


def verification_words(resource: Element) -> str:
    """Return the verification status as words: `confirmed`, `provisional`… or an empty string."""
    concept = resource.concept("verificationStatus")
    return concept.code(concept.name).lower().replace("-", " ")


def clinical_standing(resource: Element, certainty: str, *, has_ended: bool) -> Standing:
    """Return the clinical status. Refuted outranks it; a recorded end speaks where it is missing."""
    if certainty == "refuted":
        return Standing(Status.REFUTED, "refuted", "refuted (recorded as not present)")
    concept = resource.concept("clinicalStatus")
    recorded = concept.code(concept.name) or resource.text("clinicalStatus")
    if not recorded and has_ended:
        return Standing(Status.RESOLVED, "", "clinical status not recorded, end recorded")
    return standing_of(recorded, CLINICAL, resource, "clinicalStatus") if recorded else _unrecorded(resource)


def _unrecorded(resource: Element) -> Standing:
    standing = read_status(resource, "clinicalStatus", CLINICAL)
    return standing._replace(words="clinical status not recorded")


def _edge(resource: Element, reading: Reading, prefix: str) -> tuple[When | None, str]:
    kind, raw = resource.choice(prefix)
    if kind in _DATED:
        start, end = reading.occurred(resource, prefix)
        return (end or start) if prefix == "abatement" else start, ""
    if kind == "Boolean":
        return None, {True: "yes, date not recorded", False: ""}.get(raw is True, "")
    if not kind:
        return None, ""
    value = read_value(resource, prefix, reading.chart.date).text
    return None, f"at age {value}" if kind in ("Age", "Range") else value


def _course(status: Status, start: When | None, end: When | None) -> str:
    if status in (Status.ACTIVE, Status.UNKNOWN, Status.INACTIVE, Status.REFUTED) and not end:
        return labelled(
            "dated" if status is Status.REFUTED else "onset" if status in _ENDED else "since", start
        )
    return span(start, end)


def _details(resource: Element, reading: Reading) -> tuple[tuple[str, str], ...]:
    stage = [
        reading_stage
        for entry in resource.children("stage")
        if (reading_stage := entry.concept("summary").name or reading.names_of(entry, "assessment"))
    ]
    evidence = [c.name for entry in resource.children("evidence") for c in entry.concepts("code")]
    return kept(
        ("severity", resource.concept("severity").name),
        ("body site", ", ".join(c.name for c in resource.concepts("bodySite"))),
        ("stage", ", ".join(stage)),
        ("evidence", ", ".join(evidence)),
        ("note", resource.notes_text()),
    )
