"""The processes of a night: a FHIR server, an engine, a database, workers. Each can be killed.

All are started from the main thread: Linux ends them when the thread that started them ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from fixtures.postgres import PostgresServer
from fixtures.servers import SekmetServer, free_port
from service.settings import Settings, load_settings

READY_S = 600.0
_PR_SET_PDEATHSIG = 1
WORKING = "Working as"
SCHEDULE = '[night]\ncron = "* * * * *"\n'


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Process:
    """One of our processes: killed without warning, started again, ended politely."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: str
    """What it prints when it is at work."""
    running: subprocess.Popen[bytes] | None = None
    _from: int = 0

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.is_alive:
            return
        self._from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                list(self.command), env=dict(self.environment), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, preexec_fn=_end_with_parent, start_new_session=True,
            )  # fmt: skip

    @property
    def is_alive(self) -> bool:
        return self.running is not None and self.running.poll() is None

    @property
    def is_ready(self) -> bool:
        return self.is_alive and self.ready in self.said

    @property
    def said(self) -> str:
        """What it printed since it was started last."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")

    def wait_ready(self) -> None:
        """Wait until it is at work."""
        until = time.monotonic() + READY_S
        while not self.is_ready:
            assert self.is_alive, f"{self.name} ended by itself: {self.said[-2000:]}"
            assert time.monotonic() < until, f"{self.name} is not ready: {self.said[-2000:]}"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it and its children in the middle of whatever they do."""
        if self.running is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.running.pid, signal.SIGKILL)
            self.running.wait()
        self.running = None

    def stop(self, timeout_s: float = 90.0) -> int:
        """End it politely, and return its exit code."""
        process, self.running = self.running, None
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return -9


