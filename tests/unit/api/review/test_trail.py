"""The auditor's pages: what they show and never show, who is refused, and that each look is on record."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.sample_run import CREATED, sample_run
from service.api.app import create_app
from service.api.review.trail import ROWS, TrailRoom
from service.audit.anchor import AnchorFile
from service.errors import StoreError
from service.ports import Action, AuditEntry, DocumentState, FiledDocument, RunId, StoredRun, Wanted
from service.ports.attesting import Attested, Glass, Proposal, ProposalId
from service.ports.reviews import Review, Rule
from service.ports.trail import Checked
from service.store.cipher import Cipher
from service.store.keys import KeyRoom
from service.store.ledger import SqlLedger
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from tests.conftest import CANARY
from tests.unit.api.markup import Markup
from tests.unit.api.review.console import HERE, NamedDoor
from tests.unit.in_memory_attesting import InMemoryAttesting
from tests.unit.in_memory_reviews import InMemoryReviews

NOW = CREATED + timedelta(hours=3)
LIST, RUN, SOURCES = "/review/trail", "/review/trail/runs/filed", "/review/trail/sources"
EHR = "https://ehr.example.org/fhir"
REFUSED = ("one", "reader", "clinician", "admin")


@dataclass
class Office:
    """The pages over a real trail and store, and what an auditor asks them."""

    folder: Path
    run: StoredRun = field(default_factory=lambda: sample_run(run_id="filed"))

    def __post_init__(self) -> None:
        url, cipher = f"sqlite:///{self.folder}/e.db", Cipher.from_file(self.folder / "key")
        self.store = SqlStore(url, cipher)
        self.audit = SqlAuditLog(url, cipher, partial(AnchorFile, self.folder / "anchors", lambda: NOW))
        self.ledger = SqlLedger(self.audit.database)
        self.attesting, self.reviews = InMemoryAttesting(), InMemoryReviews([self.run])
        self.store.save(self.run)
        self.store.put_document(
            FiledDocument(
                "DocumentReference/7", EHR, "1", self.run.run_id, self.run.inputs.patient,
                DocumentState.DRAFT, CREATED,
            )
        )  # fmt: skip
        self.room = TrailRoom(
            self.ledger, self.audit.last_anchor, self.store, self.attesting, self.reviews.reviews_of,
            self.audit, lambda: NOW,
        )  # fmt: skip
        self.app = create_app(
            store=self.store, audit=self.audit, clock=lambda: NOW, access=NamedDoor(),
            allowed_hosts=("127.0.0.1",), version="9.8.7", rooms=[self.room],
        )  # fmt: skip

    def close(self) -> None:
        self.audit.close()
        self.store.close()

    def act(self, number: int = 0, **more: Any) -> None:
        given = {"patient": self.run.inputs.patient, "run_id": "filed"} | more
        self.audit.append(AuditEntry(Action.GENERATE, "system:cli", at=NOW + timedelta(number), **given))

    async def ask(
        self, path: str, fields: Mapping[str, str] | None = None, user: str = "auditor"
    ) -> httpx.Response:
        headers = {"x-test-user": user, "origin": HERE, "sec-fetch-site": "same-origin"}
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url=HERE, headers=headers) as client:
            if fields is None:
                return await client.get(path)
            return await client.post(path, data=dict(fields))

    async def page(self, path: str = LIST, fields: Mapping[str, str] | None = None) -> Markup:
        answer = await self.ask(path, fields)
        assert answer.status_code == 200, answer.text
        return Markup(answer.text)


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new database and its key: migrating one takes most of a second."""
    folder = tmp_path_factory.mktemp("migrated")
    SqlStore(f"sqlite:///{folder}/e.db", Cipher.from_file(folder / "key")).close()
    return folder


