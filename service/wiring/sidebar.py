"""The sidebar, plugged in: whose chart it reads, who makes its summaries, and what may be filed of them."""

from __future__ import annotations

from functools import partial

from service.api.freshness import Ask
from service.api.sidebar.making import Making
from service.api.sidebar.room import Sidebar
from service.context.templates import open_library
from service.ehrs import is_same_server
from service.ondemand import Opener
from service.ports import AuditLog, FilingStore, StoredRun
from service.ports.launches import Launch
from service.settings import Settings
from service.staleness import Freshness, Staleness
from service.wiring.asking import Said
from service.wiring.installation import policy, software_version, utc_now
from service.wiring.launches import LaunchRooms
from service.wiring.ondemand import Serving

OTHER_SERVER = "it was made on another server than the one that is configured here"


def open_sidebar(
    settings: Settings,
    store: FilingStore,
    audit: AuditLog,
    serving: Serving,
    launching: LaunchRooms,
    said: Said,
    ask: Ask,
) -> Sidebar:
    """Return the sidebar of who is launched. `ask` compares a run with its chart by our own connection."""
    charts = launching.charts

    def opener_of(launch: Launch) -> Opener:
        return serving.user_opener(partial(charts.open, launch), launch.fhir_user)

    def may_file(launch: Launch) -> bool:
        """SAFETY 17: by our own connection alone, which goes to one server."""
        site = launching.door.launches.named(launch.ehr)
        return site is not None and site.ehr.files and _is_ours(settings, launch.server)

    async def ask_ours(run: StoredRun, actor: str) -> Staleness:
        if not _is_ours(settings, run.inputs.server):  # another server's ids mean other people
            return Staleness(run.run_id, Freshness.UNKNOWN, run.read_at, None, reason=OTHER_SERVER)
        return await ask(run, actor)

    return Sidebar(
        store=store,
        audit=audit,
        clock=utc_now,
        charts=charts,
        library=open_library(settings.prompts),
        policy=policy(settings),
        version=software_version(),
        feedback=said.feedback,
        feedbacks=said.feedbacks,
        asks=said.room,
        making=Making(serving.on_demand, opener_of, may_file),
        ask=ask_ours,
        has_viewer=True,
    )


def _is_ours(settings: Settings, server: str) -> bool:
    return bool(settings.fhir_url) and is_same_server(settings.fhir_url, server)
