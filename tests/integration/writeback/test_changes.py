"""After attestation the clinician's own words are evidence, and nothing else of the text is (SAFETY 25)."""

from __future__ import annotations

from typing import Any

import pytest

from service.record.facts import PatientRecord
from service.writeback.labels import WriteProfile
from service.writeback.lasting import Change
from service.writeback.lifecycle import Attestation, attested_transaction
from tests.integration.writeback.test_echo import ROE, read
from tests.integration.writeback.test_validators import Validate, validate
from tests.unit.writeback.charts import CREATED, make_run
from tests.unit.writeback.test_lifecycle import attested as bundle_of
from tests.unit.writeback.test_lifecycle import draft

__all__ = ["validate"]

BY, AT = "Practitioner/roe", "2026-11-20T10:00:00Z"
OWN = "Her daughter says that the sugar was never treated before this winter."
MACHINE = "Diabetes mellitus type 2, hemoglobin A1c 6.10 % on 25-Nov-2020"


def written(*changes: Change) -> list[dict[str, Any]]:
    """All that an attestation writes, as a server gives it back."""
    bundle = attested_transaction(
        make_run(), Attestation(BY, CREATED, changes=changes), [], software_version="0.1.0",
        profile=WriteProfile(),
    )  # fmt: skip
    names = {entry["fullUrl"]: f"w{number}" for number, entry in enumerate(bundle["entry"])}
    kept = [{**entry["resource"], "id": names[entry["fullUrl"]]} for entry in bundle["entry"]]
    document = next(one for one in kept if "authenticator" in one)
    kept[-1] = {**kept[-1], "target": [{"reference": f"DocumentReference/{document['id']}/_history/1"}]}
    return kept


def evidence(record: PatientRecord) -> list[str]:
    return [fact.value for fact in record.facts if fact.span]


def test_what_a_clinician_wrote_in_the_place_of_a_statement_is_evidence_and_the_rest_is_not() -> None:
    assert evidence(read(*written(Change(1, BY, AT, OWN)), ROE)) == [OWN]


def test_a_text_from_which_statements_were_left_out_alone_is_no_input() -> None:
    before, after = read(), read(*written(Change(0, BY, AT), Change(2, BY, AT)), ROE)
    assert (after.facts, after.digest) == (before.facts, before.digest)


@pytest.mark.parametrize("edited", [f"{MACHINE}.", f"{MACHINE}!", f"{MACHINE} ."])
def test_the_machines_statement_with_another_full_stop_is_still_the_machines(edited: str) -> None:
    assert evidence(read(*written(Change(1, BY, AT, edited)), ROE)) == []


def test_of_a_statement_that_was_lengthened_the_added_words_alone_are_evidence() -> None:
    (found,) = evidence(read(*written(Change(1, BY, AT, f"{MACHINE}, and she walks again.")), ROE))
    assert "she walks again" in found
    assert "6.10" not in found


@pytest.mark.node
@pytest.mark.shared
def test_the_two_validators_take_what_is_written(validate: Validate) -> None:
    changes = (Change(0, BY, AT), Change(1, BY, AT, OWN))
    done = validate([bundle_of(changes=changes), bundle_of(draft(), changes=changes)])
    assert done.returncode == 0, done.stdout + done.stderr
