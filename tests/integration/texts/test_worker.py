"""The child that reads: what breaks it costs one text, and it never outlives its use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.record.attachments import content_key
from service.record.facts import Extracted
from service.texts.frames import REQUEST, Limits
from service.texts.worker import Job, TextReader, read_texts
from tests.conftest import CANARY, ROOT
from tests.unit.record.charts import patient, resource
from tests.unit.record.test_documents import attachment
from tests.unit.texts import portables

ENTRY = "tests.integration.texts.entries:read"
SHORT = Limits(seconds_per_text=1.0)


def job(content: bytes | str, declared: str = "text/html") -> Job:
    data = content.encode() if isinstance(content, str) else content
    return Job(content_key(data, declared), data, declared.partition(";")[0], declared)


def outcome(*deeds: str, limits: Limits = SHORT) -> list[Extracted]:
    """What becomes of contents that tell their reader what to do."""
    jobs = [job(deed) for deed in deeds]
    found = TextReader(limits, ENTRY).read(jobs)
    return [found[item.key] for item in jobs]


def children_of(pid: int) -> list[int]:
    return [
        int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _stat(int(entry.name))[1:2] == [str(pid)]
    ]


def readers_of(pid: int) -> list[int]:
    """The reading children alone: other tests of the session keep a server."""
    command = ((child, Path(f"/proc/{child}/cmdline")) for child in children_of(pid))
    return [child for child, path in command if path.exists() and b"service.texts" in path.read_bytes()]


def is_running(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"])


def _stat(pid: int) -> list[str]:
    """State, parent and more of a process; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def wait_until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("sleep", "text not read (took too long)"),
        ("spin", "text not read (took too long)"),
        ("allocate", "text not read (needs too much memory)"),
        ("crash", "text not read (broke its reader)"),
        ("exit", "text not read (broke its reader)"),
        ("lie", "text not read (broke its reader)"),
        ("raise", "text not read (broke its reader)"),
        ("refuse broken thing", "text not read (broken thing)"),
        ("long 2000001", "text not read (too large)"),
    ],
)
def test_what_breaks_its_reader_costs_only_itself(deed: str, said: str) -> None:
    before, bad, after = outcome("pid", deed, "pid ")
    assert before.unread == after.unread == ""
    assert before.text.isdigit()
    assert after.text.isdigit()
    assert bad == Extracted("", said)
    assert readers_of(os.getpid()) == []


def test_a_deadline_is_kept() -> None:
    started = time.monotonic()
    outcome("sleep", limits=Limits(seconds_per_text=0.5))
    assert time.monotonic() - started < 5


def test_one_child_serves_a_call_and_the_next_call_has_its_own() -> None:
    reader = TextReader(SHORT, ENTRY)
    calls = [reader.read([job("pid"), job("pid ")]).values() for _ in range(2)]
    first, second = ({extracted.text for extracted in call} for call in calls)
    assert len(first) == len(second) == 1
    assert first != second
    assert str(os.getpid()) not in first | second


def test_a_child_that_prints_does_not_speak_in_its_readers_place() -> None:
    assert outcome("print truth", "print again") == [Extracted("truth"), Extracted("again")]


def test_a_child_sees_nothing_of_our_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPICRISIS_TOKEN", CANARY)
    (seen,) = outcome("environment")
    assert set(seen.text.split()) <= {"PYTHONPATH", "PYTHONUTF8", "LC_CTYPE"}


def test_a_child_writes_no_file(tmp_path: Path) -> None:
    (said,) = outcome(f"write {tmp_path / 'leak'}")
    assert said.text == "refused"


def test_a_reader_that_does_not_start_is_not_tried_again_and_again() -> None:
    reader = TextReader(SHORT, "tests.integration.texts.entries:nothing")
    found = reader.read([job("pid"), job("pid "), job("plain", "text/plain")])
    assert [extracted.unread for extracted in found.values()] == [
        "text not read (its reader does not start)", "text not read (its reader does not start)", "",
    ]  # fmt: skip


