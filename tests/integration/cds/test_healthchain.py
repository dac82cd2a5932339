"""A CDS Hooks client that the project did not write (HealthChain, PyPI) shows our card."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, missing
from tests.integration.cds.conftest import Site
from tests.unit.api.cds.ehr import DISCHARGE, KEYS, VIEW, whole_prefetch

PYTHON = ROOT / ".clients" / "healthchain" / "bin" / "python"
"""An environment of its own: its dependencies are not ours."""
SCRIPT = Path(__file__).parent / "ask_healthchain.py"


async def ask(
    site: Site, folder: Path, service: str, workflow: str, *, signs: bool = True
) -> list[dict[str, Any]]:
    """Have HealthChain call a service; return what it shows."""
    if not PYTHON.exists():
        missing("HealthChain in .clients/healthchain (.ci/run installs it)")
    prefetch = folder / "prefetch.json"
    prefetch.write_text(json.dumps(whole_prefetch()))
    context = {"userId": "Practitioner/7", "patientId": "1"}
    if workflow == "encounter-discharge":
        context["encounterId"] = "9"
    given = {
        "url": f"{site.addresses[0]}/cds-services/{service}", "workflow": workflow, "prefetch": str(prefetch),
        "context": context, "iss": "https://ehr.hospital.example", "jku": f"{site.ehr.root_url}/jwks.json",
        "key": {**KEYS["ec"].as_dict(private=True), "kid": "ec", "alg": "ES384"}, "signs": signs,
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        str(PYTHON), str(SCRIPT), cwd=folder, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate(json.dumps(given).encode())
    assert process.returncode == 0, err.decode()
    found: list[dict[str, Any]] = json.loads(out.decode().splitlines()[-1])
    return found


async def test_healthchain_shows_the_card_of_both_hooks(site: Site, tmp_path: Path) -> None:
    for service, workflow in ((VIEW, "patient-view"), (DISCHARGE, "encounter-discharge")):
        (answer,) = await ask(site, tmp_path, service, workflow)
        (card,) = answer["cards"]
        assert card["summary"].startswith("History (AI draft, not reviewed), read ")
        assert card["links"][0]["type"] == "smart"
        assert "as they were" in card["detail"]


async def test_healthchain_without_a_signature_is_shown_nothing(site: Site, tmp_path: Path) -> None:
    assert await ask(site, tmp_path, VIEW, "patient-view", signs=False) == [{}]
