"""Required facts of the demonstration's charts, published with the real engine and the small model."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.fhir.codec import decode
from fixtures.cohort import make_cohort
from service.engine.local import LocalEngine
from service.grounding.summary import Origin
from service.record.assemble import resources_of
from tests.contract.context.published import publish, told_in

pytestmark = pytest.mark.engine

SMALLEST = 1
"""How many charts: each takes the small model two minutes or more without a GPU."""


async def test_every_required_fact_is_in_the_summary_that_the_small_model_wrote(
    engine: LocalEngine, tmp_path: Path
) -> None:
    charts = sorted(make_cohort(tmp_path), key=lambda chart: chart.resources)[:SMALLEST]
    made = [await publish(list(resources_of(decode(chart.path.read_bytes()))), engine) for chart in charts]
    for one in made:
        assert len(one.required) > 3
        assert [fact.text for fact in one.required if not told_in(one.summary, fact)] == []
    claims = [claim for one in made for claim in one.summary.published]
    assert {claim.origin for claim in claims} == {Origin.MODEL, Origin.RECORD}
