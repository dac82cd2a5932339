"""Counting on this machine: by the served model's own files, agreed with its server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from fixtures.engines import stand_in
from service.engine.local import LocalEngine
from service.engine.openai import OpenAIEngine, open_tokenizer
from service.engine.profiles import profile_for
from service.engine.prompt import Message
from service.errors import EngineError
from tests.conftest import CANARY

TEMPLATE = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}assistant"
CHAT = (Message("user", f"{CANARY} has asthma"),)
TOKENS = 5
"""user, three words, assistant"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder whose tokenizer counts words."""
    made = tmp_path / "model"
    made.mkdir()
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(made / "tokenizer.json"))
    (made / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "unk_token": "[UNK]",
                "chat_template": TEMPLATE,
            }
        )
    )
    for name in ("config.json", "model.safetensors"):
        (made / name).write_text("{}")
    return made


class Counting:
    """A server that only counts, always the same, and remembers what it was asked."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        return httpx.Response(200, json={"count": self.count})


def remote(folder: Path | str, server: Counting) -> OpenAIEngine:
    return OpenAIEngine(
        "http://engine",
        "double-1b",
        profile=replace(profile_for(""), tokenizer=str(folder)),
        transport=httpx.MockTransport(server),
    )


def local(folder: Path, state_dir: Path) -> LocalEngine:
    return LocalEngine(
        folder, state_dir=state_dir, profile=profile_for(""), base_environment={}, command=stand_in
    )


async def test_a_local_engine_counts_by_its_own_files_and_starts_nothing(
    folder: Path, tmp_path: Path
) -> None:
    async with local(folder, tmp_path / "state") as engine:
        assert await engine.count_tokens(CHAT) == TOKENS
        assert await engine.count_tokens((*CHAT, Message("assistant", "so it is"))) == TOKENS + 4
        assert engine.server.starts == 0
    assert not (tmp_path / "state").exists()


async def test_a_remote_engine_is_asked_once_whether_it_counts_alike(folder: Path) -> None:
    server = Counting(TOKENS)
    engine = remote(folder, server)
    counts = await asyncio.gather(*(engine.count_tokens(CHAT) for _ in range(5)))
    assert counts == [TOKENS] * 5
    server.count = 7
    assert await engine.count_tokens(CHAT) == TOKENS
    assert server.asked == ["/tokenize"]
    await engine.aclose()


async def test_without_a_tokenizer_every_count_is_the_servers() -> None:
    server = Counting(7)
    engine = remote("", server)
    assert [await engine.count_tokens(CHAT) for _ in range(2)] == [7, 7]
    assert len(server.asked) == 2
    await engine.aclose()


async def test_a_tokenizer_that_counts_otherwise_is_refused_with_advice(folder: Path) -> None:
    engine = remote(folder, Counting(TOKENS + 1))
    for _ in range(2):
        with pytest.raises(EngineError, match="counts otherwise") as caught:
            await engine.count_tokens(CHAT)
        assert "EPICRISIS_TOKENIZER" in caught.value.advice
    await engine.aclose()


def break_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "Odd"}}')


def remove_template(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def break_template(folder: Path) -> None:
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{% for %}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def remove_files(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


@pytest.mark.parametrize("damage", [break_json, remove_template, break_template, remove_files])
async def test_a_folder_that_cannot_be_used_is_said_in_words(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder)
    server = Counting(TOKENS)
    engine = remote(folder, server)
    async with local(folder, tmp_path / "state") as own:
        for one in (engine, own):
            with pytest.raises(EngineError, match="tokenizer folder cannot be read") as caught:
                await one.count_tokens(CHAT)
            assert caught.value.__cause__ is None
            assert CANARY not in f"{caught.value.message} {caught.value.advice}"
    assert server.asked == []
    await engine.aclose()


def test_a_folder_that_is_not_there_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="tokenizer folder cannot be read"):
        open_tokenizer(tmp_path / "gpt2", profile_for(""))


def test_those_who_wait_for_a_count_in_every_thread_of_the_loop_get_it(folder: Path, tmp_path: Path) -> None:
    """Choosing runs in the event loop's threads, and waits there for counts."""

    async def choose_in_every_thread() -> list[int]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        async with local(folder, tmp_path / "state") as engine:

            def choose() -> int:
                return asyncio.run_coroutine_threadsafe(engine.count_tokens(CHAT), loop).result(20)

            return await asyncio.gather(*(asyncio.to_thread(choose) for _ in range(6)))

    assert asyncio.run(choose_in_every_thread()) == [TOKENS] * 6
