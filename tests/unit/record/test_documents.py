"""Notes: which text is read, what is said where none is."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.record.attachments import html_text
from service.record.facts import Fact, Kind, Status
from tests.unit.record.charts import fact_of, facts_of, named, record_of, resource


def attachment(data: bytes | str, kind: str = "text/plain", **fields: Any) -> dict[str, Any]:
    inline = base64.b64encode(data).decode() if isinstance(data, bytes) else data
    return {"attachment": {"contentType": kind, "data": inline, **fields}}


def note(*contents: dict[str, Any], **fields: Any) -> Fact:
    return fact_of("DocumentReference", type=named("Progress note"), content=list(contents), **fields)


def test_a_note_says_type_date_author_and_keeps_its_whole_text() -> None:
    text = "Chief complaint\r\n\r\nCough. " + "x" * 20_000
    fact = note(
        attachment(text.encode(), title="Ward round"),
        status="current",
        date="2020-05-04T10:00:00Z",
        author=[{"display": "Dr. Who"}],
        description="d",
        authenticator={"display": "Dr. Good"},
    )
    assert fact.text == (
        "Progress note: note dated 04-May-2020, current; title: Ward round; by: Dr. Who;"
        " authenticated by: Dr. Good; description: d"
    )
    assert fact.body == text.replace("\r\n", "\n")
    assert (fact.kind, fact.status) == (Kind.NOTE, Status.FINAL)


@pytest.mark.parametrize(
    ("status", "doc_status", "read"),
    [
        ("current", "preliminary", Status.PRELIMINARY),
        ("current", "amended", Status.CORRECTED),
        ("superseded", "final", Status.INACTIVE),
        ("current", None, Status.FINAL),
    ],
)
def test_a_notes_status(status: str, doc_status: str | None, read: Status) -> None:
    fields = {"docStatus": doc_status} if doc_status else {}
    assert note(attachment(b"a"), status=status, **fields).status is read


@pytest.mark.parametrize(
    ("declared", "data", "text"),
    [
        ("text/plain; charset=ISO-8859-1", "Übelkeit".encode("latin-1"), "Übelkeit"),
        ("text/plain; charset='utf-8'", b"\xef\xbb\xbfUTF", "UTF"),
        ("text/plain", "Übelkeit".encode(), "Übelkeit"),
        ("text/plain", b"caf\xe9", "caf\ufffd"),
        ("text/plain; charset=klingon", b"a", "a"),
        ("text/plain; charset=hex", b"6161", "6161"),
        ("text/html", b"<p>One&nbsp;<b>two</b></p><script>x()</script>", "One two"),
    ],
)
def test_text_is_read_in_its_declared_character_set(declared: str, data: bytes, text: str) -> None:
    assert note(attachment(data, declared)).body == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (attachment(b"%PDF", "application/pdf"), "text not read (format application/pdf)"),
        (attachment(b"<x/>", "application/hl7-cda+xml"), "text not read (format application/hl7-cda+xml)"),
        (attachment("!!!", "text/plain"), "text not read (content not at hand)"),
        (attachment("w6Q=é", "text/plain"), "text not read (content not at hand)"),
        (
            {"attachment": {"contentType": "text/plain", "url": "Binary/none"}},
            "text not read (content not at hand)",
        ),
        ({"attachment": {"contentType": "text/plain"}}, "text not read (content not at hand)"),
        (attachment(b"a", ""), "text not read (format not recorded)"),
        (attachment(b" \n ", "text/plain"), "no text in it"),
        ({}, "text not read (content not at hand)"),
    ],
)
def test_a_note_whose_text_is_not_read_says_so(content: dict[str, Any], said: str) -> None:
    fact = note(content)
    assert fact.text.endswith(said)
    assert fact.body == "" or not fact.body.strip()


def test_a_note_without_content_is_still_a_note() -> None:
    assert (
        fact_of("DocumentReference").text
        == "Document: note without date, status not recorded; no content recorded"
    )
    assert fact_of("DocumentReference", category=[named("Clinical Note")]).name == "Clinical Note"


def test_plain_text_outranks_html_and_repeats_count_once() -> None:
    contents = [attachment(b"<p>a</p>", "text/html"), attachment(b"a"), attachment(b"a"), attachment(b"b")]
    found = facts_of(resource("DocumentReference", content=contents))
    assert [(str(f.id), f.body) for f in found] == [
        ("DocumentReference/x", "a"),
        ("DocumentReference/x#2", "b"),
    ]


def test_fetched_content_and_binaries_of_the_chart_are_read_and_count_as_inputs() -> None:
    url = "http://ehr.invalid/fhir/Binary/7"
    content = {"attachment": {"contentType": "text/plain", "url": url}}
    document = resource("DocumentReference", content=[content])
    record = record_of(document, binaries={url: b"fetched"})
    assert record.facts[-1].body == "fetched"
    assert url in {v.reference for v in record.inputs}
    assert record.digest != record_of(document, binaries={url: b"changed"}).digest
    binary = {"resourceType": "Binary", "id": "7", "contentType": "text/plain", "data": "aW4gY2hhcnQ="}
    assert record_of(document, binary).facts[-1].body == "in chart"
    untyped = resource("DocumentReference", content=[{"attachment": {"url": "Binary/7"}}])
    assert record_of(untyped, binary).facts[-1].body == "in chart"
    assert record_of(untyped, {"resourceType": "Binary", "id": "7", "data": 5}).facts[-1].body == ""


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<h1>A</h1><p>b<br/>c</p>", "A\nb\nc"),
        ("<table><tr><td>K</td><td>4.1</td></tr></table>", "K 4.1"),
        ("<style>p{}</style>a<script>b()</script>c", "ac"),
        ("<script/>shown", "shown"),
        ("<p>a &lt; b &amp; c</p>", "a < b & c"),
        ("five <b>mg</b> daily", "five mg daily"),
        ("</script>a</style>", "a"),
        ("<pre>one\ntwo</pre>three\nfour", "one\ntwo\nthree four"),
        ("a<![odd[b", "a<![odd[b"),
        ("<p>half <b", "half <b"),
        ("", ""),
    ],
)
def test_text_of_a_page(html: str, text: str) -> None:
    assert html_text(html) == text


@given(st.text(alphabet="<>![]-/&;ascript\"'= \n", max_size=60))
def test_no_page_makes_the_reader_raise(html: str) -> None:
    html_text(html)


def test_a_document_marked_as_withdrawn_is_skipped() -> None:
    withdrawn = resource("DocumentReference", docStatus="entered-in-error", content=[attachment(b"a")])
    assert record_of(withdrawn).skipped == {"entered_in_error": 1}
