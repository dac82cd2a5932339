"""The engine without a model, as a process: it speaks vLLM's part of the OpenAI protocol, at a real pace.

    python -m service.engine.scripted_server --port 8000 --seats 16
        --prefill-tokens-per-s 4000 --decode-tokens-per-s 40

With it, all around the model can be tried at the speed of a real engine: seats, queues, priorities, the
prefix cache, clients that go away. It must never be taken for a model: it serves the name `scripted`.
One connection carries one request. It keeps no prompt, and writes none to a log.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Self

from service.engine.copying import answer_by_copying
from service.engine.prompt import PLACE, Image, Message, Prompt, Sampling
from service.engine.scripted import IMAGE_TOKENS, MODEL, PIECE, SCRIPTED_PROFILE, TOKEN, TOKENS_PER_TURN
from service.engine.seats import Pace, Seats
from service.hardening import PlainTraces, keep_memory_private, keep_short, silence_crashes

HOST = "127.0.0.1"
LONGEST_BODY_BYTES = 64 * 1024 * 1024
DEFAULT_MAX_TOKENS = 1024
PICTURE_URL = "data:image/png;base64,"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Connection:
    """One client, and what can be written to it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def reply(self, status: int, content: Body | str) -> None:
        """Write one whole answer: JSON, or text as it is."""
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        kind = "text/plain; version=0.0.4" if isinstance(content, str) else "application/json"
        data = text.encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
        self.writer.write(f"{head}Connection: close\r\n\r\n".encode() + data)

    def refuse(self, status: int, message: str) -> None:
        """Write an error as vLLM words it."""
        self.reply(status, {"error": {"message": message, "type": "BadRequestError", "code": status}})

    def event(self, content: Body) -> None:
        """Write one event of a stream, with non-ASCII signs as they are, as vLLM does."""
        self.chunk(f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode())

    def chunk(self, data: bytes) -> None:
        """Write one chunk of a chunked answer; an empty one ends it."""
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


