"""When a tick is due: clocks that jump, hours that come twice or never, and what was missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from connectors.errors import ServerFailed
from service.errors import SettingsError, StoreError
from service.ports import Tick
from service.scheduler import (
    LEASE,
    MOST_MISSED,
    Schedule,
    Scheduler,
    due_tick,
    hand_tick,
    next_tick,
    read_schedules,
    wall_of,
)
from tests.unit.in_memory_admissions import InMemoryAdmissions

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = Schedule("night", "30 2 * * *", BERLIN)
MORNING = Schedule("morning", "30 5 * * *", ZoneInfo("UTC"))
DAY = datetime(2026, 11, 24, 5, 30, tzinfo=UTC)


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


def following(schedule: Schedule, after: datetime, count: int) -> list[str]:
    return [schedule.tick_id(at) for at in islice(schedule.times(after), count)]


def test_the_autumn_hour_that_comes_twice_is_one_tick() -> None:
    assert following(NIGHT, berlin("2026-10-24T12:00"), 3) == [
        "night@2026-10-25T02:30",
        "night@2026-10-26T02:30",
        "night@2026-10-27T02:30",
    ]


def test_the_tick_of_the_first_of_two_hours_is_not_due_again_in_the_second() -> None:
    first, second = berlin("2026-10-25T02:30"), berlin("2026-10-25T02:30", fold=1)
    assert second - first == timedelta(hours=1)
    assert due_tick(NIGHT, first - timedelta(days=1), first) == first
    assert due_tick(NIGHT, first + timedelta(seconds=1), second + timedelta(minutes=5)) is None


def test_every_half_hour_goes_through_the_autumn_hour_once() -> None:
    half_hours = replace(NIGHT, cron="*/30 * * * *")
    walls = [tick[-5:] for tick in following(half_hours, berlin("2026-10-25T01:00"), 6)]
    assert walls == ["01:30", "02:00", "02:30", "03:00", "03:30", "04:00"]


def test_a_tick_in_the_spring_gap_runs_once_that_day() -> None:
    ticks = list(islice(NIGHT.times(berlin("2026-03-28T12:00")), 2))
    assert [at.astimezone(BERLIN).date().isoformat() for at in ticks] == ["2026-03-29", "2026-03-30"]
    assert ticks[0] == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)  # 03:30, as 02:30 never was


def test_a_year_by_the_minute_has_no_wall_time_twice_and_none_out_of_order() -> None:
    quarter = replace(NIGHT, cron="*/15 * * * *")
    walls = [quarter.tick_id(at) for at in islice(quarter.times(berlin("2026-10-24T20:00")), 60)]
    assert walls == sorted(set(walls))


def test_nothing_is_due_before_its_time_and_the_latest_of_several_that_were_missed_is() -> None:
    assert due_tick(MORNING, DAY, DAY + timedelta(hours=23)) is None
    assert due_tick(MORNING, DAY - timedelta(days=3), DAY + timedelta(minutes=1)) == DAY
    assert due_tick(MORNING, DAY - timedelta(days=3), DAY) == DAY


def test_a_tick_that_was_missed_by_more_than_its_grace_is_skipped_where_the_site_says_so() -> None:
    skips = replace(MORNING, misfire="skip", grace_s=600)
    before = DAY - timedelta(days=1)
    assert due_tick(skips, before, DAY + timedelta(seconds=600)) == DAY
    assert due_tick(skips, before, DAY + timedelta(seconds=601)) is None
    assert due_tick(replace(MORNING, grace_s=600), before, DAY + timedelta(hours=9)) == DAY


def test_the_jitter_of_a_schedule_is_no_lateness() -> None:
    skips = replace(MORNING, misfire="skip", grace_s=60, jitter_s=120)
    assert due_tick(skips, DAY - timedelta(days=1), DAY + timedelta(seconds=179)) == DAY
    assert due_tick(skips, DAY - timedelta(days=1), DAY + timedelta(seconds=181)) is None


def test_only_the_alarm_has_jitter_never_the_tick() -> None:
    jittery = replace(MORNING, jitter_s=3600)
    assert jittery.trigger().jitter is None
    assert jittery.trigger(with_jitter=True).jitter == 3600
    assert MORNING.trigger(with_jitter=True).jitter is None
    assert next(jittery.times(DAY - timedelta(hours=1))) == DAY


def test_a_schedule_by_the_minute_looks_back_no_further_than_is_reasonable() -> None:
    minutes = replace(MORNING, cron="* * * * *")
    found = due_tick(minutes, DAY - timedelta(days=30), DAY)
    assert found == DAY - timedelta(days=30) + timedelta(minutes=MOST_MISSED)


def test_a_schedule_without_a_next_time_has_none() -> None:
    assert next_tick(replace(MORNING, cron="0 0 30 2 *"), DAY) is None
    assert next_tick(MORNING, DAY) == DAY + timedelta(days=1)


def test_an_id_is_the_schedule_and_the_wall_time() -> None:
    assert NIGHT.tick_id(berlin("2026-10-25T02:30")) == NIGHT.tick_id(berlin("2026-10-25T02:30", fold=1))
    assert wall_of(Tick("night@2026-10-25T02:30", "night", DAY)) == "2026-10-25T02:30"
    assert hand_tick("night", berlin("2026-11-24T06:00")) == "night@2026-11-24T05:00:00.000000+hand"


WHOLE = """
[morning]
cron = "30 5 * * mon-fri"
time_zone = "Europe/Berlin"
kind = "handover"
jitter_s = 120
misfire = "skip"
grace_s = 60
polls = false
statuses = ["in-progress"]
classes = ["IMP"]
locations = ["Location/7"]
providers = ["Organization/3"]
services = ["394802001"]

