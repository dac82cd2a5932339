"""The OpenAI chat protocol as vLLM speaks it: what a request says, and what each line of the answer means.

Values only. Nothing here keeps or shows the text of a prompt.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from service.engine.prompt import PLACE, Image, Message, Prompt, Usage
from service.errors import EngineError

LONGEST_LINE_BYTES = 4 * 1024 * 1024
CONTEXT_WORDS = re.compile(r"context length|context window|max_model_len|maximum model length|too long", re.I)
SCHEMA_WORDS = re.compile(r"grammar|schema|response_format|structured", re.I)


class BrokenAnswerError(EngineError):
    """The answer did not come, or not whole: worth asking again from the start."""

    def __init__(self, message: str, advice: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, advice)
        self.retry_after_s = retry_after_s


class StalledError(BrokenAnswerError):
    """The engine holds the connection and says nothing."""


class PriorityError(EngineError):
    """The server was started without priority scheduling."""


class SaltError(EngineError):
    """The server does not know `cache_salt`."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One event of a streamed answer. `is_token` is also true for a token that is not text."""

    text: str = ""
    finish_reason: str = ""
    usage: Usage | None = None
    is_token: bool = False
    is_last: bool = False


def chat_body(
    prompt: Prompt, model: str, *, fold_system: bool, with_priority: bool, cache_salt: str = ""
) -> dict[str, Any]:
    """Return the JSON of a streamed chat completion.

    What is cached of a prompt serves requests with the same `cache_salt` alone (vLLM's prefix cache): how
    fast an answer comes then tells nobody else what was asked before.
    """
    sampling = prompt.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": chat_messages(prompt.messages, fold_system=fold_system),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if prompt.schema is not None:
        schema = {"name": "answer", "schema": prompt.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if with_priority and prompt.priority:
        body["priority"] = prompt.priority
    if cache_salt:
        body["cache_salt"] = cache_salt
    return body


def chat_messages(messages: tuple[Message, ...], *, fold_system: bool) -> list[dict[str, Any]]:
    """Return the turns as JSON; with `fold_system`, system turns open the first user turn instead.

    A turn without pictures is a plain text, as ever; one with pictures is a list of parts.
    """
    if fold_system:
        messages = _fold_system(messages)
    return [
        {"role": message.role, "content": _parts(message) if message.images else message.content}
        for message in messages
    ]


def text_messages(messages: tuple[Message, ...], *, fold_system: bool) -> list[dict[str, Any]]:
    """Return the turns as JSON without their pictures: what a tokenizer of text can count."""
    return chat_messages(
        tuple(Message(message.role, message.text) for message in messages), fold_system=fold_system
    )


def count_images(messages: tuple[Message, ...]) -> int:
    """Return how many pictures a chat holds."""
    return sum(len(message.images) for message in messages)


def _parts(message: Message) -> list[dict[str, Any]]:
    """Return text and pictures in their order. Raises EngineError where a picture's bytes are not at hand."""
    texts = message.content.split(PLACE)
    if len(texts) != len(message.images) + 1 or not all(image.png for image in message.images):
        raise EngineError("A prompt's pictures are not at hand: it was read from the store, or is torn.")
    parts: list[dict[str, Any]] = []
    for number, text in enumerate(texts):
        if text.strip():
            parts.append({"type": "text", "text": text.strip("\n")})
        if number < len(message.images):
            encoded = base64.b64encode(message.images[number].png).decode()
            parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}})
    return parts


def _fold_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    system = [message.content for message in messages if message.role == "system"]
    turns = [message for message in messages if message.role != "system"]
    if not system:
        return messages
    images: tuple[Image, ...] = ()
    if turns and turns[0].role == "user":
        first = turns.pop(0)
        system.append(first.content)
        images = first.images
    return (Message("user", "\n\n".join(system), images), *turns)


