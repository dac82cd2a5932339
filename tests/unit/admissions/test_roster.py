"""What becomes of admissions as things are heard of them: who is looked after, and what ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from connectors.admissions.events import (
    Admitted,
    Cancelled,
    Deceased,
    Discharged,
    Event,
    Identifier,
    Merged,
    Reinstated,
    Source,
    Subject,
    Transferred,
    Updated,
    Visit,
)
from connectors.admissions.resolve import Resolved, Unresolved
from connectors.errors import Forbidden, NothingListens, ServerFailed
from fixtures.facts import NOW
from service.admissions.roster import TOO_EARLY_TRIES, Roster
from service.errors import StoreError
from service.ports import Admission, DocumentState, Standing
from tests.unit.admissions.doubles import SERVER, Bench
from tests.unit.in_memory_admissions import MOST_TRIES

WARD, OTHER = "Location/a", "Location/b"


def event(kind: type[Event], patient: str = "Patient/1", stay: str = "Encounter/9", **more: Any) -> Any:
    given = {"source": Source.POLL, "encounter_class": "IMP", "location": WARD, **more}
    return kind(patient=Subject(patient), visit=Visit(stay), **given)


def known(bench: Bench, patient: str = "Patient/1", stay: str = "Encounter/9", **more: Any) -> None:
    resource = {"status": more.pop("status", "in-progress")}
    given = {"encounter_resource": resource, **more}
    bench.resolver.answers[patient] = Resolved(patient, stay, **given)


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    known(made)
    return made


async def admitted(bench: Bench) -> Admission:
    await bench.hear(event(Admitted, key="1"))
    bench.ordered.clear()
    return bench.only()


def fresh(bench: Bench, **more: Any) -> Admission:
    given = {"standing": Standing.FRESH, "run_id": "run-1", **more}
    changed = replace(bench.only(), **given)
    bench.store.stays[changed.id] = changed
    return changed


async def test_a_stay_that_begins_is_kept_and_visited(bench: Bench) -> None:
    assert await bench.hear(event(Admitted)) == 1
    one = bench.only()
    assert (one.server, one.patient, one.encounter) == (SERVER, "Patient/1", "Encounter/9")
    assert (one.encounter_class, one.location) == ("IMP", WARD)
    assert (one.standing, one.since) == (Standing.MISSING, NOW)
    assert bench.ordered == [one]
    assert bench.roster.counts == {"admitted": 1, "kept": 1}
    assert "Patient" not in one.id


@pytest.mark.parametrize("kind", [Updated, Admitted, Reinstated, Transferred])
async def test_news_of_a_stay_makes_its_summary_stale_and_has_it_visited(
    bench: Bench, kind: type[Event]
) -> None:
    await admitted(bench)
    before = fresh(bench)
    await bench.hear(event(kind, key="2", location=OTHER))
    after = bench.only()
    assert after == replace(before, standing=Standing.STALE, since=NOW, location=OTHER)
    assert bench.ordered == [after]
    assert bench.roster.counts == {"kept": 1}


async def test_what_an_event_does_not_tell_stays_as_it_was(bench: Bench) -> None:
    await admitted(bench)
    await bench.hear(event(Updated, key="2", location="", encounter_class=""))
    assert (bench.only().location, bench.only().encounter_class) == (WARD, "IMP")


async def test_a_reason_for_which_it_was_left_out_does_not_outlast_the_news(bench: Bench) -> None:
    await admitted(bench)
    fresh(bench, standing=Standing.SKIPPED, reason="minor", run_id="")
    await bench.hear(event(Updated, key="2"))
    assert (bench.only().standing, bench.only().reason) == (Standing.MISSING, "")


@pytest.mark.parametrize(
    ("kind", "reason"), [(Discharged, "discharged"), (Cancelled, "cancelled"), (Deceased, "deceased")]
)
async def test_what_ends_a_stay_ends_the_work_and_lapses_its_drafts(
    bench: Bench, kind: type[Event], reason: str
) -> None:
    one = await admitted(bench)
    bench.draft(7, "Patient/1", "Encounter/9")
    bench.draft(8, "Patient/1", "Encounter/10")
    bench.draft(9, "Patient/1", "")
    bench.draft(10, "Patient/2", "Encounter/9")
    await bench.hear(event(kind, key="2"))
    after = bench.only()
    assert (after.standing, after.reason, after.since) == (Standing.ENDED, reason, NOW)
    assert after.epoch == one.epoch + 1
    assert bench.cancelled == [one.id]
    assert not bench.ordered
    assert sorted(bench.ehr.asked) == ["DocumentReference/7", "DocumentReference/9"]
    assert bench.roster.counts == {"ended": 1, "not_withdrawn:forbidden": 2}


async def test_what_is_no_draft_or_of_another_server_is_left_alone_at_the_end(bench: Bench) -> None:
    await admitted(bench)
    bench.documents.put_document(
        replace(bench.draft(7, "Patient/1", "Encounter/9"), state=DocumentState.ATTESTED)
    )
    bench.documents.put_document(replace(bench.draft(8, "Patient/1", "Encounter/9"), server="http://other"))
    del bench.documents.filed[SERVER, "DocumentReference/8"]
    await bench.hear(event(Discharged, key="2"))
    assert bench.ehr.asked == []


def ended_of(bench: Bench) -> set[str]:
    return {one.encounter for one in bench.store.stays.values() if not one.is_open}


async def test_with_a_death_every_stay_of_the_patient_ends_and_with_a_discharge_only_one(
    bench: Bench,
) -> None:
    await bench.hear(event(Admitted))
    known(bench, stay="Encounter/10")
    await bench.hear(event(Admitted, stay="Encounter/10"))
    known(bench, "Patient/2", "Encounter/11")
    await bench.hear(event(Admitted, "Patient/2", "Encounter/11"))
    known(bench, stay="Encounter/12")
    await bench.hear(event(Admitted, stay="Encounter/12"))
    await bench.hear(event(Discharged, stay="Encounter/12", key="2"))
    assert ended_of(bench) == {"Encounter/12"}
    known(bench)
    await bench.hear(event(Deceased, key="3"))
    assert ended_of(bench) == {"Encounter/9", "Encounter/10", "Encounter/12"}


async def test_the_end_of_a_stay_that_nobody_looks_after_is_counted(bench: Bench) -> None:
    await bench.hear(event(Discharged))
    assert bench.roster.counts == {"ended_unknown": 1}


async def test_a_stay_whose_resource_is_gone_ends_by_its_own_reference(bench: Bench) -> None:
    await admitted(bench)
    bench.resolver.answers["Patient/1"] = Resolved(reason=Unresolved.UNKNOWN_STAY)
    await bench.hear(event(Cancelled, key="2"))
    assert bench.only().standing is Standing.ENDED


async def test_a_discharge_that_is_taken_back_opens_the_admission_again(bench: Bench) -> None:
    one = await admitted(bench)
    fresh(bench)
    await bench.hear(event(Discharged, key="2"))
    await bench.hear(event(Reinstated, key="3"))
    after = bench.only()
    assert (after.id, after.standing, after.reason) == (one.id, Standing.STALE, "")
    assert bench.ordered == [after]


@pytest.mark.parametrize("status", ["finished", "cancelled", "entered-in-error"])
async def test_news_of_a_stay_that_is_over_by_now_ends_it(bench: Bench, status: str) -> None:
    await admitted(bench)
    known(bench, status=status)
    await bench.hear(event(Updated, key="2"))
    assert bench.only().standing is Standing.ENDED
    assert not bench.ordered


async def test_a_patient_who_leaves_what_is_watched_is_not_looked_after_any_more(bench: Bench) -> None:
    await admitted(bench)
    await bench.hear(event(Transferred, key="2", location=OTHER, from_location=WARD, leaves=True))
    assert (bench.only().standing, bench.only().reason) == (Standing.ENDED, "transferred")


async def test_a_patient_who_leaves_one_schedule_for_another_is_looked_after_whoever_tells_first(
    bench: Bench,
) -> None:
    leaves = event(Transferred, key="2", location=OTHER, from_location=WARD, leaves=True)
    comes = event(Admitted, key="3", location=OTHER)
    await admitted(bench)
    await bench.hear(leaves)
    await bench.hear(comes)
    assert bench.only().is_open
    other = Bench()
    known(other)
    await admitted(other)
    await other.hear(comes)
    await other.hear(leaves)
    assert other.only().is_open
    assert not other.cancelled


async def test_a_patient_who_leaves_by_another_class_or_service_at_the_same_place_is_gone(
    bench: Bench,
) -> None:
    await admitted(bench)
    await bench.hear(event(Transferred, key="2", location=WARD, from_location=WARD, leaves=True))
    assert not bench.only().is_open


async def test_a_merge_ends_the_retired_record_and_withdraws_all_its_drafts(bench: Bench) -> None:
    one = await admitted(bench)
    bench.draft(7, "Patient/1", "Encounter/9")
    bench.draft(8, "Patient/1", "")
    bench.draft(9, "Patient/2", "Encounter/11")
    known(bench, "Patient/2", "")
    bench.resolver.answers["Patient/2"] = Resolved("Patient/2", reason=Unresolved.NO_STAY)
    merged = Merged(
        patient=Subject("Patient/2"), visit=Visit(), source=Source.HL7, retired=Subject("Patient/1")
    )
    await bench.hear(merged)
    assert (bench.only().standing, bench.only().reason) == (Standing.ENDED, "merged")
    assert bench.cancelled == [one.id]
    assert set(bench.ehr.asked) == {"DocumentReference/7", "DocumentReference/8"}
    assert bench.roster.counts["merged"] == 1


@pytest.mark.parametrize("linked", [False, True])
async def test_a_message_that_names_the_retired_record_by_its_number_withdraws_its_drafts(
    bench: Bench, linked: bool
) -> None:
    await admitted(bench)
    bench.draft(7, "Patient/1", "Encounter/9")
    bench.resolver.answers["Patient/2"] = Resolved("Patient/2", reason=Unresolved.NO_STAY)
    retired = Subject(identifiers=(Identifier("", "M1", "MR"),))
    bench.resolver.answers["M1"] = (
        Resolved("Patient/2", reason=Unresolved.NO_STAY, retired=("Patient/1",))
        if linked
        else Resolved("Patient/1", reason=Unresolved.NO_STAY)
    )
    await bench.hear(Merged(patient=Subject("Patient/2"), visit=Visit(), source=Source.HL7, retired=retired))
    assert bench.only().reason == "merged"
    assert bench.ehr.asked == ["DocumentReference/7", "DocumentReference/7"]


async def test_a_stay_that_moves_to_another_patient_takes_nothing_from_the_first_but_its_own(
    bench: Bench,
) -> None:
    await bench.hear(event(Admitted))
    known(bench, stay="Encounter/10")
    await bench.hear(event(Admitted, stay="Encounter/10"))
    moved = next(one for one in bench.store.stays.values() if one.encounter == "Encounter/9")
    bench.store.stays[moved.id] = replace(moved, run_id="run-1", standing=Standing.FRESH)
    bench.draft(7, "Patient/1", "Encounter/9")
    bench.draft(8, "Patient/1", "Encounter/10")
    bench.ordered.clear()
    known(bench, "Patient/2", "Encounter/9")
    await bench.hear(event(Merged, "Patient/2", "Encounter/9", retired=Subject("Patient/1")))
    after = bench.store.get_admission(moved.id)
    assert after is not None
    assert (after.patient, after.standing, after.run_id) == ("Patient/2", Standing.MISSING, "")
    other = next(one for one in bench.store.stays.values() if one.encounter == "Encounter/10")
    assert (other.patient, other.is_open) == ("Patient/1", True)
    assert set(bench.ehr.asked) == {"DocumentReference/7"}
    assert bench.cancelled[0] == moved.id
    assert bench.ordered == [after]


async def test_a_stay_that_moves_because_its_patient_was_merged_takes_all_of_the_retired_record_along(
    bench: Bench,
) -> None:
    await admitted(bench)
    bench.draft(7, "Patient/1", "Encounter/9")
    bench.draft(8, "Patient/1", "Encounter/8")
    known(bench, "Patient/2", "Encounter/9")
    bench.resolver.answers["Patient/1"] = Resolved(
        "Patient/2", reason=Unresolved.NO_STAY, retired=("Patient/1",)
    )
    await bench.hear(event(Merged, "Patient/2", "Encounter/9", retired=Subject("Patient/1")))
    assert set(bench.ehr.asked) == {"DocumentReference/7", "DocumentReference/8"}
    assert (bench.only().patient, bench.only().is_open) == ("Patient/2", True)


async def test_a_stay_that_is_found_under_another_patient_gets_nothing_of_the_first(bench: Bench) -> None:
    one = await admitted(bench)
    fresh(bench)
    bench.draft(7, "Patient/1", "Encounter/9")
    known(bench, "Patient/2", "Encounter/9")
    await bench.hear(event(Updated, "Patient/2", key="2"))
    assert bench.cancelled == [one.id]
    assert bench.ehr.asked == ["DocumentReference/7"]
    assert (bench.only().patient, bench.only().standing) == ("Patient/2", Standing.MISSING)


@pytest.mark.parametrize("reason", [Unresolved.AMBIGUOUS_PATIENT, Unresolved.NO_STAY])
async def test_an_event_that_means_nobody_is_counted_by_its_reason_and_done(
    bench: Bench, reason: Unresolved
) -> None:
    bench.resolver.answers["Patient/1"] = Resolved(reason=reason)
    assert await bench.hear(event(Updated)) == 1
    assert bench.roster.counts == {reason.value: 1}
    assert not bench.store.stays
    assert not bench.store.unheeded()


async def test_a_stay_that_has_no_reference_is_nothing_to_look_after(bench: Bench) -> None:
    bench.resolver.answers["Patient/1"] = Resolved("Patient/1")
    await bench.hear(event(Updated))
    assert bench.roster.counts == {"no_stay": 1}


async def test_a_message_that_is_faster_than_the_record_system_is_tried_again_some_times(
    bench: Bench,
) -> None:
    bench.resolver.answers["Patient/1"] = Resolved(reason=Unresolved.UNKNOWN_STAY)
    await bench.hear(event(Admitted, source=Source.HL7))
    assert len(bench.store.unheeded()) == 1
    assert await bench.hear(again=False) == 0
    known(bench)
    assert await bench.hear() == 1
    assert bench.only().encounter == "Encounter/9"

    bench.resolver.answers["Patient/1"] = Resolved(reason=Unresolved.UNKNOWN_STAY)
    bench.store.hear([])
    await bench.hear(event(Admitted, key="never", source=Source.HL7))
    for _ in range(TOO_EARLY_TRIES):
        await bench.hear()
    assert not bench.store.unheeded()


async def test_an_event_that_cannot_be_acted_on_is_tried_again_and_holds_up_no_other(bench: Bench) -> None:
    bench.resolver.answers["Patient/2"] = [Forbidden("The server denies this.")]
    await bench.hear(event(Admitted, "Patient/2", key="1"), event(Admitted, key="2"))
    assert bench.only().patient == "Patient/1"
    assert bench.roster.counts["failed:forbidden"] == 1
    (waiting,) = bench.store.unheeded()
    assert waiting.tries == 1
    for _ in range(MOST_TRIES):
        await bench.hear()
    assert not bench.store.unheeded()


async def test_while_nobody_answers_nothing_counts_as_tried(bench: Bench) -> None:
    bench.resolver.answers["Patient/1"] = [NothingListens("Nothing listens there.")]
    assert await bench.hear(event(Admitted, key="1"), event(Admitted, key="2")) == 0
    assert [one.tries for one in bench.store.unheeded()] == [0, 0]
    assert len(bench.resolver.asked) == 1
    known(bench)
    assert await bench.hear() == 2


async def test_what_could_not_be_read_at_once_is_read_one_by_one(bench: Bench) -> None:
    bench.resolver.prefetch_fails = ServerFailed("The server failed.")
    await bench.hear(event(Admitted))
    assert bench.resolver.prefetched == 1
    assert bench.only().encounter == "Encounter/9"


async def test_garbage_among_the_events_is_counted_and_holds_up_nothing(bench: Bench) -> None:
    bench.store.hear([("", b"\xff garbage"), ("", b'["Nothing", {}]'), ("", b'["Admitted", {"x": 1}]')])
    await bench.hear(event(Admitted))
    assert bench.roster.counts["unreadable_event"] == 3
    assert bench.only().encounter == "Encounter/9"
    assert not bench.store.unheeded()


async def test_more_events_than_are_read_at_once_are_all_heeded(bench: Bench) -> None:
    events = [event(Updated, key=str(number)) for number in range(250)]
    assert await bench.hear(*events) == 250


async def test_of_two_processes_that_keep_a_stay_at_once_one_is_heard_and_none_fails(bench: Bench) -> None:
    other = Admission("of-the-other", SERVER, "Patient/1", "Encounter/9", run_id="run-7")
    find, calls = bench.store.find_admission, []

    def find_late(server: str, encounter: str) -> Admission | None:
        calls.append(encounter)
        if len(calls) == 1:
            bench.store.stays[other.id] = other
            return None
        return find(server, encounter)

    bench.store.find_admission = find_late  # type: ignore[method-assign]
    await bench.hear(event(Admitted))
    assert (bench.only().id, bench.only().standing) == ("of-the-other", Standing.STALE)
    assert "admitted" not in bench.roster.counts


async def test_a_database_that_takes_no_stay_is_an_error(bench: Bench) -> None:
    def refuse(admission: Admission) -> None:
        raise StoreError("The disk is full.")

    bench.store.put_admission = refuse  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        await bench.hear(event(Admitted))


async def test_without_an_order_the_news_waits_for_the_pass(bench: Bench) -> None:
    roster = Roster(bench.store, bench.roster.resolver, bench.roster.desk)
    bench.store.hear([("", b"")])
    assert await roster.heed_all() == 0
    await bench.hear()
    bench.store.hear([])
    from service.admissions.form import dump_events

    bench.store.hear(dump_events([event(Admitted)]))
    await roster.heed_all()
    await roster.end(bench.only(), "discharged")
    assert bench.only().standing is Standing.ENDED
