"""JSON in and out of FHIR, with decimals as recorded: 6.10 stays 6.10 (R4, datatypes: decimal precision).

Reading is lenient where a resource would otherwise vanish with its whole page: a byte order mark, bytes that
are not UTF-8, lone surrogates and raw control characters are read, with U+FFFD for what no text can hold.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import msgspec

from connectors.errors import BrokenJson

_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_CANONICAL = msgspec.json.Encoder(decimal_format="number", order="sorted")

LARGE_BYTES = 256 * 1024
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_INTEGER_DIGITS = 4_000
"""Longer integers are read as Decimal: Python refuses to turn them into an int."""


def decode(data: bytes) -> Any:
    """Return the JSON value: int, Decimal for every number with a fraction or exponent, str, dict, list.

    Raises BrokenJson for what is no JSON, or is nested too deeply.
    """
    if data.startswith(_BOM):
        data = data[len(_BOM) :]
    try:
        with collector_paused(len(data) >= LARGE_BYTES):
            return _DECODER.decode(data)
    except RecursionError:
        raise BrokenJson("The answer is nested too deeply to be read.") from None
    except (msgspec.MsgspecError, ValueError, ArithmeticError):
        return _decode_damaged(data)


@contextmanager
def collector_paused(is_large: bool) -> Iterator[None]:
    """Keep the garbage collector out of work that only builds, where there is much to build.

    It walks all that was built so far again and again: a third of the time that one chart of 6 MB took.
    """
    if not is_large or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def encode(value: Any) -> bytes:
    """Return compact JSON in the order of the dicts; Decimals become numbers with every digit kept.

    Raises ValueError for what JSON cannot hold (NaN, infinity, lone surrogates, endless nesting).
    """
    return _encode(_ENCODER, value)


def canonical(value: Any) -> bytes:
    """Return compact JSON with sorted keys, the same for equal values: what digests are made of."""
    return _encode(_CANONICAL, value)


def dicts(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a JSON array, leaving out everything else; none where it is no array."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _encode(encoder: msgspec.json.Encoder, value: Any) -> bytes:
    try:
        data = encoder.encode(value)
    except (RecursionError, UnicodeEncodeError, TypeError, ValueError, OverflowError):
        raise ValueError("the value cannot be written as JSON") from None
    if b"NaN" in data or b"Infinity" in data:
        _refuse_nan(value)
    return data


def _refuse_nan(value: Any) -> None:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, list | tuple):
            todo.extend(item)
        elif isinstance(item, Decimal) and not item.is_finite():
            raise ValueError("the value cannot be written as JSON")


def _decode_damaged(data: bytes) -> Any:
    text = data.decode("utf-8", errors="replace")
    try:
        value = json.loads(
            text, strict=False, parse_float=Decimal, parse_int=_integer, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise BrokenJson("The answer is nested too deeply to be read.") from None
    except (ValueError, ArithmeticError):
        raise BrokenJson("The answer is not valid JSON; it may be cut off.") from None
    return _without_surrogates(value)


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else Decimal(digits)


def _refuse_constant(_name: str) -> Any:
    raise ValueError("JSON has no such number")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value
