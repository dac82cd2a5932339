"""`epicrisis work`: a worker, until it is told to stop (SIGTERM or Ctrl-C).

It looks who is admitted, takes notifications and ADT messages, runs the schedules, and does what is in the
queue. Any number of workers may run: one of them watches, one keeps the schedules, all do the work.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import typer

from connectors.errors import ConnectorError
from service.pause import waited
from service.settings import Settings
from service.terminal import stderr
from service.visits import may_pass
from service.wiring import open_rounds, open_watchman, schedules
from service.wiring.quality import check_gate

AGAIN_S = 2.0


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(work)


def work(
    context: typer.Context,
    fhir_url: Annotated[str | None, typer.Option(help="FHIR base URL [EPICRISIS_FHIR_URL].")] = None,
) -> None:
    """Keep every admitted patient's draft fresh, by schedule and as things happen, until stopped."""
    settings: Settings = context.obj
    kinds = [one.kind for one in schedules(settings).values()]
    check_gate(settings, kinds or [settings.sweep_kind])
    asyncio.run(_work(settings, fhir_url))


async def _work(settings: Settings, fhir_url: str | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    while not stop.is_set():
        try:
            await _serve(settings, fhir_url, stop)
            return
        except ConnectorError as error:
            if not may_pass(error):
                raise
            stderr.print(f"{error} A worker waits for it.", markup=False)
        await waited(stop, AGAIN_S)


async def _serve(settings: Settings, fhir_url: str | None, stop: asyncio.Event) -> None:
    """Work until told to stop. Raises ConnectorError where the FHIR server is not there at the start."""
    async with open_rounds(
        settings, fhir_url, lambda stage, detail: None, drain_s=settings.drain_s
    ) as rounds:
        stderr.print(f"Working as {rounds.pulse.place.name}; Ctrl-C stops.")
        await open_watchman(settings, rounds).serve(stop)
        stderr.print("Stopping: what is under way is finished, the rest stays in the queue.")
