"""Everything that is written passes two FHIR validators that the project did not write."""

from __future__ import annotations

import base64
import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.ports import StoredRun
from service.writeback.labels import WriteProfile
from service.writeback.transaction import build_transaction
from tests.conftest import ROOT, SHARED, missing
from tests.unit.writeback.charts import IDENTITY, make_run, make_summary, varied
from tests.unit.writeback.test_page import HOSTILE, with_claims

pytestmark = [pytest.mark.node, pytest.mark.shared]
PACKAGES = ROOT / "tests" / "node" / "node_modules"
Validate = Callable[[list[Any]], subprocess.CompletedProcess[str]]


@pytest.fixture
def validate(tmp_path: Path) -> Validate:
    node = shutil.which("node")
    recipe = SHARED / "recipes" / "validate-written.mjs"
    if node is None:
        missing("Node.js, for the FHIR validators")
    if not (PACKAGES / "@medplum" / "definitions").is_dir():
        missing("the validators: npm ci --ignore-scripts --prefix tests/node")
    if not recipe.is_file():
        missing("../shared/recipes/validate-written.mjs")
    # A module finds its packages beside itself, so the recipe is run from a folder that has them.
    (tmp_path / "node_modules").symlink_to(PACKAGES)
    script = shutil.copy(recipe, tmp_path / "validate.mjs")

    def run(documents: list[Any]) -> subprocess.CompletedProcess[str]:
        files = []
        for number, document in enumerate(documents):
            files.append(tmp_path / f"{number}.json")
            files[-1].write_text(json.dumps(document))
        command = [str(node), str(script), *map(str, files)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


def build(run: StoredRun, **profile: Any) -> dict[str, Any]:
    return build_transaction(run, software_version="0.1.0", profile=WriteProfile(**profile))


def test_everything_that_is_built_passes(validate: Validate) -> None:
    run = make_run()
    bundles = [
        build(run),
        build_transaction(run, software_version="0.1.0", sign=lambda content: "e30..c2ln"),
        build(run, provenance="put"),
        build(run, device_author=False, confidentiality="R"),
        build(varied(run, incomplete=("Allergies",), restricted=True)),
        build(make_run(summary=make_summary(sections=(), facts=(), refused=()))),
        build(varied(run, identity=replace(IDENTITY, name="", birth_date="", record_number=""))),
        *(build(with_claims(text)) for text in HOSTILE),
    ]
    inner = [
        json.loads(base64.b64decode(content["attachment"]["data"]))
        for bundle in bundles
        for content in bundle["entry"][3]["resource"]["content"]
        if content["attachment"]["contentType"] == "application/fhir+json"
    ]
    assert len(inner) == len(bundles)
    done = validate([*bundles, *inner])
    assert done.returncode == 0, done.stdout + done.stderr


def _resource(bundle: dict[str, Any], number: int) -> dict[str, Any]:
    found = bundle["entry"][number]["resource"]
    assert isinstance(found, dict)
    return found


FAULTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "an unknown status": lambda b: _resource(b, 3).update(status="draft"),
    "an unknown docStatus": lambda b: _resource(b, 3).update(docStatus="unreviewed"),
    "a document without content": lambda b: _resource(b, 3).pop("content"),
    "an unknown element": lambda b: _resource(b, 3).update(reviewed=False),
    "a Provenance without agent": lambda b: _resource(b, 4).pop("agent"),
    "an unknown entity role": lambda b: _resource(b, 4)["entity"][0].update(role="input"),
    "a prompt without content": lambda b: _resource(b, 1).pop("content"),
    "a model card of no known status": lambda b: _resource(b, 2).update(status="active"),
    "an attachment whose size is a text": lambda b: _resource(b, 3)["content"][0]["attachment"].update(
        size="1"
    ),
    "an unknown kind of device name": lambda b: _resource(b, 0)["deviceName"][0].update(type="model"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(validate: Validate, fault: str) -> None:
    bundle = copy.deepcopy(build(make_run()))
    FAULTS[fault](bundle)
    done = validate([bundle])
    assert done.returncode == 1, done.stdout + done.stderr
