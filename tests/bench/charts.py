"""The charts that are measured: the 42 real ones beside the project where they are, else the demo's six."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from connectors.fhir.codec import decode
from fixtures.cohort import make_cohort
from fixtures.servers import SekmetServer
from service.context.templates import TemplateSet, load

HOME = Path(".epicrisis")
SYNTHEA = Path(__file__).parent.parent.parent.parent / "shared" / "data" / "synthea"
ORDINARY = 20
"""Place, by size from the smallest on, of the chart that stands for an ordinary one."""
UNBOUNDED = 10**9
"""A token budget and a number of days that leave nothing out."""


@dataclass(frozen=True)
class Chart:
    """One patient's Bundle."""

    name: str
    data: bytes
    shared: bool

    @cached_property
    def bundle(self) -> dict[str, Any]:
        """The Bundle, decimals as recorded."""
        decoded: dict[str, Any] = decode(self.data)
        return decoded

    @property
    def work(self) -> str:
        """`largest chart, 11.3 MB, 3419 resources`"""
        return f"{self.name}, {len(self.data) / 1e6:.1f} MB, {len(self.bundle['entry'])} resources"


@dataclass(frozen=True)
class Charts:
    """All charts, the smallest first, and what must be on a server before them."""

    all: tuple[bytes, ...]
    before: tuple[bytes, ...]
    shared: bool

    @property
    def largest(self) -> Chart:
        """The chart with the most bytes."""
        return Chart("largest chart", self.all[-1], self.shared)

    @property
    def ordinary(self) -> Chart:
        """A chart of middling size."""
        return Chart("ordinary chart", self.all[min(ORDINARY, len(self.all) // 2)], self.shared)


def find_charts(on_progress: Callable[[int, int], None]) -> Charts:
    """Return the shared charts, or the demonstration's cohort, made where it is not there yet."""
    files = sorted(SYNTHEA.glob("*.json.gz"))
    people = [gzip.decompress(path.read_bytes()) for path in files if not path.name.startswith("0-")]
    if people:
        others = [gzip.decompress(path.read_bytes()) for path in files if path.name.startswith("0-")]
        return Charts(tuple(sorted(people, key=len)), tuple(others), shared=True)
    made = [chart.path.read_bytes() for chart in make_cohort(HOME / "demo" / "cohort", on_progress)]
    return Charts(tuple(sorted(made, key=len)), (), shared=False)


def everything_of(set_id: str) -> TemplateSet:
    """Return a template set that leaves no vital sign out for its age."""
    templates = load(set_id)
    return replace(templates, limits=replace(templates.limits, vitals_days=UNBOUNDED))


def post(server: SekmetServer, data: bytes) -> str:
    """Post a transaction and return the server's id of its first resource, the patient."""
    headers = {"Content-Type": "application/fhir+json"}
    with httpx.Client(trust_env=False, timeout=120) as http:
        answer = http.post(server.base_url, content=data, headers=headers)
    answer.raise_for_status()
    location = str(answer.json()["entry"][0]["response"]["location"])
    return location.partition("/_history")[0].rsplit("/", 1)[-1]
