"""A StoredRun as JSON text and back, equal to what went in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from service.errors import StoreError
from service.ports import StoredRun

_TUPLE, _DECIMAL, _OBJECT = "$tuple", "$decimal", "$object"
_DECODER = msgspec.json.Decoder(StoredRun)


def encode_run(run: StoredRun) -> str:
    """Return a run as JSON text. Raises StoreError for text that is not Unicode (a lone surrogate).

    Instants are written in UTC: local mean times of the nineteenth century have offsets with seconds, which
    ISO 8601 cannot say.
    """
    plain = msgspec.to_builtins(_open_values(run, mark), builtin_types=(datetime,))
    try:
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=in_utc)
        text.encode()
    except (ValueError, TypeError):
        raise StoreError("The summary holds something that cannot be stored as text.") from None
    return text


def decode_run(text: str) -> StoredRun:
    """Return the run of a JSON text. Raises StoreError where this version cannot read it."""
    try:
        return _open_values(_DECODER.decode(text), unmark)
    except msgspec.MsgspecError:
        raise StoreError(
            "A stored run cannot be read.", "It was written by another version of Epicrisis, or is damaged."
        ) from None


def in_utc(value: datetime) -> str:
    """Write an instant in UTC."""
    return value.astimezone(UTC).isoformat()


def _open_values(run: StoredRun, change: Callable[[Any], Any]) -> StoredRun:
    """Apply a change to the values that have no type of their own: sampling and answer schemas."""
    prompts = tuple(replace(prompt, schema=change(prompt.schema)) for prompt in run.prompts)
    return replace(run, prompts=prompts, inputs=replace(run.inputs, sampling=change(run.inputs.sampling)))


def mark(value: Any) -> Any:
    """Return a value as JSON can hold it: no tuple and no decimal, each named, so that it comes back."""
    match value:
        case tuple():
            return {_TUPLE: [mark(item) for item in value]}
        case Decimal():
            return {_DECIMAL: str(value)}
        case list():
            return [mark(item) for item in value]
        case Mapping():
            marked = {key: mark(item) for key, item in value.items()}
            return {_OBJECT: marked} if any(key.startswith("$") for key in marked) else marked
    return value


def unmark(value: Any) -> Any:
    """Return a value as it was before `mark`."""
    match value:
        case {"$tuple": list(items), **rest} if not rest:
            return tuple(unmark(item) for item in items)
        case {"$decimal": str(number), **rest} if not rest:
            return Decimal(number)
        case {"$object": dict(items), **rest} if not rest:
            return {key: unmark(item) for key, item in items.items()}
        case list():
            return [unmark(item) for item in value]
        case dict():
            return {key: unmark(item) for key, item in value.items()}
    return value
