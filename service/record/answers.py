"""QuestionnaireResponse, ClinicalImpression and RiskAssessment → answers and assessments, as recorded."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.dates import on_day, span
from service.record.facts import Fact, Kind
from service.record.fhirjson import Element
from service.record.reading import Details, Reading, clause, kept, line, tell, words
from service.record.statuses import RESULT, read_status
from service.record.values import read_value


def read_answers(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield one fact for each answered question."""
    standing = read_status(resource, "status", RESULT)
    authored = reading.past(resource, "authored")
    author = reading.name_of(resource.child("author")) or reading.name_of(resource.child("source"))
    said = "" if standing.recorded == "completed" else standing.words
    for item, path in _questions(resource):
        answers = [a for answer in item.children("answer") if (a := _answer(answer, reading))]
        if not answers:
            continue
        asked = item.text("text") or f"Question {item.text('linkId') or 'without text'}"
        value = ", ".join(answers)
        part_of = " / ".join(p for p in path if p)
        text = line(
            asked, words(value, f"({said})" if said else "", on_day(authored)), clause("part of", part_of)
        )
        yield reading.fact(
            Kind.SOCIAL, asked, text, status=standing.status, recorded_status=standing.recorded,
            when=authored,
            value=value, author=author, category="questionnaire", details=(("part of", part_of),),
        )  # fmt: skip


def _questions(resource: Element) -> Iterator[tuple[Element, tuple[str, ...]]]:
    """Walk items in reading order, whatever their depth, with the headings above each."""
    stack: list[tuple[Element, tuple[str, ...]]] = [
        (item, ()) for item in reversed(resource.children("item"))
    ]
    while stack:
        item, path = stack.pop()
        yield item, path
        inner = [*item.children("item"), *(i for a in item.children("answer") for i in a.children("item"))]
        stack.extend((child, (*path, item.text("text"))) for child in reversed(inner))


def _answer(answer: Element, reading: Reading) -> str:
    if "valueReference" in answer.raw:
        return reading.name_of(answer.child("valueReference"))
    return read_value(answer, "value", reading.chart.date).text


def read_impression(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield a clinician's impression: summary and findings."""
    concept = resource.concept("code")
    findings = [
        f.concept("itemCodeableConcept").name or reading.name_of(f.child("itemReference"))
        for f in resource.children("finding")
    ]
    details = kept(
        ("summary", resource.text("summary")),
        ("findings", ", ".join(f for f in findings if f)),
        ("prognosis", ", ".join(c.name for c in resource.concepts("prognosisCodeableConcept"))),
        ("description", resource.text("description")),
        ("problems", reading.names_of(resource, "problem")),
        ("note", resource.notes_text()),
    )
    if not details:
        return
    yield from _assessment(
        resource, reading, concept.name or "Clinical impression", Kind.NOTE, details=details, by="assessor"
    )


def read_risk(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield an assessed risk, with its probability as recorded."""
    predictions = [
        p for prediction in resource.children("prediction") if (p := _prediction(prediction, reading))
    ]
    details = kept(
        ("predicted", ", ".join(predictions)),
        ("condition", reading.name_of(resource.child("condition"))),
        ("mitigation", resource.text("mitigation")),
        ("note", resource.notes_text()),
    )
    if not details:
        return
    name = resource.concept("code").name or "Risk assessment"
    yield from _assessment(resource, reading, name, Kind.RESULT, details=details, by="performer")


def _prediction(prediction: Element, reading: Reading) -> str:
    outcome = prediction.concept("outcome").name
    likely = read_value(prediction, "probability", reading.chart.date).text
    degree = prediction.concept("qualitativeRisk").name
    when = read_value(prediction, "when", reading.chart.date).text
    said = ", ".join(
        p for p in (f"probability {likely}" if likely else "", degree, f"within {when}" if when else "") if p
    )
    return words(outcome, f"({said})" if said else "")


def _assessment(
    resource: Element, reading: Reading, name: str, kind: Kind, *, details: Details, by: str
) -> Iterator[Fact]:
    standing = read_status(resource, "status", RESULT)
    prefix = "occurrence" if kind is Kind.RESULT else "effective"
    start, end = reading.occurred(resource, prefix)
    when = start or reading.past(resource, "date")
    said = "" if standing.recorded in ("final", "completed") else standing.words
    head = words("assessment", f"({said})" if said else "", span(start, end) if end else on_day(when))
    text = line(name, head, *tell(details))
    yield reading.fact(
        kind, name, text, codes=resource.concept("code").codes, status=standing.status,
        recorded_status=standing.recorded, when=when, until=end, details=details, category="assessment",
        author=reading.name_of(resource.child(by)),
    )  # fmt: skip
