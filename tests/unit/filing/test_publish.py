"""What is kept of a filed draft: the encounter whose end withdraws it, named or found in the record."""

from __future__ import annotations

import pytest

from service.filing.desk import Desk, Manner
from service.filing.publish import publish
from service.ports import RunState
from service.record.facts import Status
from tests.contract.context.published import OneChart
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.filing.in_memory import InMemoryDocuments
from tests.unit.filing.test_stopped import stay
from tests.unit.writeback.charts import CREATED


@pytest.mark.parametrize(
    ("status", "encounter"), [(Status.IN_PROGRESS, "Encounter/9"), (Status.COMPLETED, "")]
)
async def test_a_draft_of_a_stay_that_lasts_goes_with_it(status: Status, encounter: str) -> None:
    documents = InMemoryDocuments()
    desk = Desk(OneChart([]), InMemoryStore(), documents, InMemoryAudit(), lambda: CREATED, Manner("0"))
    published = await publish(desk, stay(9, "Ward 7", status), "user:test")
    assert published.state is RunState.FILED
    assert [document.encounter for document in documents.filed.values()] == [encounter]
