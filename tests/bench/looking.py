"""What a summary with pictures takes longer than one without: finding them in a real archive, preparing them.

The engine is the scripted one, so that a run is all but its model: what reading a picture costs a model is
known by its tokens alone where the real weights are not at hand.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, NamedTuple

from fixtures.pacs import PacsServer, has_orthanc, linked_patient
from fixtures.servers import SekmetServer
from service.engine.copying import answer_by_copying
from service.engine.prompt import Prompt
from service.engine.scripted import IMAGE_TOKENS, ScriptedEngine
from service.ports import RunId
from service.settings import Settings
from service.wiring.engines import open_use_case
from tests.bench.charts import SYNTHEA
from tests.bench.table import Row, Table, percent, seconds, times

CHARTS = {"1c574eeb": "one X-ray", "d614dcb6": "two CT", "fb08980f": "two X-rays"}
ROUNDS = 5
SAID = '{"claims": [{"cites": ["F1"], "sees": "may show", "text": "an opacity"}]}'
COLUMNS = (
    "chart", "pictures", "picture tokens", "without, s", "with, s", "ratio", "images alone, s", "share",
)  # fmt: skip


class _Taken(NamedTuple):
    """One run, in seconds."""

    whole: float
    images: float
    pictures: int


async def bench_looking(folder: Path) -> Table:
    """Summarise charts with linked studies, the pictures looked at and not, in turns."""
    title = "The share of a run that is spent on images"
    if not has_orthanc() or not SYNTHEA.is_dir():
        return Table(title, COLUMNS, remarks=["Orthanc or the linked studies of ../shared are not here."])
    with SekmetServer(folder / "ehr") as ehr, PacsServer() as pacs:
        rows = [await _row(ehr, pacs, bundle, name, folder) for bundle, name in CHARTS.items()]
    remark = (
        f"Medians of {ROUNDS} runs each, in turns, every one from nothing: chart read from a real FHIR "
        "server, studies listed and files fetched from a real Orthanc, decoded in their process, stored; "
        "the engine is the scripted one and takes no time, so that the share is the greatest there is: with "
        "a model it is of a longer run. `ratio` is the run with pictures beside the one without."
    )
    return Table(title, COLUMNS, rows, [remark])


async def _row(ehr: SekmetServer, pacs: PacsServer, bundle: str, name: str, folder: Path) -> Row:
    linked = linked_patient(ehr.base_url, pacs, SYNTHEA.parent, bundle)
    images: dict[str, Any] = {"images": "show", "pacs_url": pacs.dicomweb_url}
    plain: list[_Taken] = []
    shown: list[_Taken] = []
    for number in range(ROUNDS):
        for taken, more in ((plain, {}), (shown, images)):
            home = folder / f"{bundle}-{number}-{len(more)}"
            taken.append(await _run(home, ehr.base_url, linked.patient_id, more))
    without, whole, alone = (
        statistics.median(found)
        for found in (
            [one.whole for one in plain],
            [one.whole for one in shown],
            [one.images for one in shown],
        )
    )
    pictures = shown[0].pictures
    return (
        f"{len(linked.resources)} resources, {name}", f"{pictures}", f"{pictures * IMAGE_TOKENS}",
        seconds(without), seconds(whole), times(whole / without), seconds(alone), percent(alone / whole),
    )  # fmt: skip


async def _run(home: Path, fhir_url: str, patient_id: str, more: dict[str, Any]) -> _Taken:
    settings = Settings(home=home, engine="scripted", second_pass="off", pacs_allowed_origins=(), **more)
    engine = ScriptedEngine(_answer)
    async with open_use_case(settings, fhir_url, lambda stage, detail: None, lambda _: engine) as plugged:
        outcome = await plugged.summarizer.summarize(patient_id, dry_run=True, actor="system:bench")
        run = plugged.store.get(RunId(outcome.run_id))
    assert run is not None
    return _Taken(sum(outcome.seconds.values()), outcome.seconds.get("images", 0.0), len(run.inputs.images))


def _answer(prompt: Prompt) -> str:
    return SAID if prompt.messages[-1].images else answer_by_copying(prompt)
