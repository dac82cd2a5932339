"""A LaunchStore in dicts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from service.errors import StoreError
from service.ports.held import Closes
from service.ports.launches import Attempt, Launch, Seen, Tokens


@dataclass
class _Row:
    browser: str
    launch: Launch
    began_at: datetime
    used_at: datetime


@dataclass
class _Held:
    store: InMemoryLaunches
    visit: str

    def close(self) -> None:
        self.store.held.discard(self.visit)


@dataclass
class InMemoryLaunches:
    """`is_broken` makes every call fail; `held` are the launches whose tokens somebody renews."""

    attempts: dict[str, tuple[str, Attempt]] = field(default_factory=dict)
    rows: dict[str, _Row] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    asked_to_hold: int = 0
    is_broken: bool = False

    def _check(self) -> None:
        if self.is_broken:
            raise StoreError("the database cannot be read")

    def put_attempt(self, state: str, browser: str, attempt: Attempt) -> None:
        self._check()
        old = attempt.began_at - timedelta(minutes=10)
        self.attempts = {key: one for key, one in self.attempts.items() if one[1].began_at >= old}
        self.attempts[state] = (browser, attempt)

    def take_attempt(self, state: str, browser: str) -> Attempt | None:
        self._check()
        whose, attempt = self.attempts.get(state, ("", None))
        if attempt is None or whose != browser:
            return None
        del self.attempts[state]
        return attempt

    def put_launch(self, browser: str, launch: Launch, at: datetime) -> None:
        self._check()
        self.rows[launch.visit] = _Row(browser, launch, at, at)

    def get_launch(self, visit: str, *, began_after: datetime, used_after: datetime) -> Launch | None:
        self._check()
        row = self.rows.get(visit)
        is_over = row is None or row.began_at <= began_after or row.used_at <= used_after
        return None if row is None or is_over else row.launch

    def look_at(
        self, visit: str, browser: str, *, began_after: datetime, used_after: datetime
    ) -> Seen | None:
        launch = self.get_launch(visit, began_after=began_after, used_after=used_after)
        if launch is None:
            return None
        return Seen(launch, self.rows[visit].browser == browser, self.rows[visit].used_at)

    def visits_of(self, browser: str) -> tuple[str, ...]:
        self._check()
        mine = [row for row in self.rows.values() if row.browser == browser]
        return tuple(row.launch.visit for row in sorted(mine, key=lambda row: row.began_at, reverse=True))

    def use_launch(self, visit: str, at: datetime) -> None:
        self._check()
        if visit in self.rows:
            self.rows[visit].used_at = at

    def renew_launch(self, visit: str, tokens: Tokens, scope: str, access_profile: str) -> bool:
        self._check()
        row = self.rows.get(visit)
        if row is None:
            return False
        row.launch = replace(row.launch, tokens=tokens, scope=scope, access_profile=access_profile)
        return True

    def end_launch(self, visit: str) -> None:
        self._check()
        self.rows.pop(visit, None)

    def forget_launches(self, began_before: datetime, used_before: datetime) -> int:
        self._check()
        over = [
            visit
            for visit, row in self.rows.items()
            if row.began_at < began_before or row.used_at < used_before
        ]
        for visit in over:
            del self.rows[visit]
        return len(over)

    def hold(self, visit: str) -> Closes | None:
        self._check()
        self.asked_to_hold += 1
        if visit in self.held:
            return None
        self.held.add(visit)
        return _Held(self, visit)
