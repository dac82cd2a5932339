"""DiagnosticReport → report: its conclusion, what it lists, and its text."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.attachments import Attached, read_attachment
from service.record.dates import on_day, span
from service.record.documents import best_of
from service.record.facts import Fact, Kind, Status
from service.record.fhirjson import Element
from service.record.reading import Reading, clause, kept, line, words
from service.record.statuses import RESULT, read_status


def read_report(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the statement of a DiagnosticReport; a second one for each further text it carries."""
    concept = resource.concept("code")
    name = reading.name_or_narrative(concept.name) or "Report"
    standing = read_status(resource, "status", RESULT)
    start, end = reading.occurred(resource, "effective")
    issued = reading.past(resource, "issued")
    when = start or issued
    attached = [read_attachment(form, reading) for form in resource.children("presentedForm")]
    texts: list[Attached | None] = [*best_of(attached)] if attached else [None]
    details = _details(resource, reading)
    author = reading.names_of(resource, "resultsInterpreter") or reading.names_of(resource, "performer")
    counted = len(resource.children("result"))
    head = words("report,", standing.words, span(start, end) if end else on_day(when))
    cancelled = standing.status is Status.CANCELLED
    for item in texts:
        text = line(
            name,
            head,
            *(clause(label, value) for label, value in details if label != "results"),
            f"{counted} result{'' if counted == 1 else 's'} listed" if counted and not cancelled else "",
            clause("by", author),
            item.unread if item else "",
        )
        yield reading.fact(
            Kind.REPORT, name, text, codes=concept.codes, status=standing.status,
            recorded_status=standing.recorded,
            when=when, until=end, author=author, details=details, body=item.text if item else "",
            category=", ".join(c.name for c in resource.concepts("category")),
        )  # fmt: skip


def _details(resource: Element, reading: Reading) -> tuple[tuple[str, str], ...]:
    codes = [c.name for c in resource.concepts("conclusionCode")] or [
        c.name for c in resource.concepts("codedDiagnosis")
    ]
    return kept(
        ("conclusion", resource.text("conclusion")),
        ("coded conclusion", ", ".join(codes)),
        ("results", reading.names_of(resource, "result")),
        ("note", resource.notes_text()),
    )
