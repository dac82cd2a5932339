"""A day of one installation in a machine without a way out, with every kind of process crashed.

    unshare -n python -m tests.acceptance.sealed FOLDER [engine]

With `engine` it is a shorter day with the real engine, which crashes in the middle of an answer.
FOLDER holds afterwards: `report.json` (how each command ended), `said/` (what every process printed),
`home/` (the installation), `tmp/` and `at/` (where they ran), and `asked` (every address beyond loopback that
a process of ours tried to look up or to reach). The FHIR server's own data lie in `ehr/`.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from fixtures.charts import canary_bundle
from fixtures.engines import demonstration_model
from fixtures.servers import SekmetServer, free_port
from tests.acceptance.house import House
from tests.acceptance.soak.stage import Process
from tests.conftest import CANARY, ROOT

SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
PATIENCE_S = 120.0
ENGINE_PATIENCE_S = 900.0
WATCH = """
import sys

def _note(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        found = address[0] if isinstance(address, tuple) else ""
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        found = arguments[0]
    else:
        return
    found = found.decode() if isinstance(found, bytes) else found
    if found not in (None, "", "127.0.0.1", "::1", "localhost"):
        with open({asked!r}, "a") as file:
            file.write(f"{{event}} {{found}}\\n")

sys.addaudithook(_note)
"""
CRASH_IN_A_COMMAND = f"""
import sys
from service import cli

def assemble_record(*given, **more):
    raise ValueError("{CANARY} " + repr(given))

cli.assemble_record = assemble_record
sys.argv = ["epicrisis", "assemble", sys.argv[1], "--json"]
cli.main()
"""
FAULT_IN_A_COMMAND = """
import os, signal, sys
from service import cli

cli.assemble_record = lambda *given, **more: os.kill(os.getpid(), signal.SIGSEGV)
sys.argv = ["epicrisis", "assemble", sys.argv[1], "--json"]
cli.main()
"""
BROKEN = f"""
import sys

def broken(*given, **more):
    raise ValueError("{CANARY} " + repr(given))

{{break_it}}
sys.argv = ["epicrisis", *sys.argv[1:]]
{{start}}
"""
"""A process in which something fails that nobody foresaw, with a chart at hand."""
FAULT = "ValueError"
"""What is told of it: its kind alone."""
START = "from service import cli; cli.main()"
BROKEN_PAGES = BROKEN.format(
    break_it="from service.api.app import Pages; Pages.healthz = lambda self: broken(self)", start=START
)
BROKEN_WORKER = BROKEN.format(
    break_it="from service import summarize; summarize.choose_facts = broken", start=START
)
BROKEN_ENGINE = BROKEN.format(
    break_it="from service.engine import scripted_server as engine; engine.ScriptedServer.spoil = broken",
    start="engine.main()",
)
CRASH_OF_THE_READER = """
import sys
from service.hardening import keep_memory_private, silence_crashes
from service.texts.worker import TextReader
from service.record.attachments import AttachedContent

keep_memory_private()
silence_crashes()
content = open(sys.argv[1], "rb").read()
for entry in ("abort", "fail"):
    reader = TextReader(entry=f"tests.acceptance.sealed:{entry}")
    found = reader.read([AttachedContent("a", content, "text/html", "text/html")])
    sys.stdout.write(found["a"].unread + "\\n")
"""


STARTED = b"Application startup complete"
ENGINE_CRASHES = (("EngineCore", signal.SIGSEGV), ("api_server", signal.SIGABRT))


def abort(content: bytes, media_type: str, declared: str) -> str:
    """Crash as a parser may."""
    os.abort()


def fail(content: bytes, media_type: str, declared: str) -> str:
    """Fail as a parser may, quoting what it read."""
    raise ValueError(content.decode())


def lift_loopback() -> None:
    """Switch the one interface on that there is."""
    with socket.socket() as any_socket:
        wanted = struct.pack("16sh", b"lo", IFF_UP | IFF_RUNNING)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, wanted)


def has_a_way_out() -> bool:
    """Tell whether any address beyond this machine has a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(("192.0.2.1", 9)) == 0


@dataclass
class Day:
    """One installation, its servers, and what became of everything."""

    folder: Path
    house: House
    engine_port: int = field(default_factory=free_port)
    report: dict[str, Any] = field(default_factory=dict)
    patience_s: float = PATIENCE_S

    def __post_init__(self) -> None:
        for name in ("said", "tmp", "at", "watch"):
            (self.folder / name).mkdir()
        watch = WATCH.format(asked=str(self.folder / "asked"))
        (self.folder / "watch" / "sitecustomize.py").write_text(watch)
        schedule = f'[rare]\ncron = "0 0 1 1 *"\nlocations = ["{self.house.ward}"]\n'
        (self.folder / "schedules.toml").write_text(schedule)
        self.environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251 - a real process needs it
            "PYTHONPATH": os.pathsep.join([str(self.folder / "watch"), str(ROOT)]),
            "TMPDIR": str(self.folder / "tmp"),
            "EPICRISIS_HOME": str(self.house.home),
            "EPICRISIS_FHIR_URL": self.house.base,
            "EPICRISIS_ENGINE_URL": f"http://127.0.0.1:{self.engine_port}/v1",
            "EPICRISIS_MODEL": "scripted",
            "EPICRISIS_SCHEDULES": str(self.folder / "schedules.toml"),
            "EPICRISIS_POLL_S": "0",
            "EPICRISIS_LOG_LEVEL": "debug",
        }

    def run(self, name: str, *command: str) -> None:
        """Run one command to its end."""
        with (self.folder / "said" / name).open("wb") as said:
            ended = subprocess.run(
                [sys.executable, *command], check=False, env=self.environment, cwd=self.folder / "at",
                stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, timeout=self.patience_s,
            )  # fmt: skip
        self.report[name] = ended.returncode

    def epicrisis(self, name: str, *arguments: str) -> None:
        """Run one command of the command line."""
        self.run(name, "-m", "service.cli", *arguments)

    def process(self, name: str, *command: str, ready: str) -> Process:
        """Start a process, and wait until it is at work."""
        os.chdir(self.folder / "at")
        log = self.folder / "said" / name
        process = Process(name, (sys.executable, *command), self.environment, log, ready)
        process.start()
        process.wait_ready()
        return process

    def crash(self, process: Process, how: signal.Signals = signal.SIGABRT) -> None:
        """Have a process crash as one with a fault in its memory does."""
        assert process.running is not None
        process.running.send_signal(how)
        self.report[f"crashed {process.name}"] = process.running.wait(PATIENCE_S)
        process.kill()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for what other processes do."""
        until = time.monotonic() + self.patience_s
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(what)
            time.sleep(0.1)


def admit_with_note(house: House, number: int) -> None:
    """Admit a patient whose chart has a note that the reader of texts has to read."""
    house.admit(number)
    page = f"<html><body><p>{CANARY} has asthma.</p></body></html>".encode()
    attached = {"contentType": "text/html", "data": base64.b64encode(page).decode()}
    house.put(
        {
            "resourceType": "DocumentReference", "id": f"{house.patient(number)}-note", "status": "current",
            "subject": {"reference": f"Patient/{house.patient(number)}"}, "date": "2026-11-20T09:00:00Z",
            "content": [{"attachment": attached}],
        }
    )  # fmt: skip


def live(day: Day) -> None:
    """Let the day pass."""
    house, port = day.house, free_port()
    chart, note = day.folder / "chart.json", day.folder / "note.html"
    chart.write_text(json.dumps(canary_bundle("1")))
    note.write_text(f"<p>{CANARY}</p>")
    serving = ("-m", "service.engine.scripted_server", "--port", str(day.engine_port))
    engine = day.process("engine", *serving, ready="scripted engine")
    for number in (1, 2):
        admit_with_note(house, number)
    day.epicrisis("doctor", "doctor")
    day.epicrisis("summarize", "summarize", house.patient(1), "--json")
    day.epicrisis("sweep", "sweep", "--schedule", "rare", "--json")
    day.report["documents"] = house.documents(2)
    pages = day.process("serve", "-m", "service.cli", "serve", "--port", str(port), ready="The pages are at")
    health = httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False, timeout=60)
    day.report["healthz"] = health.status_code
    day.crash(pages)
    worker = day.process("worker", "-m", "service.cli", "work", ready="Working as")
    admit_with_note(house, 3)
    day.epicrisis("order", "sweep", "--schedule", "rare", "--json")
    day.report["documents again"] = house.documents(3)
    day.crash(engine)
    house.condition(3, "news", f"{CANARY} has a fever")
    asking = ("-m", "service.cli", "summarize", house.patient(3))
    summary = day.process("summary", *asking, ready="Summarising")
    time.sleep(5.0)  # by now it reads, or asks an engine that is not there
    day.crash(summary)
    day.crash(worker)
    day.run("crashed command", "-c", CRASH_IN_A_COMMAND, str(chart))
    day.run("crashed reader", "-c", CRASH_OF_THE_READER, str(note))


def break_down(day: Day) -> None:
    """Have something fail in each process that nobody foresaw, then end it by a fault in its memory."""
    house, port = day.house, free_port()
    arguments = ("-c", BROKEN_ENGINE, "--port", str(day.engine_port))
    engine = day.process("broken engine", *arguments, ready="scripted engine")
    day.epicrisis("unanswered", "summarize", house.patient(1), "--attempt", "2")
    day.crash(engine, signal.SIGSEGV)
    serving = ("-m", "service.engine.scripted_server", "--port", str(day.engine_port))
    engine = day.process("engine again", *serving, ready="scripted engine")
    pages = day.process(
        "broken serve", "-c", BROKEN_PAGES, "serve", "--port", str(port), ready="The pages are"
    )
    health = httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False, timeout=60)
    day.report["broken healthz"] = health.status_code
    day.crash(pages, signal.SIGSEGV)
    day.environment["EPICRISIS_POLL_S"] = "1"  # nobody else is there to look
    worker = day.process("broken worker", "-c", BROKEN_WORKER, "work", ready="Working as")
    admit_with_note(house, 4)
    said = day.folder / "said" / "broken worker"
    day.until(lambda: FAULT in said.read_text(), "the worker meets the fault")
    day.crash(worker, signal.SIGSEGV)
    engine.kill()
    day.run("fault in a command", "-c", FAULT_IN_A_COMMAND, str(day.folder / "chart.json"))


def live_with_the_engine(day: Day) -> None:
    """Have the real engine write one summary; in the middle of the next one its processes crash in turn."""
    house = day.house
    del day.environment["EPICRISIS_ENGINE_URL"]
    day.environment |= {"EPICRISIS_MODEL": str(demonstration_model()), "HOME": str(day.folder / "tmp")}
    day.patience_s = ENGINE_PATIENCE_S
    for number in (1, 2):
        admit_with_note(house, number)
    day.epicrisis("summarize", "summarize", house.patient(1), "--json")
    summary = day.process("summary", "-m", "service.cli", "summarize", house.patient(2), ready="")
    for number, (name, how) in enumerate(ENGINE_CRASHES, 2):
        day.until(lambda n=number: starts_of_the_engine(house) == n, "the engine is up")  # type: ignore[misc]
        time.sleep(3.0)  # by now it reads a prompt, or answers it
        found = processes_named(name)
        for process in found:
            os.kill(process, how)
        day.report[f"crashed {name}"] = len(found)
    day.until(lambda: starts_of_the_engine(house) == 4, "the engine is up again")
    summary.kill()
    day.until(lambda: not processes_named("VLLM") and not processes_named("api_server"), "the engine's end")


def starts_of_the_engine(house: House) -> int:
    """Return how often the real engine came up, as its log says."""
    return sum(log.read_bytes().count(STARTED) for log in (house.home / "engine").glob("engine.log*"))


def processes_named(name: str) -> list[int]:
    """Return the processes of this namespace's engine that are called so."""
    found = []
    here = os.readlink("/proc/self/ns/net")
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                is_ours = os.readlink(folder / "ns" / "net") == here
                if is_ours and name.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


def main(folder: Path, which: str = "") -> None:
    """Run the day, and leave the report."""
    lift_loopback()
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))  # so that a crash would leave one, if it may
    with SekmetServer(folder / "ehr") as server:
        day = Day(folder, House(server.base_url, folder / "home"))
        day.report |= {"has a way out": has_a_way_out(), "tag": day.house.tag}
        if which == "engine":
            live_with_the_engine(day)
        else:
            live(day)
            break_down(day)
    (folder / "report.json").write_text(json.dumps(day.report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