@pytest.fixture
def office(tmp_path: Path, migrated: Path) -> Iterator[Office]:
    shutil.copytree(migrated, tmp_path, dirs_exist_ok=True)
    opened = Office(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize("user", REFUSED)
async def test_who_is_no_auditor_is_refused_every_page(office: Office, user: str) -> None:
    for path in (LIST, RUN, SOURCES):
        assert (await office.ask(path, user=user)).status_code == 403
    for path in (LIST, SOURCES):
        assert (await office.ask(path, {"source": "Observation/1"}, user)).status_code == 403
    assert {one.action for one in office.audit.entries()} == {Action.REFUSED}


async def test_a_look_is_on_record_before_it_is_shown(office: Office) -> None:
    office.act()
    for path, fields in (
        (LIST, None),
        (LIST, {"patient": "1"}),
        (RUN, None),
        (SOURCES, {"source": "Observation/1"}),
    ):
        await office.page(path, fields)
    looks = [(one.action, one.actor, one.target, one.patient) for one in office.audit.entries(4)][::-1]
    patient = office.run.inputs.patient
    assert looks == [
        (Action.VIEW, "user:auditor", "trail:list", ""),
        (Action.VIEW, "user:auditor", "trail:list", "Patient/1"),
        (Action.VIEW, "user:auditor", "trail:run", patient),
        (Action.VIEW, "user:auditor", "trail:source", ""),
    ]
    assert office.audit.entries(2)[1].run_id == "filed"
    office.room.audit.append = broken  # type: ignore[method-assign]
    for path in (LIST, RUN):
        assert (await office.ask(path)).status_code == 503


def broken(entry: AuditEntry) -> None:
    raise StoreError("the audit log cannot be written")


async def test_no_page_holds_a_word_of_the_summary_and_no_address_a_patient(office: Office) -> None:
    office.act()
    secrets = [claim.text for claim in office.run.summary.published] + [office.run.summary.identity.name]
    reference = office.run.summary.facts[0].sources[0].reference
    for path, fields in ((LIST, None), (RUN, None), (SOURCES, {"source": reference})):
        answer = await office.ask(path, fields)
        assert answer.status_code == 200
        for secret in secrets:
            assert secret not in answer.text
        assert CANARY.lower() not in answer.text.lower()
        links = re.findall(r'(?:href|action)="([^"]*)"', answer.text)
        assert not [link for link in links if "Patient" in link or "?" in link]


async def test_entries_are_sought_by_everything_and_paged(office: Office) -> None:
    for number in range(ROWS + 5):
        office.act(number % 3, patient=f"Patient/{number % 2}", run_id=f"run-{number}")
    office.audit.append(AuditEntry(Action.WITHDRAW, "user:roe", "Patient/0", NOW, "timeout"))
    first = await office.ask(LIST)
    assert first.text.count("/review/trail/runs/run-") == ROWS - 1
    older = re.search(r'name="before" value="(\d+)"', first.text)
    assert older is not None
    second = await office.ask(LIST, {"before": older[1]})
    assert "run-0<" in second.text
    assert 'name="before"' not in second.text
    for fields, wanted, other in (
        ({"actor": "user:roe"}, "withdraw", "run-3<"),
        ({"action": "withdraw"}, "user:roe", "run-3<"),
        ({"patient": "Patient/1"}, "run-3<", "run-4<"),
        ({"run": "run-3"}, "run-3<", "run-4<"),
        ({"since": f"{NOW + timedelta(2):%Y-%m-%d}"}, "run-5<", "run-4<"),
        ({"until": f"{NOW:%Y-%m-%d}", "action": "generate"}, "run-3<", "run-4<"),
    ):
        answer = await office.ask(LIST, fields)
        assert answer.status_code == 200
        rows = answer.text.partition("<tbody>")[2]
        assert wanted in rows, fields
        assert other not in rows, fields
    for fields in ({"run": "never"}, {"patient": "Patient/never"}):
        assert "No entry is so." in (await office.page(LIST, fields)).text
    assert office.audit.entries(patient="Patient/never") == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"patient": "Patient/<x>"},
        {"actor": "a b"},
        {"run": "../x"},
        {"since": "2026-13-01"},
        {"action": "fly"},
    ],
)
async def test_what_cannot_be_meant_is_told_and_asked_nothing(office: Office, fields: dict[str, str]) -> None:
    office.act()
    answer = await office.ask(LIST, fields)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert "<x>" not in answer.text
    assert "<tbody>" not in answer.text


