"""DocumentReference → note: type, date, author and, where its format is read, the whole text."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.attachments import MARKUP, PAGES, PLAIN, PORTABLE, RICH, Attached, read_attachment
from service.record.dates import show_day
from service.record.facts import Fact, Kind, Status
from service.record.fhirjson import Element
from service.record.reading import Reading, clause, line, words
from service.record.statuses import DOCUMENT, Standing, read_status


def read_document(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield one fact for each text of the document; one without a body where no text is read.

    Several contents are renderings of one document: plain text outranks HTML, and one of a kind is enough.
    """
    concept = resource.concept("type")
    name = concept.name or ", ".join(c.name for c in resource.concepts("category")) or "Document"
    attached = [read_attachment(c.child("attachment"), reading) for c in resource.children("content")]
    standing = document_standing(resource)
    when = reading.past(resource, "date") or reading.past(resource, "created")
    author = reading.names_of(resource, "author")
    for item in best_of(attached):
        title = item.title if item.title.lower() != name.lower() else ""
        text = line(
            name,
            words("note", f"dated {show_day(when)}," if when else "without date,", standing.words),
            clause("title", title),
            clause("by", author),
            clause("authenticated by", reading.name_of(resource.child("authenticator"))),
            clause("description", resource.text("description")),
            item.unread,
        )
        yield reading.fact(
            Kind.NOTE, name, text, codes=concept.codes, status=standing.status,
            recorded_status=standing.recorded,
            when=when, author=author, body=item.text,
            category=", ".join(c.name for c in resource.concepts("category")),
            details=(("title", item.title), ("description", resource.text("description")), ("format",
            item.format)),
        )  # fmt: skip


_FORMS = (PLAIN, PAGES, RICH, MARKUP, PORTABLE)
"""From what loses least of a text to what loses most: lines of a PDF are a guess."""


def _form(attached: Attached) -> int:
    return next((place for place, formats in enumerate(_FORMS) if attached.format in formats), len(_FORMS))


def document_standing(resource: Element) -> Standing:
    """Return the status of a document: superseded first, then its `docStatus`, then `current`."""
    status = read_status(resource, "status", DOCUMENT)
    if status.status is Status.INACTIVE or not resource.text("docStatus"):
        return status
    return read_status(resource, "docStatus", DOCUMENT)


def best_of(attached: list[Attached]) -> list[Attached]:
    """Return the attachments worth a fact: distinct plain texts, else the best form, else the first unread.

    The contents of one document are renderings of it: a page or a PDF beside a plain text says nothing new.
    """
    read = sorted((a for a in attached if a.text.strip()), key=_form)
    plain = [a for a in read if a.format in PLAIN]
    chosen = plain or read[:1] or attached[:1] or [Attached("", "", "", "no content recorded")]
    return list({a.text: a for a in reversed(chosen)}.values())[::-1]
