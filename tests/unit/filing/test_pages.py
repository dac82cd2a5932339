"""A stored summary that is stopped is not shown, from the next look on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from fixtures.sample_run import sample_run
from service.api.app import create_app
from service.ports import Stop, StopScope
from tests.conftest import CANARY
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore

NOW = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)


@pytest.mark.parametrize("path", ["/runs/{}", "/runs/{}/sources/1", "/runs/{}.json"])
def test_what_is_stopped_is_hidden_at_once_and_shown_again_when_it_is_lifted(path: str) -> None:
    run = sample_run()
    store = InMemoryStore(run)
    app = create_app(
        store=store,
        audit=InMemoryAudit(),
        access=OpenDoor(),
        clock=lambda: NOW,
        allowed_hosts=("127.0.0.1",),
        version="0",
    )
    client = TestClient(app, base_url="http://127.0.0.1")
    address = path.format(run.run_id)
    assert client.get(address).status_code == 200
    store.add_stop(Stop(StopScope.MODEL, run.inputs.model_digest, NOW, "system:cli"))
    hidden = client.get(address)
    assert hidden.status_code == 423
    assert CANARY not in hidden.text.title()
    store.lift_stop(StopScope.MODEL, run.inputs.model_digest, "system:cli", NOW)
    assert client.get(address).status_code == 200


def listed(store: InMemoryStore) -> str:
    app = create_app(
        store=store,
        audit=InMemoryAudit(),
        access=OpenDoor(),
        clock=lambda: NOW,
        allowed_hosts=("127.0.0.1",),
        version="0",
    )
    return TestClient(app, base_url="http://127.0.0.1").get("/").text


@pytest.mark.parametrize("scope", [StopScope.MODEL, StopScope.PROMPT])
def test_the_list_shows_no_row_of_a_stopped_run_and_says_how_many_it_hides(scope: StopScope) -> None:
    kept, gone = sample_run(run_id="kept"), sample_run(run_id="gone")
    gone = replace(gone, inputs=replace(gone.inputs, model_digest="f" * 64, prompt_version="77"))
    value = {StopScope.MODEL: "f" * 64, StopScope.PROMPT: f"{gone.inputs.prompt_id}@77"}[scope]
    store = InMemoryStore(kept, gone)
    assert "/runs/gone" in listed(store)
    store.add_stop(Stop(scope, value, NOW, "system:cli"))
    shown = listed(store)
    assert "/runs/kept" in shown
    assert "/runs/gone" not in shown
    assert "1 of them stopped, and not shown" in shown
    store.add_stop(Stop(StopScope.ALL, "", NOW, "system:cli"))
    shown = listed(store)
    assert "/runs/" not in shown
    assert CANARY not in shown
    assert "2 of them stopped, and not shown" in shown
