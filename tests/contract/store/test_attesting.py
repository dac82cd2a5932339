"""What clinicians decide, attest and hide, recalls of two people, and broken glass: database and double."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from fixtures.postgres import PostgresServer
from service.errors import ShreddedError, StoreError
from service.ports import RunId, StopScope, Wanted
from service.ports.attesting import (
    Act,
    Attested,
    AttestingStore,
    Disposal,
    Edit,
    Glass,
    Hidden,
    Proposal,
    ProposalId,
    ProposalState,
)
from service.store.attesting import SqlAttesting
from service.store.cipher import Cipher
from service.store.database import Database, open_cipher
from service.store.keys import KeyRoom
from service.store.sql import SqlStore
from tests.conftest import CANARY
from tests.unit.in_memory_attesting import InMemoryAttesting

AT = datetime(2026, 11, 28, 8, 0, tzinfo=UTC)
SOON = AT + timedelta(minutes=1)
PATIENT, ROE = f"Patient/{CANARY}-1", "Practitioner/roe"
RUN, ONE, TWO = RunId("run1"), "user:one", "user:two"
WORDS = f"{CANARY} has no gout."
TABLES = ("decision", "opening", "attested", "hidden", "glass")


@dataclass
class Desk:
    """One store; `database` is None for the double."""

    kept: AttestingStore
    database: Database | None = None


def opened(url: str, cipher: Cipher) -> Iterator[Desk]:
    kept = SqlAttesting(url, cipher)
    yield Desk(kept, kept.database)
    kept.close()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    if request.param == "memory":
        yield Desk(InMemoryAttesting())
        return
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/epicrisis.db"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.ready_database()
    yield from opened(url, open_cipher(tmp_path / "key", url))


@pytest.fixture
def stored(url: str, cipher: Cipher) -> Iterator[Desk]:
    yield from opened(url, cipher)


def decision(act: Act = Act.ACCEPTED, actor: str = ONE, **more: object) -> Disposal:
    given = {"ordinal": 0, "reason": ""} | more
    return Disposal(RUN, PATIENT, actor, ROE, act, AT, **given)  # type: ignore[arg-type]


def edit(after: str = WORDS, ordinal: int = 0) -> Edit:
    return Edit(RUN, ordinal, f"{CANARY} has gout.", after, 3, ROE, AT, ONE)


def attested(**more: object) -> Attested:
    one = Attested(RUN, PATIENT, "DocumentReference/9/_history/1", ROE, ONE, AT, SOON, 1, 3, 40)
    return replace(one, **more)  # type: ignore[arg-type]


def hidden(run_id: RunId = RUN) -> Hidden:
    return Hidden(run_id, PATIENT, ROE, ONE, AT, f"{CANARY} is somebody else.", "DocumentReference/7")


def glass(actor: str = ONE) -> Glass:
    return Glass(actor, PATIENT, f"{CANARY} fell.", AT, AT + timedelta(minutes=30), RUN, ROE)


def proposal(number: int = 1) -> Proposal:
    wanted = Wanted(source="Observation/7", after=AT)
    return Proposal(ProposalId(f"{number:032x}"), wanted, ONE, AT, "The lab recalled it.")


def test_the_latest_decision_on_an_item_holds_and_each_clinician_has_their_own(desk: Desk) -> None:
    kept = desk.kept
    kept.dispose(decision())
    kept.dispose(decision(ordinal=None, section="allergies"))
    kept.dispose(decision(Act.EDITED), edit())
    kept.dispose(decision(Act.REJECTED, TWO, reason="not so"))
    assert [(one.ordinal, one.section, one.act) for one in kept.disposals(RUN, ONE)] == [
        (None, "allergies", Act.ACCEPTED),
        (0, "", Act.EDITED),
    ]
    assert kept.edits_of(RUN, ONE) == [edit()]
    assert kept.disposals(RUN, TWO) == [decision(Act.REJECTED, TWO, reason="not so")]
    assert kept.edits_of(RUN, TWO) == []


def test_the_last_decision_is_undone_first_and_the_one_before_it_holds_again(desk: Desk) -> None:
    kept = desk.kept
    kept.dispose(decision())
    kept.dispose(decision(Act.EDITED), edit())
    kept.dispose(decision(actor=TWO))
    assert kept.undo(RUN, ONE, AT) == decision(Act.EDITED)
    assert kept.disposals(RUN, ONE) == [decision()]
    assert kept.edits_of(RUN, ONE) == []
    assert kept.undo(RUN, ONE, AT) == decision()
    assert kept.undo(RUN, ONE, AT) is None
    assert kept.disposals(RUN, TWO) == [decision(actor=TWO)]


def test_the_first_opening_counts_whoever_comes_back(desk: Desk) -> None:
    assert desk.kept.opened_at(RUN, ONE) is None
    assert desk.kept.open(RUN, PATIENT, ONE, AT) == AT
    assert desk.kept.open(RUN, PATIENT, ONE, SOON) == AT
    assert desk.kept.open(RUN, PATIENT, TWO, SOON) == SOON
    assert desk.kept.opened_at(RUN, ONE) == AT


def test_one_attestation_of_a_run_is_kept_and_its_edits_are_found_by_time(desk: Desk) -> None:
    kept = desk.kept
    kept.dispose(decision(Act.EDITED), edit())
    kept.dispose(decision(Act.EDITED, TWO, ordinal=1), edit("Another's, never attested.", 1))
    kept.keep_attested(attested())
    kept.keep_attested(attested(actor=TWO, document="DocumentReference/10"))
    assert kept.attested_of(RUN) == attested()
    assert kept.attested_of(RunId("run2")) is None
    assert kept.attestations(AT, SOON + timedelta(seconds=1)) == [attested()]
    assert kept.attestations(AT, SOON) == []
    assert kept.edits(AT, SOON + timedelta(seconds=1)) == [edit()]


@pytest.mark.parametrize(("seconds", "is_hasty"), [(9.9, True), (10, False)])
def test_under_ten_seconds_is_hasty(seconds: float, is_hasty: bool) -> None:
    assert attested(attested_at=AT + timedelta(seconds=seconds)).is_hasty is is_hasty


def test_what_is_hidden_stays_so_until_it_is_lifted(desk: Desk) -> None:
    kept = desk.kept
    kept.hide(hidden())
    kept.hide(replace(hidden(), reason="again"))
    kept.hide(hidden(RunId("run2")))
    assert kept.hidden_of(RUN) == hidden()
    assert [one.run_id for one in kept.hidden()] == ["run2", RUN]
    assert kept.lift(RUN, TWO, SOON)
    assert not kept.lift(RUN, TWO, SOON)
    assert kept.hidden_of(RUN) is None
    assert [one.run_id for one in kept.hidden()] == ["run2"]
    kept.hide(hidden())
    assert kept.hidden_of(RUN) == hidden()


def test_whoever_asks_what_is_stopped_is_told_of_hidden_runs(stored: Desk, url: str, cipher: Cipher) -> None:
    store = SqlStore(url, cipher)
    stored.kept.hide(hidden())
    (stop,) = store.stops()
    assert (stop.scope, stop.value) == (StopScope.RUN, RUN)
    assert CANARY not in repr(stop)
    stored.kept.lift(RUN, TWO, SOON)
    assert store.stops() == ()
    store.close()


def test_nobody_approves_what_they_proposed_and_nothing_is_decided_twice(desk: Desk) -> None:
    kept = desk.kept
    kept.propose(proposal())
    assert kept.decide(proposal().id, ProposalState.APPROVED, ONE, SOON) is None
    assert kept.proposal(proposal().id) == proposal()
    approved = kept.decide(proposal().id, ProposalState.APPROVED, TWO, SOON)
    assert approved == replace(proposal(), state=ProposalState.APPROVED, decided_by=TWO, decided_at=SOON)
    assert kept.decide(proposal().id, ProposalState.REFUSED, TWO, SOON) is None
    kept.propose(proposal(2))
    taken_back = kept.decide(proposal(2).id, ProposalState.REFUSED, ONE, SOON)
    assert taken_back is not None
    assert taken_back.state is ProposalState.REFUSED
    assert kept.decide(ProposalId("none"), ProposalState.REFUSED, TWO, SOON) is None
    assert [one.id for one in kept.proposals()] == [proposal(2).id, proposal().id]


def test_how_a_recall_ended_is_kept(desk: Desk) -> None:
    desk.kept.propose(proposal())
    ended = replace(
        proposal(), state=ProposalState.DONE, total=3, done=2, left=("DocumentReference/7: rejected",)
    )
    desk.kept.advance(ended)
    assert desk.kept.proposal(proposal().id) == ended


def test_broken_glass_is_of_one_person_and_one_patient_until_its_time_is_over(desk: Desk) -> None:
    kept = desk.kept
    kept.break_glass(glass())
    kept.break_glass(replace(glass(TWO), at=SOON))
    assert kept.glass_of(ONE, PATIENT, SOON) == glass()
    assert kept.glass_of(ONE, PATIENT, AT + timedelta(minutes=30)) is None
    assert kept.glass_of(ONE, "Patient/2", SOON) is None
    assert kept.glass_of("user:three", PATIENT, SOON) is None
    assert [one.actor for one in kept.glasses(AT, SOON + timedelta(seconds=1))] == [TWO, ONE]
    assert [one.actor for one in kept.glasses(AT, SOON)] == [ONE]


def fill(kept: AttestingStore) -> None:
    """One row of each kind about the canary."""
    kept.open(RUN, PATIENT, ONE, AT)
    kept.dispose(decision(Act.EDITED, reason=f"{CANARY} said so"), edit())
    kept.keep_attested(attested())
    kept.hide(hidden())
    kept.break_glass(glass())


def test_nothing_of_it_lies_in_the_clear(stored: Desk) -> None:
    assert stored.database is not None
    fill(stored.kept)
    stored.kept.propose(replace(proposal(), reason=f"{CANARY} complained"))
    with stored.database.engine.connect() as connection:
        for table in (*TABLES, "proposal"):
            rows = connection.execute(text(f"SELECT * FROM epicrisis_{table}")).all()
            assert len(rows) == 1
            assert CANARY not in repr(rows)
            assert ROE not in repr(rows)


def test_shredding_a_patient_leaves_nothing_and_takes_nothing_more(
    stored: Desk, url: str, cipher: Cipher
) -> None:
    assert stored.database is not None
    store = SqlStore(url, cipher)
    fill(stored.kept)
    other = replace(hidden(RunId("run2")), patient="Patient/2")
    stored.kept.hide(other)
    KeyRoom(stored.database, lambda: SOON).shred(PATIENT, "asked for it")
    with stored.database.engine.connect() as connection:
        left = {
            table: connection.execute(text(f"SELECT count(*) FROM epicrisis_{table}")).scalar_one()
            for table in TABLES
        }
    assert left == {"decision": 0, "opening": 0, "attested": 0, "hidden": 1, "glass": 0}
    assert stored.kept.hidden() == [other]
    acts: list[Callable[[], object]] = [
        lambda: stored.kept.dispose(decision()),
        lambda: stored.kept.keep_attested(attested()),
        lambda: stored.kept.hide(hidden()),
        lambda: stored.kept.break_glass(glass()),
    ]
    for again in acts:
        with pytest.raises(ShreddedError):
            again()
    store.close()


def test_a_database_that_fails_is_a_store_error(stored: Desk) -> None:
    assert stored.database is not None
    with stored.database.engine.begin() as connection:
        connection.execute(text("DROP TABLE epicrisis_hidden"))
    with pytest.raises(StoreError):
        stored.kept.hidden()
