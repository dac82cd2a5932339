"""Who is signed in: sessions kept by the server, with an idle and an absolute limit.

A session's id is random, new at every sign-in, and stored only as a keyed hash. A session of another way of
signing in (another provider, or none) is not honoured.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from service.identity.visitor import Role, Visitor
from service.ports import Clock, KeptSession, SessionStore

_ID = re.compile(r"[A-Za-z0-9_-]{43}")
NOTED_WITHIN: Final = 10
"""A use is written down once in this part of the idle limit: a page has many parts, each a request."""
MOST_NOTED: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of one installation. `issuer` is empty where there is no provider."""

    store: SessionStore
    clock: Clock
    idle: timedelta
    longest: timedelta
    issuer: str = ""

    def begin(self, visitor: Visitor, previous: str = "") -> str:
        """Open a session and return its id; the browser's previous one ends. Raises StoreError."""
        now = self.clock()
        self.store.forget_sessions(began_before=now - self.longest, used_before=now - self.idle)
        if previous:
            self.end(previous)
        session_id = secrets.token_urlsafe(32)
        roles = tuple(sorted(visitor.roles))
        self.store.put_session(
            session_id, KeptSession(visitor.actor, roles, self.issuer, now, now, visitor.fhir_user)
        )
        return session_id

    def find(self, session_id: str) -> Visitor | None:
        """Return who has this session, and note its use; None where it is over. Raises StoreError."""
        session = self.store.get_session(session_id) if _ID.fullmatch(session_id) else None
        if session is None or session.issuer != self.issuer:
            return None
        now = self.clock()
        if now - session.began_at >= self.longest or now - session.used_at >= self.idle:
            self.store.end_session(session_id)
            return None
        if now - session.used_at >= min(self.idle / NOTED_WITHIN, MOST_NOTED):
            self.store.use_session(session_id, now)
        known = frozenset(Role(role) for role in session.roles if role in frozenset(Role))
        return Visitor(session.actor, known, session.fhir_user)

    def end(self, session_id: str) -> None:
        """End a session; where there is none, nothing happens. Raises StoreError."""
        if _ID.fullmatch(session_id):
            self.store.end_session(session_id)
