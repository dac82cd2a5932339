"""How our own server is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.engine.launch import Machine, server_command, server_environment

SMALL_CPU = Machine(is_cpu_build=True, has_fast_bfloat16=False, cpu_cores=(0, 1))
BIG_CPU = Machine(is_cpu_build=True, has_fast_bfloat16=True, cpu_cores=tuple(range(32)))
GPU = Machine(is_cpu_build=False, has_fast_bfloat16=False, cpu_cores=(0, 1))


def command(machine: Machine) -> list[str]:
    return server_command(Path("/models/m"), "m", 8001, context_tokens=8192, machine=machine)


def value_of(flag: str, words: list[str]) -> str:
    return words[words.index(flag) + 1]


def test_the_server_listens_on_loopback_and_loads_safetensors_alone() -> None:
    words = command(GPU)
    assert value_of("--host", words) == "127.0.0.1"
    assert value_of("--load-format", words) == "safetensors"
    assert "--trust-remote-code" not in words
    assert {"--disable-uvicorn-access-log", "--no-enable-log-requests"} <= set(words)


@pytest.mark.parametrize("flag", ["--enforce-eager", "--speculative-config"])
def test_eager_mode_and_guessing_by_copying_are_for_the_cpu_alone(flag: str) -> None:
    assert flag in command(SMALL_CPU)
    assert flag not in command(GPU)


def test_a_long_prompt_is_read_in_steps_small_enough_for_the_machine_and_the_caller_has_the_last_word() -> (
    None
):
    assert value_of("--max-num-batched-tokens", command(SMALL_CPU)) == "512"
    assert value_of("--max-num-batched-tokens", command(GPU)) == "2048"
    assert int(value_of("--max-num-seqs", command(GPU))) > 32
    words = server_command(
        Path("/m"), "m", 1, context_tokens=9, machine=GPU, extra=("--max-num-batched-tokens", "4096")
    )
    assert words[-1] == "4096"


def test_bfloat16_is_left_only_where_a_processor_merely_emulates_it() -> None:
    assert [value_of("--dtype", command(m)) for m in (SMALL_CPU, BIG_CPU, GPU)] == [
        "float32",
        "bfloat16",
        "bfloat16",
    ]


def test_the_grammar_admits_no_white_space() -> None:
    said = json.loads(value_of("--structured-outputs-config", command(GPU)))
    assert said == {"backend": "xgrammar", "disable_any_whitespace": True}


def test_the_environment_is_an_allow_list() -> None:
    base = {
        "PATH": "/bin",
        "EPICRISIS_KEY": "s",
        "HF_TOKEN": "s",
        "https_proxy": "s",
        "AWS_SECRET_ACCESS_KEY": "s",
    }
    environment = server_environment(base, "key", Path("/state/cache"), GPU)
    assert environment["PATH"] == "/bin"
    assert "s" not in environment.values()
    assert environment["VLLM_API_KEY"] == "key"


def test_nothing_leaves_the_machine() -> None:
    environment = server_environment({}, "key", Path("/state/cache"), GPU)
    assert (
        environment["HF_HUB_OFFLINE"],
        environment["VLLM_NO_USAGE_STATS"],
        environment["DO_NOT_TRACK"],
    ) == (
        "1",
        "1",
        "1",
    )


def test_on_few_cores_all_of_them_compute_unless_the_caller_says_otherwise() -> None:
    def bound(machine: Machine, **base: str) -> str | None:
        return server_environment(base, "key", Path("/c"), machine).get("VLLM_CPU_OMP_THREADS_BIND")

    assert bound(SMALL_CPU) == "0,1"
    assert bound(BIG_CPU) is None
    assert bound(GPU) is None
    assert bound(SMALL_CPU, VLLM_CPU_OMP_THREADS_BIND="1") == "1"