class ScriptedServer:
    """One server on loopback, as an asynchronous context manager.

    `answer` says what it writes to a prompt; `seats` how many it serves at once and how fast.
    """

    def __init__(
        self,
        *,
        answer: Callable[[Prompt], str] = answer_by_copying,
        seats: Seats | None = None,
        port: int = 0,
        model: str = MODEL,
        version: str = f"{MODEL}-1",
        context_tokens: int = SCRIPTED_PROFILE.context_tokens,
        api_key: str = "",
        with_usage: bool = True,
        with_tokenize: bool = True,
    ) -> None:
        self.seats = seats or Seats()
        self.base_url = ""
        """Where it listens, without `/v1`; known once it is entered."""
        self._answer = answer
        self._port = port
        self._model = model
        self._version = version
        self._context_tokens = context_tokens
        self._api_key = api_key
        self._with_usage = with_usage
        self._with_tokenize = with_tokenize
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._answered = 0
        self._cached = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, self._port)
        self.base_url = f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self.seats.aclose()

    async def spoil(self, body: Body, to: Connection) -> bool:
        """Answer a chat request in another way than it should be; True where that was done.

        Nothing here: a double that fails on demand says how.
        """
        return False

    async def break_off(self, body: Body, number: int, to: Connection) -> bool:
        """End an answer before its piece `number`, counted from 0; True where that was done."""
        return False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        over = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
        try:
            # asyncio's streams of Python 3.11 take a cancelled handler for an error: it ends quietly
            with contextlib.suppress(*over, asyncio.CancelledError):
                await self._answer_one(Connection(reader, writer))
        finally:
            self._serving.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer_one(self, to: Connection) -> None:
        request, _, rest = (await to.reader.readuntil(b"\r\n\r\n")).decode("latin-1").partition("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in rest.split("\r\n") if ": " in line)
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > LONGEST_BODY_BYTES:
            return to.refuse(413, "The body is too long, or of no known length.")
        content = await to.reader.readexactly(int(length))
        if not await self._while_connected(self._route(request.split(), headers, content, to), to):
            return None
        return await to.writer.drain()

    async def _while_connected(self, work: Coroutine[Any, Any, None], to: Connection) -> bool:
        """Do the work unless the client goes away first, at which it is cancelled: False."""
        working, gone = asyncio.create_task(work), asyncio.create_task(to.reader.read())
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = working.done()
            gone.cancel()
            if not finished:
                working.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            await asyncio.gather(working, return_exceptions=True)
        if finished:
            working.result()
        return finished

    async def _route(
        self, words: Sequence[str], headers: dict[str, str], content: bytes, to: Connection
    ) -> None:
        path = words[1].partition("?")[0] if len(words) > 1 else ""
        guarded = path.startswith("/v1") and self._api_key
        if guarded and headers.get("authorization", "") != f"bearer {self._api_key}".lower():
            return to.reply(401, {"error": "Unauthorized"})
        match path:
            case "/health":
                return to.reply(200, "")
            case "/metrics":
                return to.reply(200, self._metrics())
            case "/version":
                return to.reply(200, {"version": self._version})
            case "/v1/models":
                one = {"id": self._model, "object": "model", "max_model_len": self._context_tokens}
                return to.reply(200, {"object": "list", "data": [one]})
            case "/tokenize" if self._with_tokenize:
                return self._with_body(content, to, self._tokenize)
            case "/v1/chat/completions":
                body = read_body(content)
                return to.refuse(400, "No chat request.") if body is None else await self._chat(body, to)
        return to.reply(404, {"error": {"message": "Not found", "code": 404}})

    def _with_body(self, content: bytes, to: Connection, work: Callable[[Body, Connection], None]) -> None:
        body = read_body(content)
        return to.refuse(400, "No chat request.") if body is None else work(body, to)

    def _tokenize(self, body: Body, to: Connection) -> None:
        to.reply(200, {"count": len(tokens_of(body)), "max_model_len": self._context_tokens})

    async def _chat(self, body: Body, to: Connection) -> None:
        if await self.spoil(body, to):
            return None
        prompt, tokens = prompt_of(body), tokens_of(body)
        if body.get("model") != self._model:
            return to.refuse(404, "The model does not exist.")
        if len(tokens) + prompt.sampling.max_tokens > self._context_tokens:
            return to.refuse(400, f"This model's maximum context length is {self._context_tokens} tokens.")
        pieces = PIECE.findall(self._answer(prompt))
        told = pieces[: prompt.sampling.max_tokens]
        finish = "stop" if len(told) == len(pieces) else "length"
        work = self._stream if body.get("stream") else self._whole
        async with aclosing(self.seats.serve(tokens, len(told), prompt.priority)) as served:
            usage = self._usage(len(tokens), len(told), await self._begin(served, body, to))
            await work(body, told, finish, usage, served, to)
        self._answered += 1
        return None

    async def _begin(self, served: AsyncIterator[int], body: Body, to: Connection) -> int:
        """Wait until the prompt is read, a stream's head sent before; return how much came from the cache."""
        if body.get("stream"):
            to.writer.write(STREAM_HEAD)
        cached = await anext(served)
        self._cached += cached
        return cached

    async def _stream(
        self,
        body: Body,
        pieces: Sequence[str],
        finish: str,
        usage: Body,
        served: AsyncIterator[int],
        to: Connection,
    ) -> None:
        for number, piece in enumerate(pieces):
            if await self.break_off(body, number, to):
                return
            await anext(served)
            to.event(self._part({"delta": {"content": piece}, "finish_reason": None}))
            await to.writer.drain()
        to.event(self._part({"delta": {}, "finish_reason": finish}))
        if self._with_usage:
            to.event({**self._head(), "choices": [], "usage": usage})
        to.chunk(b"data: [DONE]\n\n")
        to.chunk(b"")

    async def _whole(
        self,
        body: Body,
        pieces: Sequence[str],
        finish: str,
        usage: Body,
        served: AsyncIterator[int],
        to: Connection,
    ) -> None:
        async for _ in served:
            pass
        message = {"role": "assistant", "content": "".join(pieces)}
        choice = self._part({"message": message, "finish_reason": finish})
        to.reply(200, {**choice, "usage": usage})

    def _head(self) -> Body:
        return {"object": "chat.completion.chunk", "model": self._model}

    def _part(self, choice: Body) -> Body:
        return {**self._head(), "choices": [{"index": 0, **choice}]}

    def _usage(self, read: int, written: int, cached: int) -> Body:
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _metrics(self) -> str:
        """Return what a supervisor asks vLLM for, by vLLM's names."""
        found = {
            "num_requests_running gauge": self.seats.running,
            "num_requests_waiting gauge": self.seats.waiting,
            "generation_tokens_total counter": self.seats.generated,
            "prompt_tokens_total counter": self.seats.read,
            "prefix_cache_hits_total counter": self._cached,
            "request_success_total counter": self._answered,
        }
        lines = []
        for named, value in found.items():
            name, kind = named.split()
            lines += [
                f"# TYPE vllm:{name} {kind}",
                f'vllm:{name}{{model_name="{self._model}"}} {float(value)}',
            ]
        return "\n".join([*lines, ""])


def read_body(content: bytes) -> Body | None:
    """Return a chat request, or None for what is none."""
    try:
        body = json.loads(content)
    except ValueError:
        return None
    turns = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(turns, list) or not turns:
        return None
    whole = all(isinstance(turn, dict) and _is_content(turn.get("content")) for turn in turns)
    return body if whole else None


def _is_content(content: Any) -> bool:
    """Tell whether it is a text, or a list of texts and of pictures as data URLs."""
    if isinstance(content, str):
        return True
    return isinstance(content, list) and all(_is_part(part) for part in content)


def _is_part(part: Any) -> bool:
    match part:
        case {"type": "text", "text": str()}:
            return True
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return _pixels(url) is not None
    return False


def _pixels(url: str) -> bytes | None:
    if not url.startswith(PICTURE_URL):
        return None
    try:
        return base64.b64decode(url.removeprefix(PICTURE_URL), validate=True)
    except ValueError:
        return None


def _message(turn: Body) -> Message:
    """Read one turn back, its pictures in their places."""
    role, content = turn.get("role", "user"), turn["content"]
    if isinstance(content, str):
        return Message(role, content)
    pixels = [_pixels(part["image_url"]["url"]) or b"" for part in content if part["type"] == "image_url"]
    images = tuple(Image(hashlib.sha256(png).hexdigest(), png) for png in pixels)
    return Message(role, "\n".join(part.get("text", PLACE) for part in content), images)


def prompt_of(body: Body) -> Prompt:
    """Read a request back into the prompt that it was made from."""
    schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
    messages = tuple(_message(turn) for turn in body["messages"])
    most = body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS
    return Prompt(messages, Sampling(int(most)), schema, int(body.get("priority") or 0))


def tokens_of(body: Body) -> list[str]:
    """Return the tokens of a chat, by the scripted engine's rule, with a constant a turn."""
    tokens: list[str] = []
    for turn in body["messages"]:
        tokens += [f"<{turn.get('role', 'user')}>"] * TOKENS_PER_TURN
        message = _message(turn)
        tokens += TOKEN.findall(message.text)
        tokens += [token for image in message.images for token in [f"<{image.digest}>"] * IMAGE_TOKENS]
    return tokens


async def serve(server: ScriptedServer) -> None:
    """Serve until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with server:
        sys.stdout.write(f"scripted engine, no model, at {server.base_url}\n")
        sys.stdout.flush()
        await ended.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and serve."""
    keep_memory_private()
    silence_crashes()
    told = logging.StreamHandler()  # asyncio tells what failed in a request with a traceback, prompt and all
    told.setFormatter(PlainTraces())
    logging.basicConfig(handlers=[told])
    logging.getLogger("asyncio").addFilter(keep_short)
    parser = argparse.ArgumentParser(prog="python -m service.engine.scripted_server", description=__doc__)
    parser.add_argument(
        "--port", type=int, required=True, help="loopback port; 0 takes a free one and says it"
    )
    parser.add_argument("--seats", type=int, default=16, help="requests served at once (--max-num-seqs)")
    parser.add_argument("--prefill-tokens-per-s", type=float, default=4000.0)
    parser.add_argument("--decode-tokens-per-s", type=float, default=40.0, help="of one stream alone")
    parser.add_argument("--step-tokens", type=int, default=512, help="vLLM's --max-num-batched-tokens")
    parser.add_argument("--context-tokens", type=int, default=SCRIPTED_PROFILE.context_tokens)
    parser.add_argument("--seed", type=int, default=0, help="of how much one step differs from the next")
    given = parser.parse_args(arguments)
    pace = Pace(given.prefill_tokens_per_s, given.decode_tokens_per_s, given.step_tokens)
    seats = Seats(given.seats, pace, seed=given.seed)
    asyncio.run(serve(ScriptedServer(seats=seats, port=given.port, context_tokens=given.context_tokens)))


if __name__ == "__main__":
    main()
