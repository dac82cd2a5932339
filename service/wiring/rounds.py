"""What looks after admissions: sweeps, workers, schedules, and what tells of admissions."""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import make_url

from connectors.admissions.consents import PreferenceRules, parse_codes
from connectors.admissions.events import Event
from connectors.admissions.mllp import MllpLimits, MllpServer
from connectors.admissions.resolve import Resolver
from connectors.admissions.sitelist import ListFile
from connectors.admissions.subscription import Hook
from connectors.fhir.client import FhirClient
from service.admissions.ears import Ears
from service.admissions.roster import Roster
from service.admissions.screen import EligibilityScreen
from service.api.hooks import PATH as HOOK_PATH
from service.context.templates import open_library
from service.durable import Durable, Queue, Waits, open_queue
from service.eligibility import EligibilityRules, Subgroup, load_marks
from service.engine.counted import CountedEngine
from service.engine.prompt import Engine
from service.engine.window import SCHEDULE, Urgency, Window
from service.errors import SettingsError
from service.filing.desk import Desk
from service.ports import Admission
from service.scheduler import Schedule, Scheduler, read_schedules
from service.settings import Settings
from service.store.sql import SqlStore
from service.store.sweeps import SqlAdmissions
from service.store.urgency import SqlUrgency
from service.summarize import Progress
from service.sweep import Sweep, Watch
from service.visits import Visits
from service.watchman import Watchman
from service.wiring.ehr import manner_of
from service.wiring.engines import open_use_case
from service.wiring.installation import database_of, software_version, utc_now, zone_of
from service.worker import Pulse, arrive, take_place


@dataclass(frozen=True, slots=True)
class Rounds:
    """Everything that looks after admissions, open in this process."""

    sweep: Sweep
    pulse: Pulse
    store: SqlAdmissions
    durable: Durable
    client: FhirClient

    async def order(self, admission: Admission, kind: str) -> str:
        """Have one admission visited before those of a sweep."""
        return await self.durable.order(f"heard-{secrets.token_hex(8)}", admission.id, kind, priority=5)


@asynccontextmanager
async def open_rounds(
    settings: Settings, fhir_url: str | None, tell: Progress, *, drain_s: int = 0
) -> AsyncIterator[Rounds]:
    """Plug in what looks after admissions; close it when the block ends, well or badly.

    What is under way then gets `drain_s` seconds; the rest stays in the queue.
    """
    url, cipher = database_of(settings)
    async with AsyncExitStack() as stack:
        admissions = SqlAdmissions(url, cipher, utc_now)
        stack.callback(admissions.close)
        urgency = SqlUrgency(admissions.database)
        place = take_place(admissions, socket.gethostname().partition(".")[0])
        stack.callback(place.lock.close)
        plugged = await stack.enter_async_context(
            open_use_case(settings, fhir_url, tell, partial(_at_night, settings, urgency))
        )
        client, ehr, store = plugged.client, plugged.ehr, plugged.store
        manner = await manner_of(settings, client)
        desk = Desk(ehr, store, store, plugged.audit, utc_now, manner, plugged.tell_collector)
        screen = _screen(settings, client, admissions, store)
        visits = Visits(
            plugged.summarizer, ehr, admissions, store, screen, utc_now,
            keeps=desk.manner.file_when == "attested", desk=desk,
        )  # fmt: skip
        arrive(place, admissions, utc_now, software_version())
        durable = await open_queue(_queue(settings, place.name), visits)
        stack.push_async_callback(durable.close, drain_s)

        async def cancel(admission: Admission) -> None:
            await durable.cancel(admission.id)

        def open_roster() -> Roster:
            resolver = Resolver(client, authorities=settings.authorities)
            return Roster(admissions, resolver, desk, cancel=cancel)

        def open_ears() -> Ears:
            return Ears(client, admissions, utc_now, zone_of(settings), census=settings.census)

        yield Rounds(
            Sweep(admissions, desk, screen, durable, utc_now, open_ears, open_roster),
            Pulse(place, admissions, durable, utc_now, software_version()),
            admissions,
            durable,
            client,
        )