[night]
cron = "0 0 * * *"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "schedules.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_of_schedules_is_read_whole(tmp_path: Path) -> None:
    found = read_schedules(write(tmp_path, WHOLE), "America/New_York")
    morning, night = found["morning"], found["night"]
    assert (morning.name, morning.cron, morning.zone.key) == ("morning", "30 5 * * mon-fri", "Europe/Berlin")
    assert (morning.kind, morning.polls, morning.jitter_s) == ("handover", False, 120)
    assert (morning.misfire, morning.grace_s) == ("skip", 60)
    ward = morning.ward
    assert (ward.statuses, ward.classes, ward.locations) == (("in-progress",), ("IMP",), ("Location/7",))
    assert (ward.providers, ward.services) == (("Organization/3",), ("394802001",))
    assert (night.kind, night.zone.key, night.polls) == ("admission", "America/New_York", True)
    assert (night.misfire, night.grace_s, night.jitter_s) == ("latest", 3600, 0)
    assert read_schedules(write(tmp_path, '[a]\ncron = "0 0 * * *"'))["a"].zone.key == "UTC"


def test_the_schedules_that_are_shipped_can_be_used() -> None:
    assert set(read_schedules(Path("ops/schedules.toml"))) == {"morning", "handover"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not toml", "not TOML"),
        ("x = 1", "'x'"),
        ("[Big]\ncron = '0 0 * * *'", "small letters"),
        ("[a]\ncron = '0 0 * *'", "five fields"),
        ("[a]\ncron = '0 0 * * 1'", "a weekday is named"),
        ("[a]\ncron = '61 0 * * *'", "61"),
        ("[a]\ncron = '0 0 * * someday'", "someday"),
        ("[a]\ncron = '0 0 * * *'\ntime_zone = 'Europe/Nowhere'", "Europe/Nowhere"),
        ("[a]\ncron = '0 0 * * *'\njitter_s = -1", "not negative"),
        ("[a]\ncron = '0 0 * * *'\ngrace_s = -1", "not negative"),
        ("[a]\ncron = '0 0 * * *'\nmisfire = 'all'", "misfire"),
        ("[a]\ncron = '0 0 * * *'\nunknown = 1", "unknown"),
        ("[a]\nkind = 'x'", "cron"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read_schedules(write(tmp_path, text))
    assert says in raised.value.message


def test_a_file_that_is_not_there_is_a_setting_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_schedules(tmp_path / "none.toml")


@dataclass
class Hands:
    """A clock that a test sets, and a pass that notes its ticks as the sweep does."""

    now: datetime
    store: InMemoryAdmissions = field(default_factory=InMemoryAdmissions)
    ran: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    hangs: asyncio.Event | None = None

    def clock(self) -> datetime:
        return self.now

    async def run(self, schedule: Schedule, tick_id: str) -> None:
        self.ran.append(tick_id)
        is_new = self.store.begin_tick(Tick(tick_id, schedule.name, self.now))
        last = self.store.ticks[tick_id]
        if not is_new and last.finished_at is not None:
            self.ran.pop()
            return
        if self.failures:
            raise self.failures.pop(0)
        if self.hangs is not None:
            await self.hangs.wait()
        self.store.end_tick(tick_id, self.now, {})

    def scheduler(self, *schedules: Schedule) -> Scheduler:
        return Scheduler(
            {one.name: one for one in schedules}, self.store, self.clock, self.run, lease_poll_s=0.01
        )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a thread sets no event
            await asyncio.sleep(0.005)


async def wake(scheduler: Scheduler, schedule: Schedule) -> None:
    """Wake, and let what begins end."""
    await scheduler.wake(schedule)
    await asyncio.gather(*scheduler._running.values())


async def test_a_tick_runs_once_and_one_that_is_missed_while_nothing_runs_is_made_up_for() -> None:
    hands = Hands(DAY)
    hands.store.begin_tick(Tick("morning@2026-11-20T05:30", "morning", DAY - timedelta(days=4)))
    hands.store.end_tick("morning@2026-11-20T05:30", DAY - timedelta(days=4), {})
    scheduler = hands.scheduler(MORNING)
    for _ in range(3):
        await wake(scheduler, MORNING)
    assert hands.ran == ["morning@2026-11-24T05:30"]


async def test_a_schedule_that_never_ran_begins_with_its_next_tick() -> None:
    hands = Hands(DAY - timedelta(minutes=1))
    scheduler = hands.scheduler(MORNING)
    await wake(scheduler, MORNING)
    assert hands.ran == []
    hands.now = DAY + timedelta(seconds=2)
    await wake(scheduler, MORNING)
    assert hands.ran == ["morning@2026-11-24T05:30"]


async def test_a_tick_that_was_cut_off_is_gone_on_with_and_not_begun_anew() -> None:
    hands = Hands(DAY + timedelta(hours=1))
    hands.store.begin_tick(Tick("morning@2026-11-24T05:30", "morning", DAY))
    scheduler = hands.scheduler(MORNING)
    await wake(scheduler, MORNING)
    await wake(scheduler, MORNING)
    assert hands.ran == ["morning@2026-11-24T05:30"]


async def test_a_clock_that_jumps_back_repeats_nothing() -> None:
    hands = Hands(DAY + timedelta(seconds=1))
    scheduler = hands.scheduler(MORNING)
    hands.now = DAY - timedelta(hours=1)
    await wake(scheduler, MORNING)
    hands.now = DAY + timedelta(seconds=1)
    await wake(scheduler, MORNING)
    hands.now = DAY - timedelta(hours=2)
    await wake(scheduler, MORNING)
    hands.now = DAY + timedelta(seconds=3)
    await wake(scheduler, MORNING)
    assert hands.ran == ["morning@2026-11-24T05:30"]
    hands.now = DAY + timedelta(days=1)
    await wake(scheduler, MORNING)
    assert hands.ran == ["morning@2026-11-24T05:30", "morning@2026-11-25T05:30"]


async def test_a_clock_that_was_a_year_ahead_does_not_silence_a_schedule_for_a_year() -> None:
    hands = Hands(DAY + timedelta(days=365))
    scheduler = hands.scheduler(MORNING)
    hands.store.begin_tick(Tick("morning@2027-11-24T05:30", "morning", hands.now))
    hands.store.end_tick("morning@2027-11-24T05:30", hands.now, {})
    await wake(scheduler, MORNING)
    hands.now = DAY - timedelta(minutes=1)
    await wake(scheduler, MORNING)
    assert hands.ran == []
    hands.now = DAY
    for _ in range(3):
        await wake(scheduler, MORNING)
    assert hands.ran == ["morning@2026-11-24T05:30"]


async def test_a_schedule_that_is_paused_rests_and_makes_up_for_what_it_missed_when_it_is_resumed() -> None:
    hands = Hands(DAY - timedelta(minutes=1))
    scheduler = hands.scheduler(MORNING)
    await wake(scheduler, MORNING)
    hands.store.pause("morning", True, "user", hands.now)
    hands.now = DAY + timedelta(hours=2)
    await wake(scheduler, MORNING)
    assert hands.ran == []
    hands.store.pause("morning", False, "user", hands.now)
    await wake(scheduler, MORNING)
    assert hands.ran == ["morning@2026-11-24T05:30"]


async def test_a_pass_that_someone_asks_for_on_the_page_runs_though_the_schedule_is_paused() -> None:
    hands = Hands(DAY)
    hands.store.pause("morning", True, "user", hands.now)
    asked = hand_tick("morning", DAY)
    hands.store.begin_tick(Tick(asked, "morning", DAY))
    await wake(hands.scheduler(MORNING), MORNING)
    assert hands.ran == [asked]


@pytest.mark.parametrize("failure", [ServerFailed("The server failed."), StoreError("The disk is full.")])
async def test_a_pass_that_could_not_begin_is_tried_again(failure: Exception) -> None:
    hands = Hands(DAY - timedelta(minutes=1), failures=[failure])
    scheduler = hands.scheduler(MORNING)
    await wake(scheduler, MORNING)
    hands.now = DAY
    await wake(scheduler, MORNING)
    await wake(scheduler, MORNING)
    await wake(scheduler, MORNING)
    assert hands.ran == ["morning@2026-11-24T05:30"] * 2


async def test_a_pass_is_not_begun_while_the_one_before_is_at_work() -> None:
    hands = Hands(DAY - timedelta(minutes=1), hangs=asyncio.Event())
    scheduler = hands.scheduler(MORNING)
    await scheduler.wake(MORNING)
    hands.now = DAY
    await scheduler.wake(MORNING)
    await asyncio.sleep(0)
    hands.now = DAY + timedelta(days=1)
    await scheduler.wake(MORNING)
    assert hands.ran == ["morning@2026-11-24T05:30"]
    assert hands.hangs is not None
    hands.hangs.set()
    await asyncio.gather(*scheduler._running.values())
    await wake(scheduler, MORNING)
    assert hands.ran == ["morning@2026-11-24T05:30", "morning@2026-11-25T05:30"]


async def test_a_database_that_is_away_ends_no_scheduler() -> None:
    hands = Hands(DAY)
    scheduler = hands.scheduler(MORNING)
    hands.store.begin_tick(Tick("morning@2026-11-24T05:30", "morning", DAY))
    hands.store.broken = True
    await wake(scheduler, MORNING)
    hands.store.broken = False
    await wake(scheduler, MORNING)
    assert hands.ran == ["morning@2026-11-24T05:30"]


async def test_of_two_schedulers_one_runs_and_the_other_takes_over_when_it_is_gone() -> None:
    hands = Hands(DAY - timedelta(minutes=1))
    one, other = hands.scheduler(MORNING), hands.scheduler(MORNING)
    ends = [asyncio.Event(), asyncio.Event()]
    first = asyncio.create_task(one.serve(ends[0]))
    await until(lambda: LEASE in hands.store.locks.held)
    second = asyncio.create_task(other.serve(ends[1]))
    await until(lambda: "morning" in one._began)
    hands.now = DAY + timedelta(seconds=1)
    await until(lambda: hands.ran == ["morning@2026-11-24T05:30"])
    assert not other._began
    ends[0].set()
    await first
    await until(lambda: "morning" in other._began)
    hands.now = DAY + timedelta(days=1)
    await until(lambda: len(hands.ran) == 2)
    ends[1].set()
    await second
    assert hands.ran == ["morning@2026-11-24T05:30", "morning@2026-11-25T05:30"]
    assert not hands.store.locks.held


async def test_a_scheduler_that_waits_for_the_lease_can_be_stopped() -> None:
    hands = Hands(DAY)
    held = hands.store.hold(LEASE)
    stop = asyncio.Event()
    waiting = asyncio.create_task(hands.scheduler(MORNING).serve(stop))
    await asyncio.sleep(0.02)
    stop.set()
    async with asyncio.timeout(5):
        await waiting
    assert held is not None
    assert hands.ran == []


async def test_a_pass_that_is_at_work_when_the_scheduler_stops_is_left_to_be_gone_on_with() -> None:
    hands = Hands(DAY - timedelta(minutes=1), hangs=asyncio.Event())
    stop = asyncio.Event()
    task = asyncio.create_task(hands.scheduler(MORNING).serve(stop))
    await until(lambda: LEASE in hands.store.locks.held)
    await asyncio.sleep(0.03)
    hands.now = DAY
    await until(lambda: bool(hands.ran))
    stop.set()
    await task
    last = hands.store.last_tick("morning")
    assert last is not None
    assert last.finished_at is None
