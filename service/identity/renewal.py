"""A launch's tokens, renewed before they end: once for all who wait, in this process and in others.

A refresh token is often good for one use, and a second use ends the whole grant.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from connectors.auth import EARLY_S
from connectors.errors import ConnectorError, TimedOut, TokenRefused, Unauthorized
from service.identity.launch import Launches, Site, let_go
from service.identity.refusal import Reason
from service.ports.held import Closes
from service.ports.launches import Launch, Tokens

PAUSE_S: Final = 0.05
TRIES: Final = 600
"""Half a minute: longer than any exchange with a token endpoint may take."""
_log = logging.getLogger("epicrisis.identity")


def launch_over() -> Unauthorized:
    """Return the error of a launch that has ended."""
    return Unauthorized(
        "What the EHR allowed has ended.", "Open Epicrisis again from the patient's chart.", status=401
    )


@dataclass(frozen=True, slots=True)
class Renewal:
    """Keeps the tokens of launches good. `refuse` records what was turned away, as (reason, actor)."""

    launches: Launches
    refuse: Callable[[Reason, str], None]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False, repr=False)

    def bearer(self, visit: str) -> LaunchBearer:
        """Return what shows the tokens of one launch."""
        return LaunchBearer(self, visit)

    async def token(self, visit: str, refused: str = "") -> str:
        """Return an access token of a launch, not the `refused` one where another can be had.

        Raises ConnectorError where the launch or the EHR's grant is over, and StoreError.
        """
        launch = await self._standing(visit)
        if launch.tokens.access != refused and not self._is_due(launch.tokens):
            return launch.tokens.access
        if not launch.tokens.refresh:
            if self._has_ended(launch.tokens):
                raise launch_over()
            return launch.tokens.access
        try:
            await self._renewed(launch)
        except ConnectorError as error:
            if launch.tokens.access == refused or self._has_ended(launch.tokens):
                raise
            _log.warning("A user's token could not be renewed yet (%s)", error.code)
        return (await self._standing(visit)).tokens.access

    async def _renewed(self, launch: Launch) -> None:
        """Renew once for all who ask meanwhile. Whoever stops waiting stops nobody: the answer is kept."""
        task = self._under_way.get(launch.visit)
        if task is None:
            task = asyncio.create_task(self._renew(launch))
            self._under_way[launch.visit] = task
            task.add_done_callback(lambda done: self._forget(launch.visit, done))
        await asyncio.shield(task)

    def _forget(self, visit: str, done: asyncio.Task[None]) -> None:
        self._under_way.pop(visit, None)
        if not done.cancelled():
            done.exception()  # whoever waited was told; nobody may wait any more

    async def _renew(self, launch: Launch) -> None:
        right = await self._held(launch.visit)
        try:
            now = await self._standing(launch.visit)
            if now.tokens.access != launch.tokens.access:
                return  # another process was first
            site = self.launches.named(now.ehr)
            if site is None:
                raise launch_over()
            await self._ask(site, now)
        finally:
            await asyncio.to_thread(right.close)

    async def _ask(self, site: Site, launch: Launch) -> None:
        try:
            answer = await site.server.refresh(launch.tokens.refresh)
        except TokenRefused:
            raise launch_over() from None
        if answer.patient not in ("", launch.patient):
            await asyncio.to_thread(self.launches.store.end_launch, launch.visit)
            await let_go(site, answer.access, answer.refresh)
            await asyncio.to_thread(self.refuse, Reason.OTHER_PATIENT, launch.actor)
            raise launch_over()
        scope = launch.scope if answer.scope is None else answer.scope
        tokens = self.launches.tokens_of(answer, launch.tokens.refresh)
        profile = self.launches.profile_of(launch.actor, site.ehr, scope)
        is_kept = await asyncio.to_thread(
            self.launches.store.renew_launch, launch.visit, tokens, scope, profile
        )
        if not is_kept:  # the user left in the meantime
            await let_go(site, tokens.access, tokens.refresh)
            raise launch_over()

    async def _held(self, visit: str) -> Closes:
        for _ in range(TRIES):
            right = await asyncio.to_thread(self.launches.store.hold, visit)
            if right is not None:
                return right
            await self.sleep(PAUSE_S)
        raise TimedOut("Another process renews this user's tokens, and does not come to an end.")

    async def _standing(self, visit: str) -> Launch:
        launch = await self.launches.current(visit)
        if launch is None:
            raise launch_over()
        return launch

    def _is_due(self, tokens: Tokens) -> bool:
        early = tokens.expires_at - timedelta(seconds=EARLY_S)
        return self.launches.clock() >= (tokens.renew_at or early)

    def _has_ended(self, tokens: Tokens) -> bool:
        return self.launches.clock() >= tokens.expires_at


@dataclass(frozen=True, slots=True)
class LaunchBearer:
    """Shows the tokens of one launch."""

    renewal: Renewal
    visit: str

    async def token(self, refused: str = "") -> str:
        """Return an access token that is good now. Raises ConnectorError."""
        return await self.renewal.token(self.visit, refused)
