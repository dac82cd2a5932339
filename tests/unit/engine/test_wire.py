"""What one line of a streamed answer means."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.prompt import Message, Usage
from service.engine.wire import (
    BrokenAnswerError,
    chat_messages,
    error_of,
    read_chunk,
    read_usage,
    split_lines,
)
from service.errors import EngineError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "usage", "finish_reason", "prompt_tokens"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


async def blocks(*content: bytes) -> AsyncIterator[bytes]:
    for block in content:
        yield block


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
async def test_lines_do_not_depend_on_how_the_bytes_came(data: bytes, cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(data)]
    cut = [data[start:end] for start, end in itertools.pairwise(bounds)]
    assert [line async for line in split_lines(blocks(*cut))] == [
        line async for line in split_lines(blocks(data))
    ]


async def test_an_endless_line_is_given_up() -> None:
    with pytest.raises(BrokenAnswerError):
        async for _ in split_lines(blocks(*[b"x" * 1_000_000] * 6)):
            pass


@given(JSON)
def test_any_json_object_is_read_or_refused_in_our_own_words(event: object) -> None:
    import msgspec

    try:
        chunk = read_chunk("data: " + msgspec.json.encode(event).decode())
    except BrokenAnswerError:
        return
    assert chunk is not None
    assert isinstance(chunk.text, str)


@pytest.mark.parametrize("line", ["", ": ping", "event: message", "retry: 3", "id: 7"])
def test_lines_that_are_no_data_say_nothing(line: str) -> None:
    assert read_chunk(line) is None


def test_usage_reads_cached_tokens_where_they_are_reported() -> None:
    reported = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    assert read_usage(reported) == Usage(9, 2, 4)
    assert read_usage({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": None}) == Usage(
        9, 2, 0
    )
    assert read_usage(None) is None


def test_a_chat_of_a_system_turn_alone_becomes_a_user_turn() -> None:
    assert chat_messages((Message("system", "Rules."),), fold_system=True) == [
        {"role": "user", "content": "Rules."}
    ]


def test_a_reasoning_token_is_a_token_and_no_text() -> None:
    chunk = read_chunk('data: {"choices": [{"delta": {"reasoning_content": "hm"}}]}')
    assert chunk is not None
    assert (chunk.text, chunk.is_token) == ("", True)


@pytest.mark.parametrize(("code", "passing"), [(400, False), (500, True), ("odd", True), (None, True)])
def test_a_refusal_inside_the_stream_is_final_and_a_breakdown_is_not(code: object, passing: bool) -> None:
    error = json.dumps({"error": {"message": "Zzyzxcanary grammar", "code": code}})
    with pytest.raises(EngineError) as caught:
        read_chunk("data: " + error)
    assert isinstance(caught.value, BrokenAnswerError) == passing
    assert "Zzyzxcanary" not in caught.value.message + caught.value.advice


def test_an_event_that_only_opens_the_turn_is_no_token() -> None:
    chunk = read_chunk('data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}')
    assert chunk is not None
    assert not chunk.is_token


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 418, 422, 429, 500, 502, 503, 504])
def test_no_error_repeats_what_the_server_said(status: int) -> None:
    error = error_of(status, "Zzyzxcanary context length priority schema", "Zzyzxcanary", True)
    assert "Zzyzxcanary" not in f"{error.message} {error.advice} {error!r}"
    assert isinstance(error, BrokenAnswerError) == (status in (429, 500, 502, 503, 504))
