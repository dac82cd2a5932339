"""Text out of every format: what is read, and what is refused with which words."""

from __future__ import annotations

import base64

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.record.attachments import READABLE
from service.texts.formats import Partial, Unreadable, text_of
from tests.conftest import CANARY
from tests.unit.texts import portables

PDF, RTF, HTML, XML, CDA = (
    "application/pdf", "text/rtf", "text/html", "application/xml", "application/hl7-cda+xml",
)  # fmt: skip


def read(content: bytes | str, declared: str) -> str:
    data = content.encode() if isinstance(content, str) else content
    return text_of(data, declared.partition(";")[0], declared)


def refusal(content: bytes | str, declared: str) -> str:
    with pytest.raises(Unreadable) as caught:
        read(content, declared)
    assert caught.value.sentence == f"text not read ({caught.value.reason})"
    return caught.value.reason


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<h1>A</h1><p>b<br/>c</p>", "A\nb\nc"),
        ("<table><tr><td>K</td><td>4.1</td></tr></table>", "K\t4.1"),
        ("<table><tr><th></th><th>High</th></tr>\n<tr> <td> <p>K</p> </td> <td></td><td>x</td></tr></table>",
         "\tHigh\nK\t\tx"),
        ("<tr><td><p>one</p><p>two</p></td></tr>after", "one\ntwo\nafter"),
        ("<table><tr><td>a<table><tr><td>b</td><td>c</td></tr></table></td><td>d</td></tr></table>",
         "a\nb\tc\td"),
        ("<style>p{}</style>a<script>b()</script>c<template>d</template>", "ac"),
        ("<script/>shown", "shown"),
        ("<script src='x'/><title/>shown", "shown"),
        ("<p>a &lt; b &amp; c &eacute;</p>", "a < b & c é"),
        ("five <b>mg</b> daily", "five mg daily"),
        ("One&nbsp;<b>two</b>", "One two"),
        ("</script>a</style>", "a"),
        ("<pre>one\ntwo</pre>three\nfour", "one\ntwo\nthree four"),
        ("platelets 10<sup>9</sup>/L, SpO<sub>2</sub>", "platelets 10⁹/L, SpO2"),
        ("a<sup>th</sup>", "ath"),
        ("a<![odd[b", "a<![odd[b"),
        ("a<![odd[b>c", "a<![odd[b>c"),
        ("a<![CDATA[b < c]]>d", "ab < cd"),
        ("<!--[if mso]>x<![endif]-->y<![if !mso]>z<![endif]>", "yz"),
        ("BP <90 and >50, K <3.5", "BP <90 and >50, K <3.5"),
        ("<p>half <b", "half <b"),
        ("<select><option>yes<option>no</select>", "yes\nno"),
        ("", ""),
    ],
)  # fmt: skip
def test_text_of_a_page(page: str, text: str) -> None:
    assert read(page, HTML) == text
    assert read(page, "application/xhtml+xml") == text


def test_a_page_too_deep_for_the_parser_loses_no_text() -> None:
    page = "<div>" * 300 + "deep<script>no</script><!-- a > b -->" + "</div>" * 300 + "<p>end &eacute; <b"
    assert read(page, HTML) == "deep\nend é <b"
    assert read("<font>word " * 20_000, HTML).split() == ["word"] * 20_000


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        ("<p>5 µg €".encode(), HTML),
        ("<p>5 µg €".encode("iso-8859-15"), "text/html; Charset=ISO-8859-15"),
        ("<p>5 µg €".encode("cp1252"), HTML),
        ("<p>5 µg €".encode("utf-16"), HTML),
        ("<p>5 µg €".encode("utf-16-le"), "text/html; charset=UTF-16LE"),
        ("<p>5 µg €".encode("utf-16-be"), HTML),
        ("<meta charset='iso-8859-15'><p>5 µg €".encode("iso-8859-15"), HTML),
        ("<meta charset='utf-16'><p>5 µg €".encode(), HTML),
        ("<meta charset='koi8-r'><p>5 µg €".encode("cp1252"), "text/html; charset=windows-1252"),
        ("<?xml version='1.0' encoding='iso-8859-15'?><p>5 µg €</p>".encode("iso-8859-15"), XML),
        ("<?xml version='1.0' encoding='UTF-16'?><p>5 µg €</p>".encode("utf-16"), XML),
        ("<?xml version='1.0' encoding='klingon'?><p>5 µg €</p>".encode(), XML),
        ("<?xml version='1.0' encoding='utf-8'?><p>5 µg €</p>".encode("iso-8859-15"),
         "text/xml; charset=iso-8859-15"),
    ],
)  # fmt: skip
def test_pages_and_xml_are_read_in_their_character_set(content: bytes, declared: str) -> None:
    assert read(content, declared) == "5 µg €"


