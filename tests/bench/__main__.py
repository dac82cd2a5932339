"""`make bench`: our work beside a baseline on the same work, in one run, one table a topic.

`make bench BENCH_ARGS="assembly compaction"` measures these topics alone. Each figure is the median of
several rounds, ours and the baselines taking turns, so that a noisy machine disturbs all of them alike. The
tables go to stdout and to `bench-results/`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fixtures.cohort import make_cohort
from fixtures.engines import demonstration_model
from fixtures.servers import SekmetServer
from service.engine.profiles import profile_for
from service.engine.tokens import FolderTokenizer
from service.engine.weights import DEMONSTRATION_MODEL
from service.terminal import Steps
from tests.bench.assembly import bench_assembly, bench_context
from tests.bench.cache import bench_cache
from tests.bench.cds import bench_cds
from tests.bench.charts import HOME, Charts, find_charts, post
from tests.bench.claims import bench_claims
from tests.bench.compaction import bench_compaction
from tests.bench.looking import bench_looking
from tests.bench.memory import bench_memory
from tests.bench.omission import bench_omission
from tests.bench.ondemand import bench_on_demand
from tests.bench.pictures import bench_embedding
from tests.bench.pixels import bench_pixels
from tests.bench.priority import bench_real, bench_scripted
from tests.bench.pull import bench_pull
from tests.bench.questions import bench_questions
from tests.bench.refresh import bench_refresh, refresh_table
from tests.bench.sidebar import bench_page
from tests.bench.soak import bench_soak
from tests.bench.stages import bench_stages
from tests.bench.table import Table, document, write
from tests.bench.trail import bench_trail
from tests.bench.verification import bench_verification
from tests.bench.warm import bench_warm


def assembly(charts: Charts) -> Iterator[Table]:
    """Assembly and context of the largest chart."""
    yield bench_assembly(charts.largest)
    yield bench_context(charts.largest)


def compaction(charts: Charts) -> Iterator[Table]:
    """Tokens of all charts."""
    tokenizer = FolderTokenizer(demonstration_model(), profile_for(DEMONSTRATION_MODEL))
    yield bench_compaction(charts.all, tokenizer)


def memory(charts: Charts) -> Iterator[Table]:
    """Charts of up to 60,000 resources."""
    yield bench_memory()


def server(charts: Charts) -> Iterator[Table]:
    """Pull and refresh, on a real FHIR server."""
    with tempfile.TemporaryDirectory() as folder, SekmetServer(Path(folder)) as sekmet:
        for data in charts.before:
            post(sekmet, data)
        ordinary, largest = (post(sekmet, chart.data) for chart in (charts.ordinary, charts.largest))
        sekmet.analyze()
        yield asyncio.run(bench_pull(sekmet.base_url, largest))
        rows = asyncio.run(bench_refresh(sekmet.base_url, largest, charts.largest.work, is_largest=True))
        rows += asyncio.run(bench_refresh(sekmet.base_url, ordinary, charts.ordinary.work, is_largest=False))
        yield refresh_table(rows)


def cache(charts: Charts) -> Iterator[Table]:
    """What the real engine need not read again."""
    with tempfile.TemporaryDirectory() as folder:
        yield asyncio.run(bench_cache(charts.largest, Path(folder)))


def stages(charts: Charts) -> Iterator[Table]:
    """One summary with the real engine, stage by stage."""
    demo = make_cohort(HOME / "demo" / "cohort")
    smallest = min(demo, key=lambda chart: chart.resources)
    with tempfile.TemporaryDirectory() as folder, SekmetServer(Path(folder)) as sekmet:
        patient_id = post(sekmet, smallest.path.read_bytes())
        yield asyncio.run(bench_stages(sekmet.base_url, patient_id, Path(folder) / "home"))


def claims(charts: Charts) -> Iterator[Table]:
    """What the rules make of true claims, and of claims with one error each."""
    yield from bench_claims()


def omission(charts: Charts) -> Iterator[Table]:
    """What of the required facts is published, who wrote it, and what no model would have told."""
    demo = [chart.path.read_bytes() for chart in make_cohort(HOME / "demo" / "cohort")]
    with tempfile.TemporaryDirectory() as folder:
        yield asyncio.run(bench_omission(demo, charts.all if charts.shared else (), Path(folder)))


def verification(charts: Charts) -> Iterator[Table]:
    """Verifying 40 claims, beside writing them with the real engine."""
    with tempfile.TemporaryDirectory() as folder:
        yield asyncio.run(bench_verification(charts.largest, Path(folder)))


def warm(charts: Charts) -> Iterator[Table]:
    """What it saves to read a chart ahead when its patient is opened."""
    with tempfile.TemporaryDirectory() as folder:
        yield asyncio.run(bench_warm(charts.ordinary, Path(folder)))


def priority(charts: Charts) -> Iterator[Table]:
    """What a clinician waits beside a sweep, and what the sweep loses."""
    yield asyncio.run(bench_scripted(charts))
    with tempfile.TemporaryDirectory() as folder:
        yield asyncio.run(bench_real(charts, Path(folder)))


def cds(charts: Charts) -> Iterator[Table]:
    """The CDS card of a stored summary, beside a bare route."""
    with tempfile.TemporaryDirectory() as folder:
        yield bench_cds(Path(folder))


def sidebar(charts: Charts) -> Iterator[Table]:
    """The sidebar's page beside a bare route, and the first claim beside the engine's first token."""
    with tempfile.TemporaryDirectory() as folder:
        yield bench_page(charts, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        yield asyncio.run(bench_on_demand(charts, Path(folder)))


def questions(charts: Charts) -> Iterator[Table]:
    """What questions find of what is there, and of what is not."""
    yield from bench_questions(charts.all)


def pixels(charts: Charts) -> Iterator[Table]:
    """Pictures out of DICOM files, beside a plain loop over pydicom."""
    yield bench_pixels()


def pictures(charts: Charts) -> Iterator[Table]:
    """Pictures embedded, beside a plain loop over transformers; runs with pictures beside runs without."""
    yield bench_embedding()
    with tempfile.TemporaryDirectory() as folder:
        yield asyncio.run(bench_looking(Path(folder)))


def trail(charts: Charts) -> Iterator[Table]:
    """Checking an audit trail of a million entries, in bounded memory: half an hour."""
    yield bench_trail()


def soak(charts: Charts) -> Iterator[Table]:
    """What the queue costs by itself, and a worker's memory over ten thousand admissions: an hour."""
    yield from bench_soak()


