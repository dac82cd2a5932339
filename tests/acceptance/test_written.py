"""What stands on the server after a run passes two validators that are not ours."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from fixtures.servers import SekmetServer
from tests.acceptance.conftest import Run
from tests.acceptance.test_faults import load
from tests.integration.writeback.test_validators import Validate, validate

__all__ = ["validate"]

pytestmark = pytest.mark.node


def test_everything_that_was_filed_passes_as_the_server_serves_it(
    epicrisis: Run, sekmet: SekmetServer, validate: Validate
) -> None:
    load(sekmet, "validated")
    filed = epicrisis("summarize", "validated", "--fhir-url", sekmet.base_url, "--json").json
    document = httpx.get(f"{sekmet.base_url}/{filed['document']}").json()
    reference = f"DocumentReference/{document['id']}"
    found = httpx.get(f"{sekmet.base_url}/Provenance", params={"target": reference}).json()
    (provenance,) = [entry["resource"] for entry in found["entry"]]
    device = httpx.get(f"{sekmet.base_url}/{document['author'][0]['reference']}").json()
    derived = [e["what"]["reference"] for e in provenance["entity"] if e["role"] == "derivation"]
    prompt, card = (httpx.get(f"{sekmet.base_url}/{reference}").json() for reference in derived)
    written: list[Any] = [document, provenance, device, prompt, card]
    assert [resource["resourceType"] for resource in written] == [
        "DocumentReference",
        "Provenance",
        "Device",
        "DocumentReference",
        "DocumentReference",
    ]
    ended = validate(written)
    assert ended.returncode == 0, ended.stdout
    broken = validate([{**document, "status": "nonsense"}])
    assert broken.returncode == 1
