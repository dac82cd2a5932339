"""A ward over some days: who gets a draft, who is left out and why, and what becomes of the drafts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures.charts import canary_patient
from fixtures.servers import SekmetServer
from service.filing.attest import attest
from service.filing.withdraw import DISCHARGED, EXPIRED, withdraw
from service.ports import Admission, FiledDocument, Standing, Stop, StopScope
from service.sweep import Report
from service.wiring import Rounds
from tests.acceptance.house import House
from tests.conftest import CANARY
from tests.integration.connectors.cut_proxy import CutProxy
from tests.integration.connectors.fault_server import Answer, Reply, Request

(
    STEADY, FLAGGED, LISTED, HIDDEN, REFUSED, ATTESTED, TAKEN_BACK, TAKEN_IN_EHR, TRIFLE, CHANGED, GONE_HOME,
    DELETED, MINOR,
) = range(1, 14)  # fmt: skip
FLAG = "urn:example:flags|no-ai"
FINAL, DRAFT, OUT = ("current", "final"), ("current", "preliminary"), ("entered-in-error", "entered-in-error")


class Gate(CutProxy):
    """The way to the server: it hides one patient's allergies, and refuses what is written about another."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.hidden = self.refused = "nobody"
        self.paths: list[str] = []

    def seen(self, part: str) -> bool:
        """Tell whether something was asked for."""
        return any(part in path for path in self.paths)

    def answer(self, request: Request) -> Answer:
        self.paths.append(request.path)
        denied = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "forbidden"}]}
        asks = f"{request.path} {request.query} {request.body.decode('utf-8', 'replace')}"
        if self.hidden in asks and (
            "$everything" in asks or "AllergyIntolerance?" in asks or "/AllergyI" in asks
        ):
            return Reply(403, json=denied)
        is_write = request.method == "POST" and b"DocumentReference" in request.body
        if is_write and self.refused in asks and b'"transaction"' in request.body:
            return Reply(422, json=denied)
        return super().answer(request)


@dataclass
class Days:
    """What each pass came to, and how it stood after it."""

    house: House
    reports: dict[str, Report] = field(default_factory=dict)
    stood: dict[str, dict[int, Admission]] = field(default_factory=dict)
    filed: dict[str, dict[int, list[tuple[str, str]]]] = field(default_factory=dict)
    rows: dict[int, list[FiledDocument]] = field(default_factory=dict)
    ahead: timedelta = timedelta(0)
    log: str = ""

    async def sweep(self, name: str, rounds: Rounds) -> None:
        """Make a pass, and look at everybody."""
        self.reports[name] = await self.house.sweep(rounds)
        self.stood[name] = {number: self.house.admission(number) for number in range(1, 14)}
        self.filed[name] = {number: self.house.documents(number) for number in range(1, 14)}


async def live(sekmet: SekmetServer, home: Path) -> Days:
    listed = home / "list.toml"
    async with Gate(sekmet.base_url) as gate:
        settings = {"opt_out_flags": (FLAG,), "opt_out_list": listed, "retry_scale": 0.01}
        days = Days(House(sekmet.base_url, home, settings=settings, server=gate.base_url))
        house = days.house
        home.mkdir(exist_ok=True)
        listed.write_text(f'patients = ["Patient/{house.patient(LISTED)}"]\n')
        gate.hidden, gate.refused = house.patient(HIDDEN), house.patient(REFUSED)
        house.admit(*range(1, 14))
        house.put({**canary_patient(house.patient(MINOR)), "birthDate": "2020-05-04"})
        house.put({"resourceType": "Practitioner", "id": "roe", "name": [{"family": "Roe"}]})
        house.put(
            {
                "resourceType": "Flag", "id": f"{house.tag}-flag", "status": "active",
                "code": {"coding": [{"system": "urn:example:flags", "code": "no-ai"}]},
                "subject": {"reference": f"Patient/{house.patient(FLAGGED)}"},
            }
        )  # fmt: skip
        async with house.open(lambda: days.ahead) as rounds:
            await days.sweep("first", rounds)
            await days.sweep("unchanged", rounds)
            await change(days, rounds)
            await days.sweep("changed", rounds)
            gate.refused = "nobody"
            rounds.sweep.desk.documents.add_stop(Stop(StopScope.ALL, "", datetime.now(UTC), "test"))
            await days.sweep("stopped", rounds)
            rounds.sweep.desk.documents.lift_stop(StopScope.ALL, "", "test", datetime.now(UTC))
            days.ahead = timedelta(hours=73)
            await days.sweep("expired", rounds)
        days.rows = {number: house.rows(number) for number in range(1, 14)}
    return days


