"""`epicrisis serve`: the pages, from one process or from several that share a port and a database."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from socket import socket
from typing import Annotated, Any

import typer
import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from connectors.errors import ConnectorError
from service.apart.child import die_with
from service.api.security import check_bind
from service.errors import EpicrisisError, SettingsError
from service.hardening import describe, keep_memory_private, silence_crashes
from service.identity.onetime import OneTimeToken
from service.settings import Settings
from service.terminal import set_up_logging, stderr, tell_error
from service.wiring import build_app, tls_files

GRACE_S = 5
"""A stream of events ends with whoever follows it, and else never: it is cut off after so long."""
_READY_S = 1.0


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(serve)


def serve(
    context: typer.Context,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; beyond loopback only with TLS and an identity provider."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8080,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that answer; about as many as there are cores to spare.")
    ] = 1,
) -> None:
    """Serve the pages: the list of summaries, and each one beside its sources. /healthz says when ready."""
    run_pages(context.obj, host, port, processes)


def run_pages(settings: Settings, host: str, port: int, processes: int = 1) -> None:
    """Serve until Ctrl-C. Raises SettingsError, and StoreError where the database cannot be opened."""
    tls = tls_files(settings)
    check_bind(host, has_tls=tls is not None, has_provider=bool(settings.oidc_issuer))
    cert, key = tls or (None, None)
    announcement = _Announcement("https" if tls else "http", None if settings.oidc_issuer else OneTimeToken())
    at = partial(
        uvicorn.Config, host=host, port=port, log_level="warning", log_config=None, access_log=False,
        ssl_certfile=cert, ssl_keyfile=key, timeout_graceful_shutdown=GRACE_S,
    )  # fmt: skip
    if processes == 1:
        _serve_alone(at(build_app(settings, announcement.one_time, announcement.tell_next)), announcement)
    else:
        _check_several(settings)
        _serve_together(
            at(partial(open_pages, settings, os.getpid()), factory=True, workers=processes), announcement
        )


def open_pages(settings: Settings, supervisor: int) -> FastAPI:
    """Return the pages of one of several processes. Where they cannot be opened, it says why and ends.

    None outlives the process that started it, which alone can end or replace them.
    """
    die_with(supervisor, signal.SIGTERM)
    keep_memory_private()
    silence_crashes()
    set_up_logging(settings.log_level)
    try:
        return build_app(settings)
    except (EpicrisisError, ConnectorError) as error:
        tell_error(error.message, error.advice)
    except Exception as error:
        stderr.print(describe(type(error), error.__traceback__), markup=False, soft_wrap=True)
    sys.exit(STARTUP_FAILURE)


def _check_several(settings: Settings) -> None:
    """Raise SettingsError where several processes would each have what there must be one of."""
    if not settings.oidc_issuer:
        raise SettingsError(
            "Without an identity provider one process alone can serve: its address opens no other.",
            "Set EPICRISIS_OIDC_ISSUER, or leave --processes out.",
        )
    if not settings.engine_url and settings.engine != "scripted":
        raise SettingsError(
            "Several processes would each start an engine of their own.",
            "Run vLLM beside them and set EPICRISIS_ENGINE_URL, or leave --processes out.",
        )


def _serve_alone(config: uvicorn.Config, announcement: _Announcement) -> None:
    server = _AnnouncingServer(config, announcement)
    with suppress(KeyboardInterrupt):  # uvicorn repeats the Ctrl-C that ended it
        server.run()
    if not server.started:
        raise _port_taken(config.port)


def _serve_together(config: uvicorn.Config, announcement: _Announcement) -> None:
    try:
        listening = config.bind_socket()
    except SystemExit:  # uvicorn's way to say it
        raise _port_taken(config.port) from None
    supervisor = _Supervisor(config, [listening], announcement)
    supervisor.run()
    listening.close()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise SettingsError("The pages could not be opened.", "What is said above tells why.")


def _port_taken(port: int) -> SettingsError:
    return SettingsError(f"Port {port} cannot be listened on.", "Choose another one with --port.")


@dataclass
class _Announcement:
    """Says on stderr where the pages are; the token in the address opens them once, and another follows."""

    scheme: str
    one_time: OneTimeToken | None
    base: str = ""

    def tell(self, host: str, port: int) -> None:
        self.base = f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{port}/"
        address = self._with(self.one_time.value) if self.one_time else self.base
        stderr.print(f"The pages are at {address} — Ctrl-C stops.", soft_wrap=True)

    def tell_next(self, token: str) -> None:
        stderr.print(f"A browser has come in. For another one: {self._with(token)}", soft_wrap=True)

    def _with(self, token: str) -> str:
        return f"{self.base}login?token={token}"


class _AnnouncingServer(uvicorn.Server):
    """Says where the pages are, once they answer."""

    def __init__(self, config: uvicorn.Config, announcement: _Announcement) -> None:
        super().__init__(config)
        self._announcement = announcement

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            address = self.servers[0].sockets[0].getsockname()
            self._announcement.tell(address[0], address[1])


class _Supervisor(Multiprocess):
    """Keeps the processes alive, and says where the pages are once all of them answer."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket], announcement: _Announcement) -> None:
        super().__init__(config, sockets)
        self._announcement = announcement
        self._has_told = False

    def handle_signals(self) -> None:
        super().handle_signals()
        if not self._has_told and all(process.is_ready(_READY_S) for process in self.processes):
            self._has_told = True
            address = self.sockets[0].getsockname()
            self._announcement.tell(address[0], address[1])
