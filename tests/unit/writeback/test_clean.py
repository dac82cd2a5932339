"""Odd characters are spelled out, never dropped."""

from __future__ import annotations

import re
import time
import unicodedata
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.writeback.clean import clean, one_line

ANY_TEXT = st.text(st.characters())


@given(ANY_TEXT)
def test_what_was_cleaned_is_legal_xml_and_stays_the_same(text: str) -> None:
    cleaned = clean(text)
    assert ElementTree.fromstring(f"<p>{escape(cleaned)}</p>".encode()).text in (cleaned, None)
    assert clean(cleaned) == cleaned


@given(ANY_TEXT)
def test_one_line_is_one_line_without_controls(text: str) -> None:
    line = one_line(text)
    assert line == line.strip()
    assert not [c for c in line if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert len(line.splitlines()) <= 1


@pytest.mark.parametrize("code", [0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
def test_every_direction_control_is_spelled_out(code: int) -> None:
    assert clean(f"5{chr(code)}0 mg") == f"5[U+{code:04X}]0 mg"


@pytest.mark.parametrize(
    ("given_text", "cleaned"),
    [
        ("1\x002 mg", "1[U+0000]2 mg"),
        ("a\ud800b", "a[U+D800]b"),
        ("a\ufffeb", "a[U+FFFE]b"),
        ("a\x85b\x9bc", "a[U+0085]b[U+009B]c"),
        ("a\U000e0041", "a[U+E0041]"),
        ("zero\u200bwidth", "zero[U+200B]width"),
        ("a\r\nb\rc\u2028d\u2029e\nf", "a\nb\nc\nd\ne\nf"),
        ("نیم\u200cفاصله", "نیم\u200cفاصله"),
        ("tab\tstays", "tab\tstays"),
        ("µg/dL ≥ 3 \U0001f9ec", "µg/dL ≥ 3 \U0001f9ec"),
    ],
)
def test_what_becomes_of(given_text: str, cleaned: str) -> None:
    assert clean(given_text) == cleaned


def test_a_line_break_cannot_make_a_new_line_of_the_document() -> None:
    assert one_line(" a \r\n \n  AI-GENERATED\tDRAFT ") == "a AI-GENERATED DRAFT"
    assert re.search(r"\s\s", one_line("a\n\n\nb")) is None


def test_a_megabyte_of_white_space_takes_no_time() -> None:
    start = time.perf_counter()
    assert len(one_line("a" + " \t" * 500_000 + "b" + "\n" * 500_000 + "c")) == 1_000_004
    assert time.perf_counter() - start < 20  # a quadratic search would take hours