async def test_the_state_of_the_chain_is_told_and_a_lost_anchor_is_an_alarm(office: Office) -> None:
    page = await office.page()
    assert "Never checked here: type epicrisis audit verify in a terminal." in page.text
    assert "at entry 0, which is in it." in page.text
    office.act()
    report = office.audit.verify()
    office.ledger.keep_check(Checked(NOW, report.entries, report.found, report.anchored_at))
    page = await office.page()
    assert f"all {report.entries} entries were intact." in page.text
    assert "alarmed" not in (await office.ask(LIST)).text
    office.ledger.keep_check(Checked(NOW, report.entries, 4))
    answer = await office.ask(LIST)
    assert "BROKEN, 4 faults." in answer.text
    assert "alarmed" in answer.text
    office.ledger.keep_check(Checked(NOW, report.entries, 0))
    keys = office.audit._keys.anchors
    AnchorFile(office.folder / "anchors", lambda: NOW, keys).write(1, "0" * 64)
    answer = await office.ask(LIST)
    assert "is NOT in this trail." in answer.text
    assert "alarmed" in answer.text


async def test_what_must_be_looked_at_stands_on_top(office: Office) -> None:
    empty = await office.page()
    for nothing in ("0 times the glass was broken", "0 attestations within ten seconds", "0 bulk recalls"):
        assert nothing in empty.text
    patient = office.run.inputs.patient
    office.attesting.break_glass(Glass("user:rev", patient, "An emergency.", NOW, NOW, "filed"))
    hasty = Attested(
        RunId("filed"), patient, "DocumentReference/7", "Practitioner/roe", "user:roe", NOW, NOW, 0, 0, 9
    )
    office.attesting.keep_attested(hasty)
    calm = replace(hasty, run_id=RunId("calm"), opened_at=NOW - timedelta(minutes=3))
    office.attesting.keep_attested(calm)
    wanted = Wanted(source="Observation/7")
    office.attesting.propose(Proposal(ProposalId("0" * 32), wanted, "user:rev", NOW, "The lab took it back."))
    page = await office.page()
    for told in (
        "1 time the glass was broken", "An emergency.", "1 attestation within ten seconds",
        "Practitioner/roe", "1 bulk recall", "The lab took it back.",
    ):  # fmt: skip
        assert told in page.text, told
    assert "calm" not in page.text


async def test_a_document_is_followed_to_every_input(office: Office) -> None:
    office.act()
    office.audit.append(
        AuditEntry(
            Action.ATTEST, "user:roe", office.run.inputs.patient, NOW, run_id="filed", by="Practitioner/roe"
        )
    )
    office.reviews.begin(Review(RunId("filed"), "user:rev", Rule.WARD, NOW, office.run.inputs.patient))
    page = await office.page(RUN)
    inputs, summary = office.run.inputs, office.run.summary
    for told in (
        inputs.model, inputs.model_digest, inputs.engine_version, inputs.prompt_version,
        inputs.template_digest, inputs.rules_version, inputs.record_digest,
        "epicrisis replay filed", "DocumentReference/7",
        f"{len(summary.published)} published, {len(summary.refused)} refused", "attest", "Practitioner/roe",
        "Reviewed by user:rev",
    ):  # fmt: skip
        assert told in page.text, told
    sources = {source for fact in summary.facts for source in fact.sources}
    assert sources
    for source in sources:
        assert source.reference in page.text
        assert source.digest in page.text
    assert (await office.ask("/review/trail/runs/none")).status_code == 404
    assert (await office.ask("/review/trail/runs/a%20b")).status_code == 400


async def test_of_a_shredded_patient_the_acts_are_left(office: Office) -> None:
    office.act()
    KeyRoom(office.store.database, lambda: NOW, office.folder / "key").shred(
        office.run.inputs.patient, "asked for", leave_drafts=True
    )
    page = await office.page(RUN)
    assert "What was stored about this patient was destroyed." in page.text
    assert "generate" in page.text
    assert "destroyed" in page.text
    assert office.run.inputs.model_digest not in page.text


async def test_from_a_source_every_document_is_found(office: Office) -> None:
    source = next(iter(office.run.summary.facts[0].sources))
    office.store.save(replace(office.run, run_id=RunId("unfiled")))
    page = await office.page(SOURCES, {"source": source.reference})
    for told in (
        "2 summaries rest on it, with 1 document",
        "filed",
        "unfiled",
        "not filed",
        "DocumentReference/7",
    ):
        assert told in page.text
    exact = await office.page(SOURCES, {"source": f"{source.reference}/_history/{source.version or 'x'}"})
    assert ("2 summaries rest on it" in exact.text) == bool(source.version)
    assert (
        "No summary that is stored here" in (await office.page(SOURCES, {"source": "Observation/none"})).text
    )
    wrong = await office.ask(SOURCES, {"source": "<none>"})
    assert wrong.status_code == 400
    assert "A source is Type/id" in wrong.text
