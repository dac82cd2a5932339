"""The one engine client: the OpenAI protocol to a vLLM server, ours or the hospital's.

Policy lives here (retries, watchdog, what an error means to a person); the protocol is in `wire`.
A completion is whole or it is made again from its start: halves of two answers are never joined.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from service.engine.prompt import Completion, EngineInfo, Message, Profile, Prompt, Usage
from service.engine.tokens import FolderTokenizer
from service.engine.wire import (
    BrokenAnswerError,
    PriorityError,
    SaltError,
    StalledError,
    chat_body,
    count_images,
    error_of,
    read_chunk,
    split_lines,
    text_messages,
)
from service.errors import EngineError

T = TypeVar("T")
_log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]
Wake = Callable[[], Awaitable[str]]
"""Called before each attempt; returns the base URL of a server that is up. Raises EngineError."""

ATTEMPTS = 6
"""With delays of 1, 2, 4, 8 and 16 s: as long as a small server takes to start again."""
STALLS = 2
LONGEST_DELAY_S = 30.0
FIRST_TOKEN_S = 300.0
"""Before the first token come the queue, the prompt and the grammar."""
NEXT_TOKEN_S = 30.0
"""Stuck Gemma 3 streams were reported: the connection stays open, and no token comes."""
LONGEST_ANSWER_BYTES = 16 * 1024 * 1024
"""Of an answer that is not streamed: a list of models, a count, an error."""
_NOTHING: Mapping[str, Any] = {}
_COUNTING = ThreadPoolExecutor(1, thread_name_prefix="count-tokens")
"""A thread of its own: those who wait for a count may hold every thread of the event loop's pool."""
BAD_URL = ("The engine's URL is not an http or https URL.", "Set EPICRISIS_ENGINE_URL to http://HOST:PORT.")


async def count_apart(work: Callable[..., T], *arguments: Any) -> T:
    """Do what counting needs in the one thread that is kept for it."""
    return await asyncio.get_running_loop().run_in_executor(_COUNTING, work, *arguments)


def open_tokenizer(folder: Path, profile: Profile) -> FolderTokenizer:
    """Return the tokenizer in a model's folder, tried once. Raises EngineError where it cannot be used."""
    try:
        tokenizer = FolderTokenizer(folder, profile)
        tokenizer.count((Message("user", "?"),))
    except Exception:  # the tokenizers library raises bare Exception for a broken file
        raise EngineError(
            "The tokenizer folder cannot be read, or has no chat template.",
            "It must hold tokenizer.json, tokenizer_config.json and the chat template of the served model.",
        ) from None
    return tokenizer