CHART = f"""<?xml version="1.0"?><?xml-stylesheet href="CDA.xsl"?>
<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:sdtc="urn:hl7-org:sdtc">
 <title>not a section's</title>
 <recordTarget><patientRole><patient><name><family>{CANARY}</family></name></patient></patientRole>
 </recordTarget>
 <component><structuredBody>
  <component><section><code displayName="no narrative"/>
   <title>Results
     &amp; more</title>
   <text><table><thead><tr><th>Test</th><th>Value</th></tr></thead>
    <tbody><tr ID="r1"><td>K</td><td><content>4.1</content> mmol/L</td></tr></tbody></table>
    <paragraph>Stable<br/>since May</paragraph></text>
   <entry><observation><text>coded, not narrative</text></observation></entry>
   <component><section><title>Imaging</title><text>No acute
      finding.</text></section></component>
  </section></component>
  <component><section><title>Plan</title><text><list><caption>Do</caption><item>aspirin</item>
   <item>walk <content revised="delete">not</content> daily</item></list></text></section></component>
 </structuredBody></component>
</ClinicalDocument>"""


@pytest.mark.parametrize("media", [CDA, "application/cda+xml", "text/xml", XML])
def test_the_sections_of_a_c_cda_in_their_order(media: str) -> None:
    assert read(CHART, media).split("\n") == [
        "Results & more", "Test\tValue", "K\t4.1 mmol/L", "Stable", "since May",
        "Imaging", "No acute finding.", "Plan", "Do", "aspirin", "walk daily",
    ]  # fmt: skip


def unstructured(body: str, attributes: str) -> str:
    text = f"<text {attributes}>{body}</text>"
    return f"<ClinicalDocument><component><nonXMLBody>{text}</nonXMLBody></component></ClinicalDocument>"


def test_the_body_of_a_cda_may_be_another_document() -> None:
    inner = base64.encodebytes(portables.of_lines("Cough")).decode()
    assert read(unstructured(inner, 'mediaType="application/pdf" representation="B64"'), CDA) == "Cough"
    assert read(unstructured("5 µg", 'mediaType="text/plain"'), CDA) == "5 µg"
    nested = base64.b64encode(unstructured("x", 'mediaType="text/plain"').encode()).decode()
    assert refusal(unstructured(nested, f'mediaType="{CDA}" representation="B64"'), CDA) == "format not known"
    broken = unstructured("A", 'mediaType="text/html" representation="B64"')
    assert refusal(broken, CDA) == "broken body of a CDA document"


def test_all_text_of_other_xml() -> None:
    note = (
        "<note to='x'><a>Ann</a><b>B</b><c>five <i>mg</i> daily</c><!-- c --><d><![CDATA[1 < 2]]></d></note>"
    )
    assert read(note, XML) == "Ann\nB\nfive mg daily\n1 < 2"


BOMB = (
    '<!DOCTYPE b [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {n} "{f"&{p};" * 10}">' for p, n in zip("abcdefghi", "bcdefghij", strict=True))
    + "]><b>&j;</b>"
)


@pytest.mark.parametrize(
    ("document", "reasons"),
    [
        (BOMB, ("XML with entities of its own", "broken XML")),
        (
            '<!DOCTYPE b [<!ENTITY e SYSTEM "file:///etc/hostname">]><b>&e;</b>',
            "XML with entities of its own",
        ),
        ("<a>cut <b", ("broken XML",)),
        ("<a>" * 300 + "</a>" * 300, ("broken XML",)),
        (CHART[: len(CHART) // 2], ("broken XML",)),
        ("", ("broken XML",)),
        ("no markup", ("broken XML",)),
    ],
)
def test_xml_that_is_refused(document: str, reasons: tuple[str, ...]) -> None:
    assert refusal(document, XML) in reasons


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (rb"{\rtf1\ansi\ansicpg1252 caf\'e9 5 \u181?g\par next}", "café 5 µg\nnext"),
        (rb"{\rtf1\ansi\ansicpg1251 \'ea\'e0\'f8\'e5\'eb\'fc}", "кашель"),
        (rb"{\rtf1\ansi \u-10179?\u-8704?}", "😀"),
        (rb"{\rtf1\ansi \u-10179?alone}", "\ufffdalone"),
        (rb"{\rtf1\trowd\cellx100 K\cell 4.1\cell\row after}", "K\t4.1\t\nafter"),
        (rb"{\rtf1 \{a\}\\cell\~b}", "{a}\\cell\xa0b"),
        ("{\\rtf1\\ansi Übelkeit 😀}".encode(), "Übelkeit 😀"),
        ("{\\rtf1\\ansi Übelkeit}".encode("cp1252"), "Übelkeit"),
        (rb"{\rtf1{\fonttbl{\f0 Arial;}}{\*\generator x;}{\info{\author y}}text}" + b"\0\r\n", "text"),
    ],
)
def test_text_of_rtf(source: bytes, text: str) -> None:
    assert read(source, RTF) == text
    assert read(source, "application/rtf; charset=us-ascii") == text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (rb"{\rtf1\ansi cut off {\b here", "broken RTF"),
        (rb"{\rtf1 \u99999999?}", "broken RTF"),
        (b"plain", "not RTF, although recorded as such"),
        (b"", "not RTF, although recorded as such"),
    ],
)
def test_rtf_that_is_refused(source: bytes, reason: str) -> None:
    assert refusal(source, RTF) == reason