async def split_lines(content: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the lines of an event stream, without their ends. Raises BrokenAnswerError on an endless line.

    Only LF and CR LF end a line here: JSON may hold U+2028 and U+0085 as they are, at which
    `str.splitlines` (and with it httpx's `aiter_lines`) would cut an event in two.
    """
    rest = b""
    async for block in content:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r").decode("utf-8", errors="replace")
        if len(rest) > LONGEST_LINE_BYTES:
            raise BrokenAnswerError("The engine sent an answer that is not an event stream.")
    if rest:
        yield rest.decode("utf-8", errors="replace")


def read_chunk(line: str) -> Chunk | None:
    """Return what one line of the stream says; None for comments, blank lines and other fields.

    Raises BrokenAnswerError for an event that is not JSON, or that reports an error of the engine.
    """
    if not line.startswith("data:"):
        return None
    data = line.removeprefix("data:").strip()
    if data == "[DONE]":
        return Chunk(is_last=True)
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise BrokenAnswerError(
            "The engine sent an event that is not JSON.", "Is the URL that of a vLLM server?"
        )
    if event.get("error"):
        raise _error_in_stream(event["error"])
    return _chunk(event)


def _error_in_stream(error: Any) -> EngineError:
    """Return what an error event means: vLLM refuses a schema only after it has answered 200."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 500:
        return error_of(code, str(error.get("message")), None, False)
    return BrokenAnswerError("The engine broke off its answer with an error.", "See the engine's log.")


def _chunk(event: dict[str, Any]) -> Chunk:
    choices = event.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    delta = choice.get("delta")
    delta = delta if isinstance(delta, dict) else {}
    text = delta.get("content")
    return Chunk(
        text=text if isinstance(text, str) else "",
        finish_reason=str(choice.get("finish_reason") or ""),
        usage=read_usage(event.get("usage")),
        is_token=bool(text or delta.get("reasoning_content") or delta.get("reasoning")),
    )


def read_usage(value: Any) -> Usage | None:
    """Return the token counts of a `usage` object, or None where there is none."""
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    told = details if isinstance(details, dict) else {}
    seen = told.get("multimodal_tokens")
    images = seen.get("image") if isinstance(seen, dict) else 0
    return Usage(
        _count(value.get("prompt_tokens")), _count(value.get("completion_tokens")),
        _count(told.get("cached_tokens")), _count(images),
    )  # fmt: skip


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def error_of(
    status: int, body: str, retry_after: str | None, had_priority: bool, had_salt: bool = False
) -> EngineError:
    """Return the error that an HTTP status stands for. The body is judged by, never repeated.

    vLLM's messages may quote the request, and so a patient.
    """
    if status in (401, 403):
        return EngineError(
            f"The engine refused the API key (HTTP {status}).",
            "Set EPICRISIS_ENGINE_API_KEY to the key the engine was started with.",
        )
    if status == 404:
        return EngineError(
            "The engine does not know this model or this address (HTTP 404).",
            "Compare the model's name with what GET /v1/models lists.",
        )
    if status in (429, 500, 502, 503, 504):
        return BrokenAnswerError(
            f"The engine is not ready to answer (HTTP {status}).",
            "It may be starting or overloaded: try again, and see its log.",
            _seconds(retry_after),
        )
    if had_salt and "cache_salt" in body:
        return SaltError("The engine does not know cache_salt.")
    return _refusal(status, body, had_priority)


def _refusal(status: int, body: str, had_priority: bool) -> EngineError:
    if status == 413 or CONTEXT_WORDS.search(body):
        return EngineError(
            f"The prompt and the answer do not fit the model's context (HTTP {status}).",
            "Lower the token budget, or serve the model with a longer context (--max-model-len).",
        )
    if had_priority and "priority" in body.lower():
        return PriorityError("The engine schedules without priorities.")
    if SCHEMA_WORDS.search(body):
        return EngineError(
            f"The engine refused the schema of the answer (HTTP {status}).",
            "Use vLLM 0.29 or newer with XGrammar.",
        )
    return EngineError(f"The engine refused the request (HTTP {status}).", "See the engine's log.")


def _seconds(retry_after: str | None) -> float | None:
    """Read Retry-After where it is a number of seconds; a date is left to the ordinary delay."""
    try:
        return min(max(float(retry_after or ""), 0.0), 60.0)
    except ValueError:
        return None
