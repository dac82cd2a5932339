"""Notes: which text is read, what is said where none is."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.record.attachments import (
    AttachedContent,
    attached_contents,
    content_key,
    decode_text,
    read_attachment,
)
from service.record.facts import Extracted, Fact, Kind, ResourceVersion, Status
from service.record.fhirjson import Element
from service.record.reading import Chart, Reading
from service.record.references import LocatedResource, References
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
        ("text/plain", b"caf\xe9", "café"),
        ("text/plain; charset=UTF-8", b"caf\xe9", "caf\ufffd"),
        ("text/plain; charset=klingon", b"a", "a"),
        ("text/plain; charset=hex", b"6161", "6161"),
        ("text/plain; charset=Windows-1252", "it’s 5 €".encode("cp1252"), "it’s 5 €"),
        ("text/plain; charset=iso-8859-1", "it’s".encode("cp1252"), "it’s"),
        ("text/plain; charset=iso-8859-15", "5 €".encode("iso-8859-15"), "5 €"),
        ("text/plain; charset=utf-16", "5 µg".encode("utf-16"), "5 µg"),
        ("text/plain; charset=iso-8859-1", "5 µg".encode("utf-16"), "5 µg"),
        ("text/plain; charset=us-ascii", "5 µg".encode(), "5 µg"),
        ("text/plain", "5 µg\r\n".encode("utf-16-le"), "5 µg\n"),
        ("text/plain", b"a\x00b\x07\tc\rd\x0ce", "a b \tc\nd\ne"),
    ],
)
def test_text_is_read_in_its_declared_character_set(declared: str, data: bytes, text: str) -> None:
    assert note(attachment(data, declared)).body == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (attachment(b"%PDF", "application/pdf"), "text not read (format application/pdf)"),
        (attachment(b"<p>a", "text/html"), "text not read (format text/html)"),
        ({"attachment": {"contentType": "image/png"}}, "text not read (format image/png)"),
        (
            {"attachment": {"contentType": "application/pdf", "url": "Binary/none"}},
            "text not read (content not at hand)",
        ),
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
    assert [(str(f.id), f.body) for f in found if f.body] == [
        ("DocumentReference/x", "a"),
        ("DocumentReference/x#2", "b"),
    ]


def bodies(*resources: Any, **options: Any) -> list[str]:
    return [fact.body for fact in record_of(*resources, **options).facts if fact.body]


def test_fetched_content_and_binaries_of_the_chart_are_read_and_count_as_inputs() -> None:
    url = "http://ehr.invalid/fhir/Binary/7"
    content = {"attachment": {"contentType": "text/plain", "url": url}}
    document = resource("DocumentReference", content=[content])
    record = record_of(document, binaries={url: b"fetched"})
    assert [fact.body for fact in record.facts if fact.body] == ["fetched"]
    assert url in {v.reference for v in record.inputs}
    assert record.digest != record_of(document, binaries={url: b"changed"}).digest
    binary = {"resourceType": "Binary", "id": "7", "contentType": "text/plain", "data": "aW4gY2hhcnQ="}
    assert bodies(document, binary) == ["in chart"]
    untyped = resource("DocumentReference", content=[{"attachment": {"url": "Binary/7"}}])
    assert bodies(untyped, binary) == ["in chart"]
    assert bodies(untyped, {"resourceType": "Binary", "id": "7", "data": 5}) == []


def test_a_document_marked_as_withdrawn_is_skipped() -> None:
    withdrawn = resource("DocumentReference", docStatus="entered-in-error", content=[attachment(b"a")])
    assert record_of(withdrawn).skipped == {"entered_in_error": 1}


def reading_of(texts: dict[str, Extracted]) -> Reading:
    chart = Chart("Patient/1", frozenset(("Patient/1",)), References(set()), texts=texts)
    version = ResourceVersion("DocumentReference/x", None, "")
    return Reading(chart, Element({}, "DocumentReference", set()), version)


PAGE = b"<p>Cough</p>"


@pytest.mark.parametrize(
    ("declared", "extracted", "text", "said"),
    [
        ("text/html", Extracted("Cough"), "Cough", ""),
        ("text/html", Extracted("", "text not read (broken)"), "", "text not read (broken)"),
        ("text/html", Extracted(" \n"), " \n", "no text in it"),
        ("text/html", Extracted("a", "text read in part (b)"), "a", "text read in part (b)"),
        ("text/plain", Extracted("read elsewhere"), "read elsewhere", ""),
    ],
)
def test_a_text_that_was_read_outside_is_looked_up(
    declared: str, extracted: Extracted, text: str, said: str
) -> None:
    element = Element(attachment(PAGE, declared)["attachment"], "DocumentReference", set())
    attached = read_attachment(element, reading_of({content_key(PAGE, declared): extracted}))
    assert (attached.text, attached.unread, attached.format) == (text, said, declared)


def test_the_text_of_another_content_is_not_taken() -> None:
    element = Element(attachment(PAGE, "text/html")["attachment"], "DocumentReference", set())
    for key in (content_key(b"other", "text/html"), content_key(PAGE, "text/html; charset=cp1252")):
        attached = read_attachment(element, reading_of({key: Extracted("other")}))
        assert attached[:2] == ("", "text/html")
        assert attached.unread == "text not read (format text/html)"


def contents_of(*resources: Any, binaries: dict[str, bytes] | None = None) -> list[tuple[bytes, str]]:
    found = list(attached_contents(resources, binaries or {}))
    assert all(item == AttachedContent(content_key(item.content, item.declared), *item[1:]) for item in found)
    return [(item.content, item.media_type) for item in found]


def linking(url: str, **fields: Any) -> dict[str, Any]:
    return resource("DocumentReference", content=[{"attachment": {"url": url}}], **fields)


BINARY = {"resourceType": "Binary", "id": "7", "contentType": "Text/HTML; charset=utf-8", "data": "PHA+"}


@pytest.mark.parametrize(
    "url", ["Binary/7", "http://ehr.invalid/fhir/Binary/7", "Binary/7/_history/2", "urn:uuid:7"]
)
def test_every_way_to_a_binary_of_the_chart_leads_to_its_content(url: str) -> None:
    assert contents_of(linking(url), LocatedResource(BINARY, "urn:uuid:7")) == [(b"<p>", "text/html")]


def test_contained_fetched_and_inline_contents_are_all_there_once() -> None:
    report = resource(
        "DiagnosticReport", presentedForm=[attachment(b"%PDF", "application/pdf")["attachment"]]
    )
    contained = linking("#b", contained=[{**BINARY, "id": "b"}])
    fetched = resource("DocumentReference", content=[attachment("", "text/rtf", url="u")])
    repeated = resource("DocumentReference", content=[attachment(b"%PDF", "application/pdf")] * 2)
    found = contents_of(report, contained, fetched, repeated, binaries={"u": b"{}", "other": b"x"})
    assert found == [(b"%PDF", "application/pdf"), (b"<p>", "text/html"), (b"{}", "text/rtf")]


@pytest.mark.parametrize(
    "odd",
    [
        None,
        5,
        {"resourceType": "DocumentReference", "content": 5},
        {"resourceType": "DocumentReference", "content": [{"attachment": "x"}, None]},
        {"resourceType": "DiagnosticReport", "presentedForm": {"data": 5, "contentType": []}},
        {"resourceType": "DiagnosticReport", "presentedForm": {"data": "é", "contentType": "text/html"}},
        {"resourceType": "Binary", "id": [], "data": {}},
        linking("#x", contained=[5, {"id": {}}]),
        linking("Binary/none"),
        resource("DocumentReference", content=[attachment(b"x", "")]),
    ],
)
def test_odd_resources_have_no_content_and_raise_nothing(odd: Any) -> None:
    assert contents_of(odd) == []


SAMPLES = [
    ("Температура тела повышена, кашель третий день", "cp1251"),
    ("Температура тела повышена, кашель третий день", "koi8_r"),
    ("Ο ασθενής έχει πυρετό και βήχα από χθες το βράδυ", "cp1253"),
    ("患者は発熱と咳を訴えている。体温は三十八度", "shift_jis"),
    ("38 °C, 5 µg Übelkeit", "cp1252"),
    ("Señora con fiebre", "cp1252"),
]


@pytest.mark.parametrize(("text", "charset"), SAMPLES)
def test_an_undeclared_character_set_is_guessed_where_enough_speaks_for_it(text: str, charset: str) -> None:
    assert decode_text(text.encode(charset), "text/plain") == text


@pytest.mark.parametrize("charset", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_byte_order_mark_outranks_what_is_declared(charset: str) -> None:
    marked = ("\ufeff" + "5 µg").encode(charset)
    assert decode_text(marked, "text/plain; charset=koi8-r") == "5 µg"


@given(
    st.binary(max_size=200),
    st.sampled_from(["utf-8", "utf-16", "utf-7", "idna", "punycode", "undefined", "cp037", "big5", "é", "."]),
)
def test_any_bytes_in_any_character_set_give_a_text_without_controls(content: bytes, charset: str) -> None:
    text = decode_text(content, f"text/plain; charset={charset}")
    text.encode("utf-8")
    assert not [c for c in text if (c < " " and c not in "\n\t") or "\x7f" <= c < "\xa0"]
