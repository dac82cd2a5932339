"""What is written after the draft passes the two validators that are not ours, too."""

from __future__ import annotations

import pytest

from service.writeback.lifecycle import withdrawal_transaction
from tests.integration.writeback.test_validators import Validate, validate
from tests.unit.writeback.charts import CREATED
from tests.unit.writeback.test_lifecycle import ADDED, BY, attested, draft

__all__ = ["validate"]

pytestmark = [pytest.mark.node, pytest.mark.shared]


def test_every_step_of_a_documents_life_passes(validate: Validate) -> None:
    bundles = [
        attested(),
        attested(draft(), draft(id="6", docStatus="final")),
        attested(draft(), additions=ADDED),
        withdrawal_transaction(draft(), by=BY, reason="Wrong.", at=CREATED),
    ]
    done = validate(bundles)
    assert done.returncode == 0, done.stdout + done.stderr
