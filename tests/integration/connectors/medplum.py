"""A second FHIR server that is not ours: Medplum's router over memory. No atomic transactions, no history of
who asked, UUID versions, references found only by their exact text."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from fixtures.servers import free_port
from tests.conftest import ROOT, SHARED, missing

_SCRIPT = SHARED / "recipes" / "medplum-memory-server.mjs"


def _packages() -> Path:
    given = os.environ.get("EPICRISIS_TEST_NODE_MODULES")  # noqa: TID251 - where a machine keeps them
    folder = Path(given) if given else ROOT / "tests" / "node" / "node_modules"
    if not (folder / "@medplum" / "fhir-router").is_dir():
        missing("@medplum/fhir-router from npm")
    if shutil.which("node") is None or not _SCRIPT.is_file():
        missing("Node.js and the recipe of the Medplum server")
    return folder


@contextmanager
def medplum_server(folder: Path) -> Iterator[str]:
    """Yield the base URL of a running server with nothing in it."""
    packages, port = _packages(), free_port()
    (folder / "node_modules").symlink_to(packages)
    shutil.copy(_SCRIPT, folder / "server.mjs")
    process = subprocess.Popen(
        ["node", "server.mjs"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PORT": str(port)},  # noqa: TID251
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}/fhir/R4"
    try:
        _wait(base, process)
        yield base
    finally:
        process.terminate()
        process.wait(10)


def _wait(base: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "the Medplum server stopped"
        try:
            httpx.get(f"{base}/Patient", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the Medplum server did not start")
