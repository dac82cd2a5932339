"""A run that was shown pictures, replayed from their digests: no pixel is needed, and none is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.context.pictures import SECTION, spot_of
from service.engine.scripted import ScriptedEngine
from service.imaging.picture import Spot
from service.ports import RunId
from service.ports.images import ImageUse
from service.readings import Images
from tests.integration.replay.test_replay import House, identical
from tests.unit.test_image_runs import MISSED, SHOWN, STUDY, Deaf, Source, answer

MEDIA = {
    "resourceType": "Media", "id": "3", "status": "completed", "createdDateTime": "2019-05-04",
    "subject": {"reference": "Patient/1"}, "content": {"title": "Wound"},
}  # fmt: skip


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    made.ehr.more.append(STUDY)
    yield made
    made.store.close()


@pytest.mark.parametrize(
    ("source", "engine"),
    [
        (Source(SHOWN, unseen=(MISSED,)), ScriptedEngine(answer)),
        (Source(unseen=(MISSED,)), ScriptedEngine(answer)),
        (Source(SHOWN), Deaf(answer)),
    ],
    ids=["seen", "not seen", "not answered"],
)
async def test_a_run_with_pictures_comes_out_the_same(
    house: House, source: Source, engine: ScriptedEngine
) -> None:
    run = await house.make(engine, images=Images(source, ImageUse.FILE, 8))
    assert identical(await house.replay(run), run)


async def test_a_run_with_a_picture_of_the_record_itself_comes_out_the_same(house: House) -> None:
    house.ehr.more.append(MEDIA)
    kept = replace(SHOWN, spot=Spot("Media/3", "", ""), source="Media/3")
    run = await house.make(ScriptedEngine(answer), images=Images(Source(kept), ImageUse.FILE, 8))
    assert [spot_of(one) for one in run.summary.facts if one.source.reference == "Media/3"][-1] is not None
    assert identical(await house.replay(run), run)


async def test_another_answer_about_a_picture_is_a_difference(house: House) -> None:
    run = await house.make(ScriptedEngine(answer), images=Images(Source(SHOWN), ImageUse.SHOW, 8))
    assert any(section.key == SECTION for section in run.summary.sections)
    made = house.inputs.inputs_of(run)
    assert made is not None
    *rest, last = run.completions
    other = replace(last, text=last.text.replace("left", "right"))
    changed = replace(run, run_id=RunId("f" * 20), completions=(*rest, other))
    assert house.inputs.save(changed, made)
    found = await house.replay(changed)
    assert found.is_replayable
    assert found.verdicts is not None
    assert not found.verdicts.identical
