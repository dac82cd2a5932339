"""What is kept between runs, and sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

KEPT_AREAS = frozenset({"snapshot", "digest", "probe", "picture", "embedding"})
"""The areas of a Vault: fetched charts, what the engine said about a window of one, how a model did in the
probe of the second pass, pictures as they are shown, and what an image encoder made of them."""


class Vault(Protocol):
    """Bytes kept encrypted under a key: snapshots of charts, digests of windows.

    Losing one costs time, never truth. `area` is one of KEPT_AREAS and lies in the open; `key` may name a
    patient, and only its keyed hash is stored. Every method raises StoreError where the database cannot be
    used, and for an area that does not exist.
    """

    def get(self, area: str, key: str) -> bytes | None:
        """Return what was last put, or None; what is damaged or under a lost key is gone, and no error."""
        ...

    def put(self, area: str, key: str, content: bytes) -> None:
        """Keep bytes, in place of earlier ones, whole or not at all; of two writers the last one wins.

        Raises StoreError: the disk is full, or the content is larger than a database takes (512 MiB).
        """
        ...

    def drop(self, area: str, key: str) -> None:
        """Forget one entry; where there is none, nothing happens."""
        ...

    def prune(self, area: str, before: datetime) -> int:
        """Forget what was neither put nor read since an aware instant, and return how many that were.

        A read counts to the hour: an entry may go up to one hour early.
        """
        ...


@dataclass(frozen=True, slots=True)
class KeptSession:
    """Who is signed in by one session, since when, and when that was last made use of."""

    actor: str
    """`user:local`, `user:<hash>`: never a name."""
    roles: tuple[str, ...]
    issuer: str
    """Who vouched for them; empty: nobody, this machine alone."""
    began_at: datetime
    used_at: datetime
    fhir_user: str = field(default="", repr=False)


class SessionStore(Protocol):
    """Sessions by their id, a secret: only its keyed hash is stored. Every method raises StoreError."""

    def put_session(self, session_id: str, session: KeptSession) -> None:
        """Keep a new session."""
        ...

    def get_session(self, session_id: str) -> KeptSession | None:
        """Return a session, or None."""
        ...

    def use_session(self, session_id: str, at: datetime) -> None:
        """Note that it is in use; where it has ended, nothing happens."""
        ...

    def end_session(self, session_id: str) -> None:
        """Delete it; where there is none, nothing happens."""
        ...

    def forget_sessions(self, began_before: datetime, used_before: datetime) -> int:
        """Delete those that began, or were last used, before then; return how many."""
        ...
