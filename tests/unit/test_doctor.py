"""What doctor says of the second pass, and of writing: what is left out, what is risked, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures.answers import answer_pairs
from fixtures.engine_double import MODEL, EngineDouble
from service.context.templates import open_library
from service.doctor import Finding, examine
from service.engine.profiles import profile_for
from service.engine.prompt import EngineInfo
from service.engine.scripted import ScriptedEngine
from service.engine.weights import digest_of
from service.entailment import SecondPass
from service.rehearsal import dropped_by
from service.settings import Settings, load_settings
from service.wiring import open_vault
from service.writeback.profiles import PROFILES
from tests.conftest import CANARY
from tests.integration.connectors.fault_server import FaultServer, Reply, Request


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


async def second_pass(settings: Settings) -> Finding:
    (found,) = (one for one in await examine(settings) if one.name == "second pass")
    return found


async def measure(settings: Settings, model: Path, engine: ScriptedEngine) -> None:
    """Put the probe to an engine, as a run with this model would."""
    vault = open_vault(settings)
    assert vault is not None
    profile = profile_for(str(model))
    info = EngineInfo("model", digest_of(model), "1", profile, profile.context_tokens)
    try:
        await SecondPass(vault).score(engine, info, open_library().load("admission"))
    finally:
        vault.close()


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (ScriptedEngine(answer_pairs(lambda source, text: "no", str)), "on: 24 of 24 right, 0 false yes"),
        (
            ScriptedEngine(),
            "off: 12 of 24 right, 12 false yes; needed are 20, and at most 1 false yes",
        ),
    ],
    ids=["strong", "weak"],
)
async def test_a_local_model_is_shown_as_it_did_before(
    tmp_path: Path, model: Path, engine: ScriptedEngine, said: str
) -> None:
    settings = load_settings(home=tmp_path / "home", model=str(model))
    before = await second_pass(settings)
    assert (before.state, before.detail) == ("missing", "not measured yet")
    await measure(settings, model, engine)
    after = await second_pass(settings)
    assert (after.state, after.detail) == ("ok", said)


async def test_another_model_is_not_shown_the_score_of_this_one(tmp_path: Path, model: Path) -> None:
    settings = load_settings(home=tmp_path / "home", model=str(model))
    await measure(settings, model, ScriptedEngine())
    (model / "model.safetensors").write_text("other weights")
    assert (await second_pass(settings)).detail == "not measured yet"


@pytest.mark.parametrize("given", [{"second_pass": "off"}, {"engine": "scripted"}])
async def test_where_there_is_none_doctor_says_why(
    tmp_path: Path, model: Path, given: dict[str, Any]
) -> None:
    found = await second_pass(load_settings(home=tmp_path / "home", model=str(model), **given))
    assert found.state == "ok"
    assert found.detail.startswith("off: ")


async def test_a_remote_engine_is_measured_now(tmp_path: Path) -> None:
    async with EngineDouble() as double:
        settings = load_settings(home=tmp_path, engine_url=double.base_url + "/v1", model=MODEL)
        found = await second_pass(settings)
    assert found.state == "ok"
    assert found.detail.startswith("off: ")
    assert " of 24 right" in found.detail


async def test_a_remote_engine_that_does_not_answer_is_not_waited_for_again(tmp_path: Path) -> None:
    async with EngineDouble(api_key="secret") as double:
        settings = load_settings(home=tmp_path, engine_url=double.base_url + "/v1", model=MODEL)
        findings = {one.name: one for one in await examine(settings)}
    assert findings["model"].state == "failed"
    assert (findings["second pass"].state, findings["second pass"].detail) == (
        "missing",
        "off: the probe was not answered",
    )


class Ehr(FaultServer):
    """Declares itself under a name, and judges what is put to `$validate`; it never takes a resource."""

    def __init__(
        self, software: str = "Any", outcome: dict[str, Any] | None = None, status: int = 200
    ) -> None:
        super().__init__()
        self.software, self.outcome, self.status = software, outcome, status

    def answer(self, request: Request) -> Reply:
        if request.path == "/fhir/metadata":
            statement = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}
            return Reply(
                json={**statement, "software": {"name": self.software}, "rest": [{"mode": "server"}]}
            )
        if request.path.endswith("/$validate") and self.outcome is not None:
            return Reply(json=self.outcome)
        return Reply(404, json={"resourceType": "OperationOutcome"})

    def assert_nothing_was_written(self) -> None:
        sent = [request for request in self.requests if request.method != "GET"]
        assert all(request.path.endswith("/$validate") for request in sent)


def judged(*issues: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "OperationOutcome", "issue": list(issues)}


async def writing(home: Path, ehr: Ehr, **more: Any) -> tuple[Finding, Finding]:
    async with ehr:
        settings = load_settings(home=home, engine="scripted", fhir_url=ehr.base_url, **more)
        found = {one.name: one for one in await examine(settings)}
    ehr.assert_nothing_was_written()
    return found["write profile"], found["write check"]


async def test_a_server_that_keeps_everything_needs_no_signature(tmp_path: Path) -> None:
    profile, check = await writing(tmp_path, ehr := Ehr(outcome=judged({"severity": "warning", "code": "x"})))
    assert (profile.state, check.state) == ("ok", "ok")
    assert profile.detail == (
        "generic, chosen by the server's CapabilityStatement; left out: nothing; no risk"
    )
    assert "accepts a draft; nothing was written" in check.detail
    put = [request.json["resourceType"] for request in ehr.requests if request.path.endswith("/$validate")]
    assert put == ["Device", "DocumentReference", "DocumentReference", "DocumentReference", "Provenance"]


async def test_what_a_server_drops_is_listed_and_its_risk_is_to_be_signed(tmp_path: Path) -> None:
    profile, check = await writing(tmp_path, Ehr("Epic"))
    assert profile.state == "missing"
    assert profile.detail.startswith("epic, chosen by")
    assert "attachment application/json" in profile.detail
    assert "DocumentReference.docStatus" in profile.detail
    assert "a draft loses docStatus and the AI label and the draft's type; NOT signed" in profile.detail
    assert "EPICRISIS_WRITE_RISK_SIGNED_BY" in profile.advice
    assert (check.state, "offers no $validate" in check.detail) == ("ok", True)


async def test_a_signed_risk_names_who_signed_it(tmp_path: Path) -> None:
    given = {"write_profile": "minimal", "write_risk_signed_by": "Dr. Roe, 2026-11-20"}
    profile, _ = await writing(tmp_path, Ehr(), **given)
    assert profile.state == "ok"
    assert profile.detail.startswith("minimal, set by hand")
    assert profile.detail.endswith("signed by Dr. Roe, 2026-11-20")


async def test_what_the_server_would_refuse_is_named_by_codes_and_paths_alone(tmp_path: Path) -> None:
    issue = {
        "severity": "error",
        "code": "invariant",
        "diagnostics": f"of {CANARY}",
        "expression": ["DocumentReference.type", f"name is {CANARY}"],
    }
    _, check = await writing(tmp_path, Ehr(outcome=judged(issue)))
    assert check.state == "failed"
    assert "DocumentReference (invariant, DocumentReference.type)" in check.detail
    assert CANARY not in check.detail


async def test_that_an_invented_patient_is_not_there_is_no_complaint(tmp_path: Path) -> None:
    _, check = await writing(tmp_path, Ehr(outcome=judged({"severity": "error", "code": "not-found"})))
    assert check.state == "ok"


async def test_without_a_server_that_answers_nothing_is_said_of_writing(tmp_path: Path) -> None:
    found = {one.name: one for one in await examine(load_settings(home=tmp_path, engine="scripted"))}
    assert {found[name].state for name in ("write profile", "write check")} == {"missing"}


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_can_be_rehearsed(name: str) -> None:
    dropped = dropped_by(PROFILES[name])
    assert bool(dropped) is (name not in ("generic", "us-core"))
    assert ("attachment application/json" in dropped) is bool(dropped)