TOPICS: dict[str, Callable[[Charts], Iterator[Table]]] = {
    topic.__name__: topic
    for topic in (
        assembly,
        compaction,
        memory,
        server,
        cache,
        stages,
        claims,
        omission,
        verification,
        warm,
        priority,
        questions,
        cds,
        sidebar,
        pixels,
        pictures,
        trail,
        soak,
    )
}


ON_REQUEST = frozenset({"trail", "soak"})
"""Topics that take up to an hour, and are measured where they are named."""
NO_SHARED = (
    "The 42 charts of ../shared/data/synthea are not here: the demonstration's six stand in for them, and "
    "the targets, which name those charts, are shown for orientation."
)


def main(wanted: Sequence[str]) -> None:
    """Measure the topics that are wanted, the usual ones when none is named; print and keep their tables."""
    unknown = sorted(set(wanted) - set(TOPICS))
    if unknown:
        raise SystemExit(f"No such topic: {', '.join(unknown)}. There are: {', '.join(TOPICS)}.")
    start = time.perf_counter()
    tables: list[Table] = []
    with Steps() as steps:
        with steps.step("Finding the charts") as step:
            charts = find_charts(step.at)
        try:
            for name in wanted or [topic for topic in TOPICS if topic not in ON_REQUEST]:
                with steps.step(f"Measuring: {name}"):
                    tables += TOPICS[name](charts)
        finally:  # minutes of measuring are not lost because a later topic fails
            page = document(tables, time.perf_counter() - start, [] if charts.shared else [NO_SHARED])
            write(page)
    sys.stdout.write(page)


if __name__ == "__main__":
    main(sys.argv[1:])
