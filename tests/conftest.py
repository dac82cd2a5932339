"""Guards that hold for every test, and the fixtures that several distances share."""

from __future__ import annotations

import gzip
import os
import socket
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pytest

from fixtures.pacs import PacsServer, has_orthanc
from fixtures.postgres import PostgresServer
from tests.canary import (
    CANARY,
    _everybody_is_heard,
    _nobody_says_the_canarys_name,
    pytest_runtest_makereport,
)

# Correctness tests never assert wall-clock time.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

__all__ = [
    "CANARY",
    "_everybody_is_heard",
    "_nobody_says_the_canarys_name",
    "pytest_runtest_makereport",
]

IN_CI = os.environ.get("CI") == "true"  # noqa: TID251 - the one thing a test may ask of its surroundings


def missing(what: str) -> None:
    """Skip with one sentence where the machine lacks something; fail under CI=true."""
    if IN_CI:
        pytest.fail(f"CI needs {what}")
    pytest.skip(f"needs {what}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where tests of the engine alone are asked for, leave modules unread that have none."""
    if config.option.markexpr == "engine" and collection_path.match("test_*.py"):
        return b"pytest.mark.engine" not in collection_path.read_bytes() or None
    return None


@pytest.fixture(autouse=True)
def _no_socket_but_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    real_connect = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
            raise OSError(f"tests may reach loopback only, not {address[0]}")
        real_connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(autouse=True)
def _cleared_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):  # noqa: TID251
        if name.startswith("EPICRISIS_") and not name.startswith("EPICRISIS_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole session: make a database each, and never stop it."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def pacs() -> Iterator[PacsServer]:
    """A real PACS for the whole session. Store under UIDs of your own, and never stop it."""
    if not has_orthanc():
        missing("Orthanc (apt: orthanc, orthanc-dicomweb)")
    with PacsServer() as server:
        yield server


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data beside the project."""
    folder = SHARED / "data"
    if not folder.is_dir():
        missing("the test data in ../shared/data")
    return folder


def synthea_bundles(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, Bundle) for every patient bundle of the original Synthea, smallest first."""
    files = [p for p in (folder / "synthea").glob("*.json.gz") if not p.name.startswith("0-")]
    decoder = msgspec.json.Decoder(float_hook=Decimal)
    for path in sorted(files, key=lambda p: p.stat().st_size):
        yield path.name, decoder.decode(gzip.decompress(path.read_bytes()))
