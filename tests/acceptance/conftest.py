"""What a patient in, a document out needs: the command line in this process, and servers beside it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures.servers import SekmetServer
from service import cli
from tests.canary import LISTENER
from tests.integration.connectors.fault_server import FaultServer
from tests.integration.connectors.medplum import medplum_server


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.stdout)


Run = Callable[..., Ended]


@pytest.fixture
def epicrisis(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Run]:
    """Run one command of the command line, in a home of its own."""
    names = ("", "httpx", "httpcore", "uvicorn.access", "asyncio", "multipart")
    loggers = [logging.getLogger(name) for name in names]
    levels, handlers = [logger.level for logger in loggers], logging.getLogger().handlers[:]

    def run(*arguments: str, **environment: str) -> Ended:
        monkeypatch.setenv("EPICRISIS_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("EPICRISIS_LOG_LEVEL", "debug")
        monkeypatch.setenv("EPICRISIS_ENGINE", "scripted")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["epicrisis", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        LISTENER.hear(captured.err, f"epicrisis {' '.join(arguments[:1])}")
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, captured.out, captured.err)

    yield run
    for logger, level in zip(loggers, levels, strict=True):  # what the command set up was for its own process
        logger.setLevel(level)
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def faults() -> Iterator[FaultServer]:
    """A server that fails on purpose, in a thread of its own."""
    server = FaultServer()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    yield server
    asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(10)
    asyncio.run_coroutine_threadsafe(_let_go(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def _let_go() -> None:
    """End what still serves a connection that was left hanging."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(scope="session")
def sekmet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SekmetServer]:
    """A real FHIR server for the session."""
    with SekmetServer(tmp_path_factory.mktemp("sekmet")) as server:
        yield server


@pytest.fixture(scope="module")
def medplum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a second FHIR server, with nothing in it."""
    with medplum_server(tmp_path_factory.mktemp("medplum")) as base:
        yield base