async def change(days: Days, rounds: Rounds) -> None:
    """What happens between two passes."""
    house, desk = days.house, rounds.sweep.desk
    drafts = {number: house.rows(number)[0].document for number in (ATTESTED, TAKEN_BACK, TAKEN_IN_EHR)}
    await attest(desk, drafts[ATTESTED], by="Practitioner/roe", actor="user:test")
    await withdraw(desk, drafts[TAKEN_BACK], reason="Wrong.", by="Practitioner/roe", actor="user:test")
    there = house.get(drafts[TAKEN_IN_EHR])
    house.put({**there, "status": "entered-in-error", "docStatus": "entered-in-error"})
    house.condition(ATTESTED, "af", "Atrial fibrillation")
    house.condition(CHANGED, "af", "Atrial fibrillation")
    house.put(
        {
            "resourceType": "Observation", "id": f"{house.patient(TRIFLE)}-trifle", "status": "final",
            "subject": {"reference": f"Patient/{house.patient(TRIFLE)}"}, "code": {"text": "Shoe size"},
            "effectiveDateTime": "2019-03-02", "valueQuantity": {"value": 42, "unit": "EU"},
        }
    )  # fmt: skip
    house.put(house.encounter(GONE_HOME, status="finished"))
    house.delete(f"Encounter/{house.stay(DELETED)}")


@pytest.fixture(scope="module")
def days(sekmet: SekmetServer, tmp_path_factory: pytest.TempPathFactory) -> Days:
    return asyncio.run(live(sekmet, tmp_path_factory.mktemp("rounds") / "home"))


def total(report: Report) -> int:
    return report.runs + report.unchanged + sum(report.skipped.values()) + report.failed


@pytest.mark.parametrize("name", ["first", "unchanged", "changed", "stopped", "expired"])
def test_everybody_is_accounted_for(days: Days, name: str) -> None:
    report = days.reports[name]
    assert total(report) == report.admissions == (12 if name in ("changed", "stopped", "expired") else 13)


def test_who_may_be_summarised_has_one_draft_and_is_fresh(days: Days) -> None:
    made = (STEADY, ATTESTED, TAKEN_BACK, TAKEN_IN_EHR, TRIFLE, CHANGED, GONE_HOME, DELETED)
    assert days.reports["first"].runs == len(made)
    for number in made:
        assert days.filed["first"][number] == [DRAFT]
        assert days.stood["first"][number].standing is Standing.FRESH
        assert days.stood["first"][number].run_id


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (FLAGGED, "opted_out_by_flag"),
        (LISTED, "opted_out_by_list"),
        (HIDDEN, "incomplete"),
        (MINOR, "minor"),
    ],
)
def test_who_is_left_out_has_no_draft_and_the_reason_is_told(days: Days, number: int, reason: str) -> None:
    one = days.stood["first"][number]
    assert (one.standing, one.reason) == (Standing.SKIPPED, reason)
    assert days.reports["first"].skipped[reason] == 1
    assert all(filed[number] == [] for filed in days.filed.values())


def test_what_the_server_refuses_is_a_failure_with_its_reason_and_counts_on(days: Days) -> None:
    first, second = days.stood["first"][REFUSED], days.stood["unchanged"][REFUSED]
    assert (first.standing, first.reason, first.failures) == (Standing.FAILED, "rejected", 1)
    assert (second.failures, second.since) == (2, first.since)
    assert days.reports["first"].failures == {"rejected": 1}


