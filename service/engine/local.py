"""The engine on this machine: our own supervised vLLM server behind the one engine client."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from service.engine.launch import Machine, installed_version, server_command, server_environment, this_machine
from service.engine.openai import OpenAIEngine, count_apart, open_tokenizer
from service.engine.prompt import Completion, EngineInfo, Message, Profile, Prompt
from service.engine.server import START_TIMEOUT_S, Command, EngineServer
from service.engine.tokens import FolderTokenizer
from service.engine.weights import check_folder, digest_of

LOG_NAME = "engine.log"


class LocalEngine:
    """An Engine that starts its server at first use and ends it with `aclose()`, or when we end.

    The server listens on loopback alone, with a random key that this object and it share.
    """

    def __init__(
        self,
        model_folder: Path,
        *,
        state_dir: Path,
        profile: Profile,
        base_environment: Mapping[str, str],
        on_progress: Callable[[str], None] = lambda _: None,
        model: str | None = None,
        extra_flags: Sequence[str] = (),
        start_timeout_s: float = START_TIMEOUT_S,
        machine: Machine | None = None,
        command: Command | None = None,
        cache_salt: str = "",
    ) -> None:
        """`model` is the name it is served by, the folder's where it is left out.

        `base_environment` is filtered by an allow-list. `command` stands in for vLLM in tests.
        """
        self._folder = model_folder
        self._model = model or model_folder.name
        self._profile = profile
        self._machine = machine or this_machine()
        self._info: EngineInfo | None = None
        self._tokenizer: FolderTokenizer | None = None
        key = secrets.token_urlsafe(32)
        self.server = EngineServer(
            command or self._vllm_command(profile.context_tokens, extra_flags),
            server_environment(base_environment, key, state_dir / "cache", self._machine),
            state_dir / LOG_NAME,
            on_progress=on_progress,
            start_timeout_s=start_timeout_s,
        )
        self._client = OpenAIEngine(
            "", self._model, profile=profile, api_key=key, wake=self._wake, cache_salt=cache_salt
        )

    async def describe(self) -> EngineInfo:
        """Say which model is served, from its files and flags. Starts nothing. Raises EngineError.

        So a chart that has not changed is recognised without the cost of a start.
        """
        if self._info is None:
            await asyncio.to_thread(check_folder, self._folder)
            self._info = EngineInfo(
                model=self._model,
                digest=await asyncio.to_thread(digest_of, self._folder),
                version=f"vllm {installed_version()}",
                profile=self._profile,
                context_tokens=self._profile.context_tokens,  # what --max-model-len asks for
                extra={"dtype": self._machine.dtype},
            )
        return self._info

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Count by the tokenizer in the model's folder, which is the one that is served.

        Starts nothing. Raises EngineError.
        """
        return await count_apart(self._count, messages)

    def _count(self, messages: tuple[Message, ...]) -> int:
        if self._tokenizer is None:
            check_folder(self._folder)
            self._tokenizer = open_tokenizer(self._folder, self._profile)
        return self._tokenizer.count(messages)

    async def generate(
        self, prompt: Prompt, on_text: Callable[[str], None] | None = None, *, cache_salt: str | None = None
    ) -> Completion:
        """Answer one prompt, again from its start where the server crashed meanwhile. Raises EngineError.

        `on_text` and `cache_salt` as in `OpenAIEngine`: an empty piece says that the answer begins again.
        """
        return await self._client.generate(prompt, on_text, cache_salt=cache_salt)

    async def warm(self, prompt: Prompt) -> None:
        """Start the server, and have the prompt's prefix and grammar ready."""
        await self._client.warm(prompt)

    async def aclose(self) -> None:
        """End the server and all its processes."""
        await self._client.aclose()
        await self.server.aclose()

    def close(self) -> None:
        """End the server where no event loop runs any more; `aclose` is the ordinary way."""
        self.server.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _wake(self) -> str:
        check_folder(self._folder)
        return await self.server.ready()

    def _vllm_command(self, context_tokens: int, extra_flags: Sequence[str]) -> Command:
        def command(port: int) -> list[str]:
            return server_command(
                self._folder,
                self._model,
                port,
                context_tokens=context_tokens,
                machine=self._machine,
                extra=extra_flags,
            )

        return command