def test_text_of_a_pdf() -> None:
    assert (
        read(portables.of_lines("Übelkeit (5 mg)\nK 4.1", "page two"), PDF)
        == "Übelkeit (5 mg)\nK 4.1\npage two"
    )


def test_a_hyphen_at_the_end_of_a_line_of_a_pdf_stays() -> None:
    text = read(portables.of_lines("dose 10-\n20 mg, anti-\ncoagulant"), PDF)
    assert text.replace("\n", "") == "dose 10-20 mg, anti-coagulant"


def test_what_was_filled_into_the_form_of_a_pdf_is_read() -> None:
    assert read(portables.form("81mg"), PDF) == "Dose\n81mg"


def test_what_was_written_over_the_page_of_a_pdf_is_read() -> None:
    assert read(portables.form("81mg").replace(b"/AcroForm", b"/Nothing_"), PDF) == "Dose\n81mg"


SELF_DRAWN = portables.pages(
    portables.stream(b"/X Do"), page=b"/Resources << /XObject << /X 6 0 R >> /Font << /F1 3 0 R >> >>",
    more=[portables.stream(b"/X Do " + portables.shown("looped"),
          b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << /XObject << /X 6 0 R >>"
          b" /Font << /F1 3 0 R >> >>")],
)  # fmt: skip
LOOPED = portables.pdf(
    [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [2 0 R] /Count 9 /Parent 2 0 R >>"]
)


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        (portables.locked(), ("encrypted PDF",)),
        (portables.pages(portables.stream(b"0 0 m 100 100 l S")), ("PDF without text, perhaps scanned",)),
        (portables.of_lines("cut")[:200], ("broken PDF",)),
        (b"%PDF-1.7\n", ("broken PDF",)),
        (b"", ("broken PDF",)),
        (LOOPED, ("broken PDF", "PDF without pages", "PDF without text, perhaps scanned")),
    ],
)
def test_a_pdf_that_is_refused(content: bytes, reasons: tuple[str, ...]) -> None:
    assert refusal(content, PDF) in reasons


def test_pages_that_are_pictures_are_counted_and_blank_ones_are_not() -> None:
    cover, drawn = portables.stream(portables.shown("cover")), portables.stream(b"0 0 m 100 100 l S")
    with pytest.raises(Partial) as caught:
        read(portables.pages(cover, drawn, drawn), PDF)
    assert caught.value.text.strip() == "cover"
    assert caught.value.sentence == "text read in part (2 of 3 pages without text, perhaps scanned)"
    assert read(portables.pages(cover, portables.stream(b"")), PDF).strip() == "cover"


def test_a_drawing_that_draws_itself_ends() -> None:
    assert set(read(SELF_DRAWN, PDF).split()) == {"looped"}


def test_a_stream_that_swells_ends() -> None:
    swollen = portables.pages(portables.deflated(portables.shown("tiny") + b" " * 30_000_000))
    assert read(swollen, PDF) == "tiny"


@pytest.mark.parametrize(
    "flood",
    ["<![", "<!", "<a ", "<", "</", "<b>", "<!--", "&", "<p>", "<table><td>", "<![CDATA[", "<tr>", "{", "\\",
     "<script>", "<sup>", "\\u1", "{\\b "],
)  # fmt: skip
@pytest.mark.parametrize(("media", "head"), [(HTML, ""), (XML, ""), (CDA, "<a>"), (RTF, "{\\rtf1")])
def test_floods_of_markup_end_soon(flood: str, media: str, head: str) -> None:
    try:
        read(head + flood * 20_000, media)
    except Unreadable:
        assert media != HTML


@pytest.mark.parametrize(
    ("content", "media"),
    [(CHART.encode(), CDA), (portables.of_lines("a", "b"), PDF), (rb"{\rtf1 {\b a}\'e9\u99?}", RTF)],
)
def test_nothing_truncated_passes_for_whole(content: bytes, media: str) -> None:
    whole = read(content, media)
    for size in range(0, len(content) - 8, max(1, len(content) // 60)):
        try:
            assert read(content[:size], media) == whole
        except Unreadable:
            continue


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(alphabet="<>![]-/&;ascriptdu\"'=\\{}0x \n", max_size=80).map(str.encode),
    ),
    st.sampled_from([b"", b"%PDF-1.7\n", b"{\\rtf1", b"<ClinicalDocument>", b"<p>", b"\xff\xfe"]),
    st.sampled_from([*sorted(READABLE), "image/png"]),
    st.sampled_from(["", "; charset=utf-16", "; charset=idna", "; charset=\u00e9"]),
)
def test_random_bytes_raise_nothing_but_unreadable(
    content: bytes, head: bytes, media: str, parameters: str
) -> None:
    try:
        text = text_of(head + content, media, media + parameters)
    except Unreadable:
        return
    text.encode("utf-8")
    assert "\0" not in text
    assert "\r" not in text
