"""The table of who may do what (`routes.toml`), and the check that no route is without a row."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Scope

from service.errors import SettingsError
from service.identity.visitor import Role

PUBLIC: Final = "public"
HOOK: Final = "hook"
CDS: Final = "cds"
LAUNCH: Final = "launch"
MAX_BODY: Final = 16 * 1024
MOUNT_METHODS: Final = ("GET", "HEAD")
"""What is asked of static files; a mount itself would take any method."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row, for one method."""

    path: str
    method: str
    who: frozenset[Role]
    open_to: str = ""
    """`public`, `hook`, `cds`, or empty where a role is asked for."""
    max_body: int = MAX_BODY
    by_launch: bool = False
    """Whether a launch from an EHR opens it; where roles are named, one whose user has one of them."""

    def admits(self, roles: frozenset[Role]) -> bool:
        """Tell whether somebody with these roles may do this."""
        return bool(self.open_to) or bool(self.who & roles)

    def admits_launched(self, roles: frozenset[Role]) -> bool:
        """Tell whether somebody with these roles may do this, who came by a launch."""
        return self.by_launch and (not self.who or bool(self.who & roles))


Table = Mapping[tuple[str, str], Rule]
"""(path template, method) → rule."""


def read_table(text: str | None = None) -> Table:
    """Return the table. Raises SettingsError for a row that cannot be read, or two of one route."""
    rows = tomllib.loads(text or files("service.api").joinpath("routes.toml").read_text("utf-8"))["route"]
    table: dict[tuple[str, str], Rule] = {}
    for row in rows:
        for rule in _rules_of(row):
            if (rule.path, rule.method) in table:
                raise SettingsError(f"The table of routes has two rows for {rule.method} {rule.path}.")
            table[rule.path, rule.method] = rule
    return table


def _rules_of(row: Mapping[str, Any]) -> list[Rule]:
    who = row["who"]
    is_open = who in (PUBLIC, HOOK, CDS)
    by_launch = who == LAUNCH or (not is_open and LAUNCH in who)
    named = [] if is_open or who == LAUNCH else [one for one in who if one != LAUNCH]
    try:
        roles = frozenset(map(Role, named))
    except ValueError:
        raise SettingsError(
            f"The table of routes names a role that does not exist at {row['path']}."
        ) from None
    limit = int(row.get("max_body", MAX_BODY))
    return [
        Rule(row["path"], method, roles, who if is_open else "", limit, by_launch)
        for method in row["methods"]
    ]


def check_routes(routes: Sequence[BaseRoute], table: Table) -> None:
    """Refuse to start where a route has no row. Raises SettingsError."""
    for route in routes:
        for path, method in offered(route):
            if (path, method) not in table:
                raise SettingsError(
                    f"Nothing says who may use {method} {path}.", "Give it a row in service/api/routes.toml."
                )


def offered(route: BaseRoute) -> list[tuple[str, str]]:
    """Return what a route offers. Raises SettingsError for a kind that the table has no words for."""
    if isinstance(route, Route):
        return [(route.path, method) for method in sorted(route.methods or ())]
    if isinstance(route, Mount):
        return [(route.path, method) for method in MOUNT_METHODS]
    raise SettingsError("The application has a route that no row can speak of.")


def find_rule(scope: Scope, routes: Sequence[BaseRoute], table: Table) -> Rule | None:
    """Return the rule of the route that will answer: nobody's where it has no row. None without a route."""
    for route in routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            scope["route"] = route
            path, method = str(getattr(route, "path", "")), str(scope["method"])
            return table.get((path, method), Rule(path, method, frozenset()))
    return None
