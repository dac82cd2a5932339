"""Runs tests on one mutant after another, each in a fork of a process that has the libraries loaded.

It runs in a copy of the project (`python -m tests.mutation.worker TIMEOUT_S FILE…`, one JSON order a line on
stdin, one JSON answer a line on stdout). The changed module stands in memory alone, so that no compiled file
of one mutant can be taken for another's.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any

import hypothesis
import pytest

LOADED = (
    "_hypothesis_pytestplugin", "anyio.pytest_plugin", "faker.contrib.pytest.plugin",
    "fhir.resources.R4B.bundle", "fastapi", "httpx", "jinja2", "lxml.html", "msgspec", "rich.progress",
    "sqlmodel", "typer", "uvicorn", "service.context.choose", "service.engine.local",
    "service.record.required",
)  # fmt: skip
"""What every run needs and no mutant changes: loaded once, before the forks."""
MEMORY_BYTES = 4 * 2**30
"""A mutant that grows without end dies by itself, and not the machine."""
OPTIONS = (
    "-x", "-q", "--no-header", "-p", "no:cacheprovider", "--hypothesis-seed=0",
    "-W", "ignore::pytest.PytestAssertRewriteWarning",  # libraries that are plugins too are loaded already
)  # fmt: skip
TAKEN = Path(".seconds.json")
"""In the copy: what each test takes."""
SLOW_S = 0.04
KILLED, SURVIVED, TIMEOUT = "killed", "survived", "timeout"


class ChangedModule(SourceFileLoader):
    """Finds one module, and loads it from a changed source."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Answer for this module alone."""
        return spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        """Compile the changed source; the file and its compiled form stay unread."""
        return compile(self._source, self.path, "exec", dont_inherit=True)


class _Quick:
    """A run for one verdict: the quickest tests first, no search for the smallest counterexample.

    What each test takes is noted in the run on the code as it is.
    """

    def __init__(self) -> None:
        self._is_first = not TAKEN.exists()
        self._seconds: dict[str, float] = {} if self._is_first else json.loads(TAKEN.read_text())

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self._seconds.get(item.nodeid, 0.0) > SLOW_S)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._is_first:
            self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        if self._is_first:
            TAKEN.write_text(json.dumps(self._seconds))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:  # after conftest's own profile, before any test is imported
        needed = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("quick", hypothesis.settings(), phases=needed, database=None)
        hypothesis.settings.load_profile("quick")


def judge(order: dict[str, str], files: Sequence[str], timeout_s: int) -> dict[str, Any]:
    """Return the verdict of the tests on one change, its seconds, and the last lines that pytest wrote.

    The tests that are named for the module run first, and alone: they are the likeliest to notice.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        for group in filter(None, parted(files, order.get("module", ""))):
            child = os.fork()
            if child == 0:
                _run(order, group, timeout_s, log.fileno())
            _, status = os.waitpid(child, 0)
            if status:
                break
        log.seek(0)
        said = log.read().decode(errors="replace").splitlines()[-25:]
    return {"verdict": _verdict(status), "seconds": time.monotonic() - started, "said": "\n".join(said)}


def _run(order: dict[str, str], files: Sequence[str], timeout_s: int, log: int) -> None:
    """Run the tests in this fork and end it; the alarm ends it too, even inside a pattern that never ends."""
    code = 3
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(timeout_s)
        if order:
            path = str(Path(order["path"]).resolve())
            sys.meta_path.insert(0, ChangedModule(order["module"], path, order["source"]))
        code = int(pytest.main([*OPTIONS, *files], plugins=[_Quick()]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _verdict(status: int) -> str:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return TIMEOUT
    # The tests are green without the change: whatever else ends the run was the change's doing.
    return SURVIVED if status == 0 else KILLED


def parted(files: Sequence[str], module: str) -> tuple[list[str], list[str]]:
    """Part the tests named for a module (`test_check.py`, `test_check_words.py`) from the rest."""
    name = f"test_{module.rsplit('.', 1)[-1]}"
    own = [
        file
        for file in files
        if module and (Path(file).stem == name or Path(file).stem.startswith(f"{name}_"))
    ]
    return own, [file for file in files if file not in own]


def main(timeout_s: int, files: Sequence[str]) -> None:
    """Serve orders until stdin ends: `{}` runs the tests on the code as it is."""
    for name in LOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is loaded is no garbage of any run
    for line in sys.stdin:
        order = json.loads(line)
        answer = judge(order, files, timeout_s)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
