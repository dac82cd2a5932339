"""The real engine with the real small model."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from pathlib import Path

import httpx
import pytest

from fixtures.engines import demonstration_model
from service.engine.local import LocalEngine
from service.engine.prompt import Message, Prompt, Sampling
from service.engine.weights import digest_of
from service.errors import EngineError
from tests.acceptance.engine.conftest import group_of
from tests.conftest import CANARY
from tests.unit.engine.contract import ASK, SCHEMA, TALK, EngineContract, Subject

pytestmark = pytest.mark.engine


async def running(engine: LocalEngine) -> int:
    """Ask the server itself how many generations it has under way."""
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(await engine.server.ready() + "/metrics")).text
    found = re.search(r"^vllm:num_requests_running\{.*\} ([\d.]+)$", metrics, re.MULTILINE)
    assert found
    return int(float(found[1]))


def command_of(process_id: int) -> bytes:
    """Return a process's command line, its words separated by NUL."""
    return Path(f"/proc/{process_id}/cmdline").read_bytes()


def environment_of(process_id: int) -> dict[bytes, bytes]:
    """Return the environment that a process was started with."""
    pairs = Path(f"/proc/{process_id}/environ").read_bytes().split(b"\0")
    return dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)


def socket_tables() -> str:
    """Return the kernel's tables of TCP sockets."""
    paths = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    return "".join(path.read_text() for path in paths if path.exists())


class TestLocalEngineKeepsTheContract(EngineContract):
    @pytest.fixture
    def subject(self, engine: LocalEngine) -> Subject:
        return Subject(engine, lambda: running(engine))


async def test_it_says_exactly_which_weights_serve(engine: LocalEngine) -> None:
    info = await engine.describe()
    assert info.digest == digest_of(demonstration_model())
    assert re.fullmatch(r"[0-9a-f]{64}", info.digest)
    assert info.version.startswith("vllm 0.")
    assert (info.profile.name, info.context_tokens) == ("smollm2-135m", 8192)


async def test_the_json_has_no_white_space_for_a_small_model_to_lose_itself_in(engine: LocalEngine) -> None:
    text = (await engine.generate(Prompt(ASK, Sampling(400), SCHEMA))).text
    assert json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False) == text


async def test_a_second_task_on_the_same_patient_is_served_from_the_prefix_cache(engine: LocalEngine) -> None:
    patient = "\n".join(f"[F{n}] Potassium: 4.{n} mmol/L on 0{n % 9 + 1}-Jan-2020" for n in range(40))
    tasks = [(Message("system", patient), Message("user", task)) for task in ("List problems.", "List labs.")]
    first, second = [await engine.generate(Prompt(task, Sampling(2))) for task in tasks]
    assert first.usage.prompt_tokens > 500
    assert second.usage.cached_tokens > 0.8 * second.usage.prompt_tokens


async def test_a_prompt_beyond_the_context_is_refused_with_what_to_do(engine: LocalEngine) -> None:
    prompt = Prompt((Message("user", f"{CANARY} " * 4000),), Sampling(100))
    with pytest.raises(EngineError, match="do not fit the model's context") as caught:
        await engine.generate(prompt)
    assert "token budget" in caught.value.advice
    assert CANARY not in str(caught.value)


async def test_the_api_key_is_asked_for_and_stands_on_no_command_line(engine: LocalEngine) -> None:
    url = await engine.server.ready()
    async with httpx.AsyncClient() as client:
        assert (await client.get(url + "/v1/models")).status_code == 401
    leader = engine.server.process_id
    assert leader
    keys = {environment_of(number).get(b"VLLM_API_KEY", b"") for number in group_of(leader)} - {b""}
    assert len(keys) == 1
    assert not any(key in command_of(number) for number in group_of(leader) for key in keys)


async def test_the_server_listens_on_loopback_alone(engine: LocalEngine) -> None:
    url = httpx.URL(await engine.server.ready())
    listening = re.findall(rf" ([0-9A-F]+):{url.port:04X} [0-9A-F]+:0000 0A ", socket_tables())
    assert listening == ["0100007F"]


async def test_a_server_killed_in_mid_answer_is_started_again_and_the_answer_made_whole(
    engine: LocalEngine,
) -> None:
    pieces: list[str] = []
    began = asyncio.Event()

    def hear(piece: str) -> None:
        pieces.append(piece)
        began.set()

    talking = asyncio.create_task(engine.generate(Prompt(TALK, Sampling(200)), hear))
    await asyncio.wait_for(began.wait(), 120)
    leader = engine.server.process_id
    assert leader
    before = group_of(leader)
    for number in before - {leader}:
        if b"api_server" in command_of(number):
            os.kill(number, signal.SIGKILL)
    done = await talking
    assert "".join(pieces[pieces.index("") + 1 :]) == done.text
    assert done.usage.completion_tokens == 200
    assert engine.server.starts == 2
    assert group_of(leader) == set()
    assert (await engine.generate(Prompt(ASK, Sampling(5)))).text


async def test_the_log_never_holds_a_prompt(engine: LocalEngine, engine_state: Path) -> None:
    messages = (Message("user", f"{CANARY} has asthma. Repeat that."),)
    for schema in (None, SCHEMA):
        await engine.generate(Prompt(messages, Sampling(30), schema))
    with pytest.raises(EngineError, match="refused the schema") as caught:
        await engine.generate(Prompt(messages, Sampling(30), {"type": "nonsense", "title": CANARY}))
    assert CANARY not in f"{caught.value} {caught.value.advice}"
    log = engine_state / "engine.log"
    assert log.stat().st_size > 1000
    assert CANARY.encode() not in log.read_bytes()