def test_a_second_pass_over_unchanged_charts_asks_the_engine_nothing(days: Days) -> None:
    report = days.reports["unchanged"]
    assert (report.runs, report.engine_calls) == (0, 0)
    assert report.unchanged == 8
    assert days.stood["unchanged"][STEADY].checked_at != days.stood["first"][STEADY].checked_at
    assert days.stood["unchanged"][STEADY].since == days.stood["first"][STEADY].since
    assert days.filed["unchanged"] == days.filed["first"]


def test_a_changed_chart_gets_one_new_draft_and_the_old_one_goes(days: Days) -> None:
    assert sorted(days.filed["changed"][CHANGED]) == sorted([OUT, DRAFT])
    assert days.reports["changed"].runs == 2  # and the attested one's


def test_a_change_that_is_neither_required_nor_cited_only_moves_checked_at(days: Days) -> None:
    before, after = days.stood["unchanged"][TRIFLE], days.stood["changed"][TRIFLE]
    assert days.filed["changed"][TRIFLE] == [DRAFT]
    assert after.run_id == before.run_id
    assert after.checked_at is not None
    assert before.checked_at is not None
    assert after.checked_at > before.checked_at


def test_an_attested_document_stays_and_the_changed_chart_gets_a_draft_beside_it(days: Days) -> None:
    for name in ("changed", "expired"):
        assert FINAL in days.filed[name][ATTESTED]
        assert days.filed[name][ATTESTED].count(DRAFT) == 1
    assert ("superseded", "preliminary") in days.filed["changed"][ATTESTED]


@pytest.mark.parametrize("number", [TAKEN_BACK, TAKEN_IN_EHR])
@pytest.mark.parametrize("name", ["changed", "expired"])
def test_what_a_person_withdrew_is_not_filed_again_and_says_so(days: Days, number: int, name: str) -> None:
    one = days.stood[name][number]
    assert (one.standing, one.reason) == (Standing.SKIPPED, "withdrawn")
    assert days.filed[name][number] == [OUT]


def test_a_discharge_ends_the_admission_and_withdraws_the_draft(days: Days) -> None:
    one = days.stood["changed"][GONE_HOME]
    assert (one.standing, one.reason) == (Standing.ENDED, "discharged")
    assert days.filed["changed"][GONE_HOME] == [OUT]
    assert days.rows[GONE_HOME][0].reason == DISCHARGED


def test_a_stay_that_is_deleted_is_left_out_as_ended(days: Days) -> None:
    one = days.stood["changed"][DELETED]
    assert (one.standing, one.reason) == (Standing.SKIPPED, "ended")


def test_a_stop_leaves_everybody_out_without_asking_engine_or_server_about_a_chart(days: Days) -> None:
    report = days.reports["stopped"]
    assert report.skipped == {"stopped": 12}
    assert report.engine_calls == 0
    assert days.filed["stopped"] == days.filed["changed"]
    assert days.stood["stopped"][STEADY].reason == "stopped"


def test_an_expired_draft_is_withdrawn_and_made_anew_from_the_same_chart(days: Days) -> None:
    assert sorted(days.filed["expired"][STEADY]) == sorted([OUT, DRAFT])
    newer, older = days.rows[STEADY]
    assert (older.reason, newer.reason) == (EXPIRED, "")
    assert days.stood["expired"][STEADY].standing is Standing.FRESH
    assert days.reports["expired"].withdrawn >= 4


def test_what_failed_is_filed_when_the_server_takes_it(days: Days) -> None:
    one = days.stood["expired"][REFUSED]
    assert (one.standing, one.failures) == (Standing.FRESH, 0)
    assert days.filed["expired"][REFUSED] == [DRAFT]


def test_nothing_of_a_patient_is_in_the_queue(days: Days) -> None:
    files = list(days.house.home.glob("*queue*"))
    assert files
    for file in files:
        held = file.read_bytes()
        for text in (CANARY, days.house.tag, "Patient/", "Encounter/"):
            assert text.encode() not in held, (file.name, text)


def test_every_reason_in_a_report_is_a_code(days: Days) -> None:
    for report in days.reports.values():
        told: Any = report.shape()
        assert CANARY not in str(told)
        assert days.house.tag not in str(told)
