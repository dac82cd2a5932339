"""The order of words: what the record says in one order is not said in another."""

from __future__ import annotations

import pytest

from fixtures.facts import fact
from service.grounding.check import Judge
from service.grounding.summary import Verdict
from service.record.facts import Fact, Kind, Status

CT = fact("CT of chest without contrast: completed on 17-May-2013; modality: CT", Kind.PROCEDURE,
          status=Status.COMPLETED, recorded_status="completed", on="2013-05-17")  # fmt: skip
PILL = fact("Amoxicillin 250 MG / Clavulanate 125 MG Oral Tablet: active order", Kind.MEDICATION,
            status=Status.ACTIVE, recorded_status="active")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "cited", "is_so"),
    [
        (CT.text, CT, True),
        ("CT of chest without contrast, a CT of chest without contrast, completed on 17-May-2013.", CT, True),
        ("CT of contrast without chest: completed on 17-May-2013.", CT, False),
        ("Amoxicillin 250 mg / clavulanate 125 mg oral tablet is an active order.", PILL, True),
        ("Amoxicillin 125 mg / clavulanate 250 mg oral tablet is an active order.", PILL, False),
    ],
)
def test_a_name_is_said_in_its_order_and_may_be_said_twice(text: str, cited: Fact, is_so: bool) -> None:
    assert (Judge("female").verdict(text, [cited])[0] is Verdict.SUPPORTED) is is_so
