"""JSON in and out: every digit kept, damage read as far as it can be read."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import BrokenJson
from connectors.fhir.codec import canonical, decode, encode


def test_a_decimal_keeps_its_trailing_zero() -> None:
    assert encode(decode(b'{"value":6.10}')) == b'{"value":6.10}'
    assert decode(b"6.10") == Decimal("6.10")
    assert str(decode(b"6.10")) == "6.10"


def test_numbers_beyond_64_bits_are_read() -> None:
    assert decode(b"123456789012345678901234567890") == 123456789012345678901234567890
    assert decode(b"1" * 5000) == Decimal("1" * 5000)
    assert decode(b"1E400") == Decimal("1E400")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b'["\\ud800"]', ["\ufffd"]),
        (b'["\\ud83d\\ude00"]', ["\U0001f600"]),
        (b'["caf\xe9"]', ["caf\ufffd"]),
        (b'["a\x01b"]', ["a\x01b"]),
        (b'["\\ud800", 6.10]', ["\ufffd", Decimal("6.10")]),
    ],
)
def test_damaged_text_does_not_lose_the_page(data: bytes, value: object) -> None:
    decoded = decode(data)
    assert decoded == value
    encode(decoded)


@pytest.mark.parametrize("data", [b"", b"[", b'{"a":1', b"[NaN]", b"<html>", b"[" * 100_000, b'{"a":1} x'])
def test_what_is_no_json_is_a_typed_error(data: bytes) -> None:
    with pytest.raises(BrokenJson):
        decode(data)


def test_canonical_form_ignores_key_order_but_not_digits() -> None:
    assert canonical({"b": 1, "a": {"d": 2, "c": 3}}) == canonical({"a": {"c": 3, "d": 2}, "b": 1})
    assert canonical({"a": Decimal("1.0")}) != canonical({"a": Decimal("1.00")})


@pytest.mark.parametrize("value", [Decimal("NaN"), [Decimal("Infinity")], "\ud800", object(), [10**5000]])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        encode([value])


def test_the_word_nan_in_a_text_is_fine() -> None:
    assert encode({"text": "NaN"}) == b'{"text":"NaN"}'


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.decimals(allow_nan=False, allow_infinity=False).filter(lambda d: "." in str(d)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_JSON)
def test_what_is_encoded_reads_back_the_same(value: object) -> None:
    assert decode(encode(value)) == value
    assert decode(canonical(value)) == value


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_the_typed_error(data: bytes) -> None:
    try:
        decode(data)
    except BrokenJson as error:
        assert "JSON" in error.message or "nested" in error.message  # noqa: PT017
