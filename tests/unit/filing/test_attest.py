"""What is halted is not made final either."""

from __future__ import annotations

import pytest

from service.errors import FilingError
from service.filing.attest import attest_run
from service.filing.desk import Desk, Manner
from service.ports import Stop, StopScope
from tests.contract.context.published import OneChart
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.filing.in_memory import InMemoryDocuments
from tests.unit.writeback.charts import CREATED, make_run


async def test_nothing_is_attested_of_what_is_stopped() -> None:
    documents = InMemoryDocuments()
    documents.add_stop(Stop(StopScope.PROMPT, "history", CREATED, "x"))
    desk = Desk(OneChart([]), InMemoryStore(), documents, InMemoryAudit(), lambda: CREATED, Manner("0"))
    with pytest.raises(FilingError, match="stopped"):
        await attest_run(desk, make_run(), by="Practitioner/1", actor="user:test")
    assert documents.filed == {}
    assert documents.held == set()