class OpenAIEngine:
    """An Engine behind a URL.

    `on_text` of `generate` receives each piece as decoded. When an answer broke off and is made again,
    it receives one empty piece first: what came before is void. The pieces after the last empty one
    make up the text, except for what the profile strips.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        profile: Profile,
        api_key: str = "",
        digest: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Sleep = asyncio.sleep,
        wake: Wake | None = None,
        cache_salt: str = "",
        attempts: int = ATTEMPTS,
        first_token_s: float = FIRST_TOKEN_S,
        next_token_s: float = NEXT_TOKEN_S,
    ) -> None:
        self._base_url = base_url
        self._model = model
        self._profile = profile
        self._api_key = api_key
        self._digest = digest or f"unknown:{model}"
        self._transport = transport
        self._sleep = sleep
        self._wake = wake
        self._attempts = attempts
        self._first_token_s = first_token_s
        self._next_token_s = next_token_s
        self._with_priority = True
        self._with_salt = True
        self._cache_salt = cache_salt
        self._tokenizer: FolderTokenizer | None = None
        self._agreeing = asyncio.Lock()
        self._info: EngineInfo | None = None
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def describe(self) -> EngineInfo:
        """Say which model serves, asked once. Raises EngineError where it is not the one configured."""
        if self._info is None:
            models = await self._persist(lambda: self._get("/v1/models"))
            version = await self._persist(self._version)
            self._info = EngineInfo(
                model=self._model,
                digest=self._digest,
                version=version,
                profile=self._profile,
                context_tokens=self._served_context(models),
            )
        return self._info

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Count the tokens of the rendered chat, the generation prompt included. Raises EngineError.

        With a tokenizer on this machine only the first count is asked of the server, which must agree.
        """
        if not self._profile.tokenizer:
            return await self._served_count(messages)
        async with self._agreeing:
            if self._tokenizer is None:
                self._tokenizer = await self._agreeing_tokenizer(messages)
        return await count_apart(self._tokenizer.count, messages)

    async def _agreeing_tokenizer(self, messages: tuple[Message, ...]) -> FolderTokenizer:
        folder = Path(self._profile.tokenizer)
        tokenizer = await count_apart(open_tokenizer, folder, self._profile)
        if await count_apart(tokenizer.count, messages) != await self._served_count(messages):
            raise EngineError(
                "The tokenizer on this machine counts otherwise than the served model.",
                "Give EPICRISIS_TOKENIZER the folder of exactly the model that is served, or leave it empty.",
            )
        return tokenizer

    async def _served_count(self, messages: tuple[Message, ...]) -> int:
        body = {
            "model": self._model,
            "messages": text_messages(messages, fold_system=self._profile.system_in_user_turn),
            "add_generation_prompt": True,
        }
        answer = await self._persist(lambda: self._post("/tokenize", body))
        count = answer.get("count")
        if not isinstance(count, int):
            raise EngineError(
                "The engine does not count tokens.", "Use a vLLM server: others have no /tokenize."
            )
        return count + self._profile.image_tokens * count_images(messages)

    async def generate(
        self, prompt: Prompt, on_text: Callable[[str], None] | None = None, *, cache_salt: str | None = None
    ) -> Completion:
        """Answer one prompt; cancelling closes the stream, at which vLLM stops. Raises EngineError.

        `cache_salt` stands in for the engine's own where several readers ask one engine.
        """
        told = False
        salt = self._cache_salt if cache_salt is None else cache_salt

        def tell(piece: str) -> None:
            nonlocal told
            if on_text is not None:
                told = True
                on_text(piece)

        async def attempt() -> Completion:
            nonlocal told
            if told and on_text is not None:
                told = False
                on_text("")
            return await self._complete(prompt, tell, salt)

        return await self._persist(attempt)

    async def warm(self, prompt: Prompt) -> None:
        """Have the prompt's prefix and grammar ready: one token is generated and thrown away.

        A grammar's first use costs up to 4 s for each distinct `maxLength`.
        """
        await self.generate(replace(prompt, sampling=replace(prompt.sampling, max_tokens=1)))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._client = None

    async def _complete(self, prompt: Prompt, tell: Callable[[str], None], salt: str) -> Completion:
        """Ask once. Raises BrokenAnswerError where asking again may help."""
        while True:
            body = chat_body(
                prompt, self._model, fold_system=self._profile.system_in_user_turn,
                with_priority=self._with_priority, cache_salt=salt if self._with_salt else "",
            )  # fmt: skip
            try:
                return await self._stream(body, tell)
            except PriorityError:
                self._with_priority = False
            except SaltError:
                self._with_salt = False
                _log.warning("The engine knows no cache_salt: whoever else asks it shares its prefix cache.")

    async def _stream(self, body: dict[str, Any], tell: Callable[[str], None]) -> Completion:
        loop = asyncio.get_running_loop()
        started = loop.time()
        answer = _Answer()
        request = await self._request("POST", "/v1/chat/completions", body)
        try:
            async with asyncio.timeout(self._first_token_s) as watchdog:
                response = await self._send(request)
                try:
                    await self._check(response, body)
                    async for line in split_lines(response.aiter_bytes()):
                        if answer.take(line, tell):
                            watchdog.reschedule(loop.time() + self._next_token_s)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise StalledError(
                "The engine accepted the request and then sent no token for too long.",
                "It may be overloaded or stuck: see its log, or restart it.",
            ) from None
        except httpx.TransportError:
            raise BrokenAnswerError(
                "The connection to the engine broke in the middle of an answer.",
                "The engine may have crashed: see its log.",
            ) from None
        return answer.completion(self._profile.strip, loop.time() - started)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._http().send(request, stream=True)
        except httpx.UnsupportedProtocol:
            raise EngineError(*BAD_URL) from None
        except httpx.TransportError:
            raise BrokenAnswerError(
                f"The engine at {request.url.host}:{request.url.port or ''} cannot be reached.",
                "Is it running, and is EPICRISIS_ENGINE_URL right?",
            ) from None

    async def _check(self, response: httpx.Response, asked: Mapping[str, Any] = _NOTHING) -> None:
        if response.status_code != 200:
            said = (await _whole(response)).decode("utf-8", errors="replace")
            retry_after = response.headers.get("Retry-After")
            raise error_of(
                response.status_code, said, retry_after, "priority" in asked, "cache_salt" in asked
            )

    async def _get(self, path: str) -> dict[str, Any]:
        return await self._fetch("GET", path, None)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._fetch("POST", path, body)

    async def _fetch(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Ask a question that is not a generation; the answer is a JSON object."""
        request = await self._request(method, path, body)
        try:
            async with asyncio.timeout(self._first_token_s):
                response = await self._send(request)
                try:
                    await self._check(response)
                    answer = json.loads(await _whole(response))
                finally:
                    await response.aclose()
        except TimeoutError:
            raise StalledError(
                "The engine does not answer.", "It may be overloaded or stuck: see its log."
            ) from None
        except httpx.TransportError:
            raise BrokenAnswerError("The connection to the engine broke.", "See the engine's log.") from None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise EngineError(
                "The engine does not speak the OpenAI protocol.", "Is the URL that of a vLLM server?"
            )
        return answer

    async def _version(self) -> str:
        try:
            version = (await self._get("/version")).get("version")
        except BrokenAnswerError:
            raise
        except EngineError:
            version = None
        return f"vllm {version}" if version else "unknown"

    def _served_context(self, models: dict[str, Any]) -> int:
        """Read `max_model_len` of our model; vLLM alone sends it."""
        entries = models.get("data")
        served = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        for entry in served:
            if entry.get("id") == self._model:
                length = entry.get("max_model_len")
                limit = self._profile.context_tokens
                return min(limit, length) if isinstance(length, int) and length > 0 else limit
        names = ", ".join(sorted(str(entry.get("id")) for entry in served)) or "none"
        raise EngineError(
            f"The engine does not serve the model {self._model}.",
            f"It serves: {names}. Set EPICRISIS_MODEL to one of them.",
        )

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it works, fails for good, or was interrupted too often."""
        stalls = 0
        for number in range(1, self._attempts + 1):
            try:
                return await attempt()
            except BrokenAnswerError as interruption:
                stalls += isinstance(interruption, StalledError)
                if number == self._attempts or stalls == STALLS:
                    raise
                delay = interruption.retry_after_s
                await self._sleep(min(2.0 ** (number - 1), LONGEST_DELAY_S) if delay is None else delay)
        raise EngineError("The engine was asked no time at all.")

    async def _request(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Request:
        base = self._base_url if self._wake is None else await self._wake()
        url = base.rstrip("/").removesuffix("/v1") + path
        try:
            return self._http().build_request(method, url, json=body)
        except httpx.InvalidURL:
            raise EngineError(*BAD_URL) from None

    def _http(self) -> httpx.AsyncClient:
        """Return the client of the running loop: connections do not outlive the loop they were made in."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            self._client = httpx.AsyncClient(
                transport=self._transport,
                headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else {},
                timeout=httpx.Timeout(None, connect=10.0),
                # to our own server a new connection costs nothing, and none is left open in a past loop
                limits=httpx.Limits(max_keepalive_connections=0 if self._wake else 32),
                trust_env=False,
            )
        return self._client


async def _whole(response: httpx.Response) -> bytes:
    """Read an answer that is not a stream. Raises EngineError where it is larger than any that is meant."""
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > LONGEST_ANSWER_BYTES:
            raise EngineError("The engine's answer is too large.", "Is the URL that of a vLLM server?")
    return bytes(data)


class _Answer:
    """One streamed answer while it comes."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._finish_reason = ""
        self._usage: Usage | None = None

    def take(self, line: str, tell: Callable[[str], None]) -> bool:
        """Take in one line; True when it brought a token."""
        chunk = read_chunk(line)
        if chunk is None or chunk.is_last:
            return False
        if chunk.text:
            self._pieces.append(chunk.text)
            tell(chunk.text)
        self._finish_reason = chunk.finish_reason or self._finish_reason
        self._usage = chunk.usage or self._usage
        return chunk.is_token

    def completion(self, strip: tuple[str, ...], seconds: float) -> Completion:
        """Return the whole answer. Raises BrokenAnswerError where the stream ended without saying why."""
        if not self._finish_reason:
            raise BrokenAnswerError(
                "The engine's answer ended in the middle.", "The engine may have crashed: see its log."
            )
        text = "".join(self._pieces)
        for pattern in strip:
            text = re.sub(pattern, "", text, flags=re.DOTALL)
        # a server that does not report usage: a piece is about a token
        usage = self._usage or Usage(prompt_tokens=0, completion_tokens=len(self._pieces))
        return Completion(text, self._finish_reason, usage, seconds)