def _screen(
    settings: Settings, client: FhirClient, admissions: SqlAdmissions, documents: SqlStore
) -> EligibilityScreen:
    """Return who decides, by this site's rules, whom no schedule touches. Raises SettingsError."""
    return EligibilityScreen(
        client=client,
        store=admissions,
        documents=documents,
        clock=utc_now,
        zone=zone_of(settings),
        rules=EligibilityRules(
            frozenset(map(Subgroup, settings.subgroups)),
            load_marks(settings.subgroup_codes),
            parse_codes(settings.allowed_labels),
        ),
        wishes=PreferenceRules(parse_codes(settings.opt_out_flags), parse_codes(settings.opt_out_consents)),
        site_list=ListFile(settings.opt_out_list) if settings.opt_out_list else None,
    )


def open_watchman(settings: Settings, rounds: Rounds) -> Watchman:
    """Return what a worker does beside the queue. Raises SettingsError."""
    known = schedules(settings)
    watches = tuple(watch_of_schedule(one) for one in known.values())

    async def run(schedule: Schedule, tick_id: str) -> None:
        await rounds.sweep.run(watch_of_schedule(schedule), tick_id)

    return Watchman(
        sweep=rounds.sweep,
        watches=watches or (Watch("all", settings.sweep_kind),),
        pulse=rounds.pulse,
        scheduler=Scheduler(known, rounds.store, utc_now, run),
        store=rounds.store,
        client=rounds.client,
        clock=utc_now,
        order=rounds.order,
        poll_s=settings.poll_s,
        keep_days=settings.queue_days,
        hook=hook(settings),
        adt=partial(_adt, settings, rounds.sweep.open_ears) if settings.hl7_port else None,
    )


def watch_of_schedule(schedule: Schedule) -> Watch:
    """Return whom a schedule looks after."""
    return Watch(schedule.name, schedule.kind, schedule.ward, polls=schedule.polls)


def hook(settings: Settings) -> Hook | None:
    """Return how the FHIR server tells us of admissions; None where it does not. Raises SettingsError."""
    if not settings.hook_url:
        return None
    secret = settings.hook_secret.get_secret_value()
    try:
        return Hook(settings.hook_url.rstrip("/") + HOOK_PATH, secret)
    except ValueError as error:
        raise SettingsError("EPICRISIS_HOOK_SECRET cannot be used.", str(error)) from None


def _adt(settings: Settings, open_ears: Callable[[], Ears]) -> MllpServer:
    ears = open_ears()

    async def keep(event: Event) -> None:
        await ears.hear([event])

    return MllpServer(
        keep, zone_of(settings), utc_now, settings.hl7_host, settings.hl7_port,
        limits=MllpLimits(allow_plain=settings.hl7_allow_plain),
    )  # fmt: skip


def _at_night(settings: Settings, urgency: Urgency, engine: Engine) -> Engine:
    """Let the schedule keep few requests at the engine, and give way to whoever waits."""
    waiting = partial(urgency.waits, SCHEDULE)
    return CountedEngine(Window(engine, settings.sweep_requests, waiting, priority=SCHEDULE))


def _queue(settings: Settings, worker: str) -> Queue:
    """Return where the queue lies: beside the SQLite file, or in the same PostgreSQL."""
    url, _ = database_of(settings)
    if url.startswith("sqlite:"):
        path = Path(make_url(url).database or "")
        url = f"sqlite:///{path.with_name(f'{path.stem}-queue{path.suffix}')}"
    waits = Waits().scaled(settings.retry_scale)
    return Queue(url, worker, seats=settings.sweep_visits, waits=waits)


def schedules(settings: Settings) -> dict[str, Schedule]:
    """Return the site's schedules; none where no file is set. Raises SettingsError."""
    found = read_schedules(settings.schedules, settings.time_zone) if settings.schedules else {}
    for one in found.values():
        check_kind(settings, one.kind, f"The schedule {one.name!r} cannot be used")
    return found


def check_kind(settings: Settings, kind: str, what: str) -> None:
    """Raise SettingsError where there is no template set of a kind."""
    available = open_library(settings.prompts).available()
    if kind not in available:
        raise SettingsError(
            f"{what}: there is no template set of its kind.", f"There are: {', '.join(available)}."
        )
