"""PDFs by hand, as small as they get."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"


def pdf(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """A file of objects 1, 2, 3…; the first is the catalog."""
    data, places = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    return (
        data
        + b"xref\n0 %d\n0000000000 65535 f \n" % count
        + table
        + b"trailer\n<< /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n" % (count, trailer, len(data))
    )


def stream(body: bytes, entries: bytes = b"") -> bytes:
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (entries, len(body), body)


def deflated(body: bytes) -> bytes:
    return stream(zlib.compress(body, 1), b"/Filter /FlateDecode")


def shown(*lines: str) -> bytes:
    """Content of a page with one line below the other."""
    rows = b"".join(b"(%s) Tj T*\n" % _escaped(line) for line in lines)
    return b"BT /F1 12 Tf 14 TL 72 720 Td\n" + rows + b"ET"


def _escaped(line: str) -> bytes:
    raw = line.encode("cp1252")
    return raw.replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def pages(*contents: bytes, page: bytes = b"", catalog: bytes = b"", more: Sequence[bytes] = ()) -> bytes:
    """A file of pages with these content streams; `more` begins at object 4 + 2 * the number of pages."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * n) for n in range(len(contents)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R %s >>" % catalog,
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(contents)),
        FONT,
    ]
    for number, content in enumerate(contents):
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> %s >>" % (5 + 2 * number, page),
            content,
        ]
    return pdf([*objects, *more])


def of_lines(*texts: str) -> bytes:
    """A file with one page for each text."""
    return pages(*(deflated(shown(*text.split("\n"))) for text in texts))


def locked() -> bytes:
    """A file whose password nobody knows."""
    junk = b"<" + b"5a" * 32 + b">"
    key = b"<< /Filter /Standard /V 1 /R 2 /P -4 /O %s /U %s >>" % (junk, junk)
    return pdf(
        [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [] /Count 0 >>"],
        b"/ID [%s %s] /Encrypt %s" % (junk, junk, key),
    )


def form(value: str) -> bytes:
    """A page with one field that was filled in."""
    field = (
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (dose) /V (%s) /F 4 /Rect [72 600 300 620] "
        b"/AP << /N 7 0 R >> >>" % value.encode()
    )
    look = stream(
        b"/Tx BMC BT /F1 12 Tf 2 4 Td (%s) Tj ET EMC" % value.encode(),
        b"/Type /XObject /Subtype /Form /BBox [0 0 228 20] /Resources << /Font << /F1 3 0 R >> >>",
    )
    return pages(
        stream(shown("Dose")), page=b"/Annots [6 0 R]", catalog=b"/AcroForm << /Fields [6 0 R] >>",
        more=[field, look],
    )  # fmt: skip
