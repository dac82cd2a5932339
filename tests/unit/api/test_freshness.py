"""The route that says whether a stored summary still holds: audited like every page of a run."""

from __future__ import annotations

from fixtures.sample_run import sample_run
from service.api.app import create_app
from service.ports import Action, StoredRun
from service.staleness import Change, Freshness, Staleness, What
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.api.serving import NOW, Served, serve

RUN = sample_run()
PATH = f"/api/runs/{RUN.run_id}/freshness"


async def stale(run: StoredRun, actor: str) -> Staleness:
    change = Change("AllergyIntolerance/9", "AllergyIntolerance", What.NEW, True, False)
    return Staleness(run.run_id, Freshness.STALE, run.read_at, NOW, (change,))


def connected() -> Served:
    store, audit = InMemoryStore(RUN), InMemoryAudit()
    app = create_app(
        store=store,
        audit=audit,
        access=OpenDoor(),
        clock=lambda: NOW,
        allowed_hosts=("127.0.0.1",),
        version="9",
        ask=stale,
    )
    return Served(store, audit, app)


async def test_what_changed_is_told_by_kind_after_the_view_is_on_record() -> None:
    served = connected()
    answer = await served.ask(PATH)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert (body["run"], body["freshness"]) == (RUN.run_id, "stale")
    assert body["changes"] == {"AllergyIntolerance": {"new": ["AllergyIntolerance/9"]}}
    assert (body["touches_required"], body["touches_cited"]) == (True, False)
    assert [(e.action, e.run_id) for e in served.audit.entries] == [(Action.VIEW, RUN.run_id)]


async def test_pages_without_a_server_say_unknown_and_never_fresh() -> None:
    body = (await serve(RUN).ask(PATH)).json()
    assert (body["freshness"], body["compared_at"]) == ("unknown", None)
    assert "no connection" in body["reason"]


async def test_what_guards_the_pages_guards_this_too() -> None:
    served = connected()
    assert (await served.ask("/api/runs/none/freshness")).status_code == 404
    assert (await served.ask("/api/runs/a%20b/freshness")).status_code == 400
    assert (await served.ask(PATH, method="POST")).status_code == 405
    assert (await served.ask(PATH, host="evil.example")).status_code in (400, 403, 421)
    assert served.audit.entries == []
    served.audit.failure = RuntimeError("disk")
    assert (await served.ask(PATH)).status_code == 503