def test_plain_text_and_what_cannot_be_read_need_no_child() -> None:
    limits = Limits(max_text_characters=9, max_bytes=20)
    jobs = [
        job("café".encode("latin-1"), "text/plain"),
        job("x" * 10, "text/plain"),
        job("<p>" + "x" * 20),
        job(b"x", f"image/{'png' * 100}"),
    ]
    found = [*TextReader(limits, "no.such.module:none").read(jobs).values()]
    assert found[:3] == [Extracted("café"), *[Extracted("", "text not read (too large)")] * 2]
    assert found[3].unread.startswith("text not read (format image/png")
    assert len(found[3].unread) < 160


def test_large_contents_and_texts_pass() -> None:
    page = job(b"<p>\xc3\xa9" + b" x" * 900_000 + b"<!--" + b"-" * 30_000_000 + b"-->")
    (extracted,) = TextReader().read([page]).values()
    assert extracted == Extracted("é" + " x" * 900_000)


def test_a_pdf_that_swells_beyond_all_memory_costs_only_itself() -> None:
    packer = zlib.compressobj(1)
    packed = b"".join([*(packer.compress(b" " * 2**20) for _ in range(900)), packer.flush()])
    bomb = portables.pages(portables.stream(packed, b"/Filter /FlateDecode"))
    jobs = [job(bomb, "application/pdf"), job(portables.of_lines("Cough"), "application/pdf")]
    bad, good = TextReader(Limits(memory_bytes=512 * 2**20)).read(jobs).values()
    assert bad.text == ""
    assert bad.unread.startswith("text not read (")
    assert good == Extracted("Cough")


def test_what_was_read_of_a_pdf_with_pictures_comes_with_a_warning() -> None:
    cover, drawn = portables.stream(portables.shown("cover")), portables.stream(b"0 0 m 100 100 l S")
    (extracted,) = TextReader().read([job(portables.pages(cover, drawn), "application/pdf")]).values()
    assert extracted.text.strip() == "cover"
    assert extracted.unread == "text read in part (1 of 2 pages without text, perhaps scanned)"


LOUD = """
from tests.integration.texts.test_worker import outcome
print(len(outcome("raise", "print again")))
"""


def test_what_a_child_prints_reaches_nobody() -> None:
    ended = subprocess.run([sys.executable, "-c", LOUD], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("2\n", "")


def test_a_child_that_never_gets_ready_is_waited_for_once() -> None:
    limits, started = Limits(seconds_to_start=0.5), time.monotonic()
    found = TextReader(limits, "tests.integration.texts.stuck:read").read([job(str(n)) for n in range(8)])
    assert time.monotonic() - started < 2.5
    assert {extracted.unread for extracted in found.values()} == {"text not read (its reader does not start)"}
    assert readers_of(os.getpid()) == []


def test_a_child_that_nobody_watches_ends_itself() -> None:
    command = [sys.executable, "-m", "service.texts.child", ENTRY, str(os.getpid()), "0.1", str(2**30), "9"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        child.stdin.write(REQUEST.pack(0, 0, 4) + b"spin")
        child.stdin.flush()
        try:
            assert child.wait(20) == -signal.SIGALRM
        finally:
            child.kill()


ORPHAN = """
import sys
from tests.integration.texts.test_worker import ENTRY, TextReader, job
TextReader(entry=ENTRY).read([job("pid " + sys.argv[1]), job(sys.argv[2])])
"""


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    started = tmp_path / "started"
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN, str(started), "spin"], cwd=ROOT)
    try:
        wait_until(started.exists, 30)
        (child,) = children_of(parent.pid)
        assert is_running(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not is_running(child), 5)
    finally:
        parent.kill()
        parent.wait()


def chart(*contents: dict[str, Any]) -> list[dict[str, Any]]:
    return [patient(), resource("DocumentReference", content=[*contents])]


def test_the_attachments_of_a_chart_are_read_by_their_keys() -> None:
    page, pdf = "<p>Cough</p>".encode("utf-16"), portables.of_lines("Fever")
    declared = "text/html; charset=UTF-16"
    resources = chart(
        attachment(page, declared), attachment(b"plain"), attachment(b"x", "image/png"),
        {"attachment": {"contentType": "application/pdf", "url": "Binary/1"}},
    )  # fmt: skip
    assert read_texts(resources, {"Binary/1": pdf}, TextReader()) == {
        content_key(page, declared): Extracted("Cough"),
        content_key(b"plain", "text/plain"): Extracted("plain"),
        content_key(pdf, "application/pdf"): Extracted("Fever"),
    }
    assert readers_of(os.getpid()) == []