@dataclass
class Stage:
    """A house at night."""

    folder: Path
    postgres: PostgresServer | None = None
    """The database server; without one, both databases are SQLite files."""
    workers: int = 2
    more: Mapping[str, str] = field(default_factory=dict)
    """Further settings of ours."""
    kills: Counter[str] = field(default_factory=Counter)
    ended_alone: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.sekmet = SekmetServer(self.folder / "ehr")
        self.engine_port = free_port()
        self.database_url = self.postgres.new_database() if self.postgres is not None else ""
        schedules = self.folder / "schedules.toml"
        schedules.write_text(SCHEDULE, encoding="utf-8")
        self.environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251 - a real process needs it
            "EPICRISIS_HOME": str(self.folder / "home"),
            "EPICRISIS_FHIR_URL": self.sekmet.base_url,
            "EPICRISIS_FHIR_TIMEOUT_S": "20",
            "EPICRISIS_ENGINE_URL": f"http://127.0.0.1:{self.engine_port}/v1",
            "EPICRISIS_MODEL": "scripted",
            "EPICRISIS_MODEL_DIGEST": "scripted",
            "EPICRISIS_SCHEDULES": str(schedules),
            "EPICRISIS_POLL_S": "1",
            "EPICRISIS_RETRY_SCALE": "0.05",
            "EPICRISIS_DRAIN_S": "30",
            **({"EPICRISIS_DATABASE_URL": self.database_url} if self.database_url else {}),
            **self.more,
        }
        self.engine = Process(
            "engine", self._scripted(), self.environment, self.folder / "engine.log", "scripted engine"
        )
        self.crew = [
            Process(f"worker {number}", self._ours("work"), self.environment,
                    self.folder / f"worker-{number}.log", WORKING)
            for number in range(1, self.workers + 1)
        ]  # fmt: skip

    def _scripted(self) -> Sequence[str]:
        return (
            sys.executable, "-m", "service.engine.scripted_server", "--port", str(self.engine_port),
            "--seats", "8", "--prefill-tokens-per-s", "8000", "--decode-tokens-per-s", "200",
        )  # fmt: skip

    def _ours(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "service.cli", *arguments]

    def __enter__(self) -> Self:
        try:
            self.sekmet.start()
            self.engine.start()
            self.engine.wait_ready()
            for worker in self.crew:
                worker.start()
            for worker in self.crew:
                worker.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all, whatever state they are in."""
        for process in (*self.crew, self.engine):
            process.kill()
        self.sekmet.stop()

    @property
    def base(self) -> str:
        """The FHIR base URL."""
        return self.sekmet.base_url

    @property
    def targets(self) -> tuple[str, ...]:
        """What can be killed."""
        crew = tuple(worker.name for worker in self.crew)
        return (*crew, "engine", "FHIR server", *(("database",) if self.postgres is not None else ()))

    def kill(self, target: str) -> None:
        """Kill a process by its name, and count it."""
        if target == "FHIR server":
            self.sekmet.kill()
        elif target == "database":
            assert self.postgres is not None
            self.postgres.kill()
        else:
            self._process(target).kill()
        self.kills[target] += 1

    def start(self, target: str) -> None:
        """Start a process by its name; servers are waited for, workers are not."""
        if target == "FHIR server":
            self.sekmet.start()
        elif target == "database":
            assert self.postgres is not None
            self.postgres.start()
        else:
            self._process(target).start()

    def _process(self, target: str) -> Process:
        return next(one for one in (*self.crew, self.engine) if one.name == target)

    def tend(self) -> None:
        """Start again what ended by itself, as a site's supervisor does, and count it."""
        for process in (*self.crew, self.engine):
            if not process.is_alive:
                if process.running is not None:
                    self.ended_alone[process.name] += 1
                process.start()

    def wait_ready(self) -> None:
        """Wait until everything is at work."""
        until = time.monotonic() + READY_S
        while not all(process.is_ready for process in (*self.crew, self.engine)):
            self.tend()
            assert time.monotonic() < until, [worker.said[-1000:] for worker in self.crew]
            time.sleep(0.1)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command of ours to its end."""
        return subprocess.run(
            self._ours(*arguments), env=self.environment, capture_output=True, text=True, check=False,
            timeout=600,
        )  # fmt: skip

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin one command of ours."""
        return subprocess.Popen(
            self._ours(*arguments), env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, preexec_fn=_end_with_parent,
        )  # fmt: skip

    def sweep(self) -> dict[str, Any]:
        """Make one pass, and return its report."""
        done = self.command("sweep", "--json")
        assert done.returncode in (0, 18), done.stderr[-2000:]
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def settings(self) -> Settings:
        """What our processes were started with."""
        prefix = "EPICRISIS_"
        given = {
            n.removeprefix(prefix).lower(): v for n, v in self.environment.items() if n.startswith(prefix)
        }
        return load_settings(**given)

    def put(self, resource: dict[str, Any], patience_s: float = 60.0) -> None:
        """Put a resource with an id of its own; again as long as the server is away."""
        until = time.monotonic() + patience_s
        while True:
            with suppress(httpx.HTTPError):
                url = f"{self.base}/{resource['resourceType']}/{resource['id']}"
                answer = httpx.put(url, json=resource, trust_env=False, timeout=20)
                if answer.status_code < 300:
                    return
                assert answer.status_code >= 500, answer.text
            assert time.monotonic() < until, f"{resource['resourceType']} could not be put"
            time.sleep(0.2)

    def everything(self, kind: str, **wanted: str) -> list[dict[str, Any]]:
        """All resources of a kind, by plain GETs, page by page."""
        found: list[dict[str, Any]] = []
        url: str | None = f"{self.base}/{kind}?{httpx.QueryParams({'_count': '200', **wanted})}"
        while url is not None:
            bundle = httpx.get(url, trust_env=False, timeout=60).raise_for_status().json()
            found += [entry["resource"] for entry in bundle.get("entry", [])]
            url = next((link["url"] for link in bundle.get("link", []) if link["relation"] == "next"), None)
        return found
