"""Summaries for somebody who waits: what is asked for, how far it is, and what is told of it meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, NewType, Protocol

from service.ports.held import Right

GenerationId = NewType("GenerationId", str)
"""Random hexadecimal, without patient data: safe in a URL."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for, who that is, and as whom the chart is read."""

    server: str
    """Base URL of the FHIR server, without a trailing slash."""
    patient: str = field(repr=False)
    """`Patient/1`"""
    kind: str
    """A template set: `history`."""
    encounter: str = field(repr=False)
    """`Encounter/9` or empty."""
    access_profile: str
    """As whom the chart is read: `system:…`, or `user:<hash>`. Nothing is shared with another one."""
    actor: str
    """`user:<hash>`"""
    by: str = field(default="", repr=False)
    """`Practitioner/7` or empty."""
    attempt_wanted: bool = False
    """True for a text made anew although nothing in the chart has changed."""
    only_kept: bool = False
    """True where nothing is to be filed: what is written stays here."""


class GenerationState(StrEnum):
    """Where a generation stands. DONE, FAILED and CANCELLED are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True where nothing more will be told."""
        return self in (GenerationState.DONE, GenerationState.FAILED, GenerationState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Generation:
    """One summary being made, or made. All who ask for the same share it."""

    id: GenerationId
    asked: Asked
    """Of who asked first."""
    state: GenerationState
    created_at: datetime
    attempt: int = 1
    """The attempt number that its run begins with; a wanted regeneration raises it."""
    stage: str = ""
    """The stage of the work that was told last."""
    run_id: str = ""
    """The stored run, once it is done."""
    error: str = ""
    """Error code of a failed one; never a message that could hold patient data."""


class ToldKind(StrEnum):
    """What an event of a generation says. The last three end its log."""

    STAGE = "stage"
    CLAIM = "claim"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_last(self) -> bool:
        """True where nothing follows."""
        return self in (ToldKind.DONE, ToldKind.FAILED, ToldKind.CANCELLED)


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a generation's log. `data` is JSON."""

    seq: int
    """From 1, without gaps."""
    kind: ToldKind
    data: Mapping[str, Any] = field(repr=False)
    """stage: `stage` and `detail`; claim: `section`, `text`, `cites`; done: `run_id`, `state`, and where
    nothing could be filed its `error`; failed: `error` (a code) and `text` (a sentence). A claim passed the
    rules alone: it is still being checked."""


class Maker(NamedTuple):
    """Who makes a generation: a name that is used once, and the lock that ends with its process."""

    name: str
    slot: int
    """Number of the lock; -1 where it was taken by another generation, so that the maker must be gone."""


class Taken(NamedTuple):
    """A generation whose maker was gone, as the next one finds it."""

    generation: Generation
    last: int
    """Number of the last event."""
    claims: frozenset[tuple[str, str]]
    """Section and text of every claim that was told."""
    makers: int
    """How many makers it had, the new one included."""


class GenerationStore(Protocol):
    """Generations and their logs, shared by all processes. Every method raises StoreError.

    What is about a patient lies sealed under that patient's key; what was destroyed is as if it never was.
    """

    def under_way(self, asked: Asked) -> Generation | None:
        """Return the generation that is under way for the same inputs, or None."""
        ...

    def join(self, generation: Generation, maker: Maker) -> Generation:
        """Keep a new one, or return the one that is under way for the same inputs.

        Of two processes that ask at once one makes it. Raises ShreddedError.
        """
        ...

    def get_generation(self, generation_id: GenerationId) -> Generation | None:
        """Return one, or None."""
        ...

    def generations_about(
        self, server: str, patient: str, access_profile: str, limit: int = 20, before: int | None = None
    ) -> tuple[Sequence[Generation], int | None]:
        """Return a page about a patient of a server as one reader sees it, newest first.

        Beside it, where the next page begins (`before`), or None.
        """
        ...

    def begin(self, generation_id: GenerationId, maker: str) -> bool:
        """Say that it runs now; False where it is not this maker's, or not wanted, any more."""
        ...

    def tell(self, generation_id: GenerationId, maker: str, events: Sequence[Told]) -> bool:
        """Add events to the log; False, and nothing added, where it is not this maker's any more."""
        ...

    def end(self, generation: Generation, maker: str, last: Told, at: datetime) -> bool:
        """Keep how it ended, and its last event; False where it is not this maker's any more."""
        ...

    def told(
        self, generation_id: GenerationId, after: int = 0
    ) -> tuple[Sequence[Told], GenerationState | None]:
        """Return the events that follow a number, and where it stands; None where it is gone."""
        ...

    def beat(self, generation_id: GenerationId) -> None:
        """Say that somebody follows: a number is raised, and no clock is written."""
        ...

    def beats(self, generation_id: GenerationId, maker: str) -> tuple[int, bool] | None:
        """Return how often somebody said so, and whether it is still wanted; None where it is another's."""
        ...

    def stop(self, generation_id: GenerationId) -> None:
        """Say that it is not wanted any more; where it has ended, nothing happens."""
        ...

    def maker_of(self, generation_id: GenerationId) -> Maker | None:
        """Return who makes it; None where it has ended, or is gone."""
        ...

    def take_over(self, generation_id: GenerationId, gone: Maker, maker: Maker) -> Taken | None:
        """Make it the next maker's, whose lock must be held; None where somebody else was first."""
        ...

    def forget_generations(self, before: datetime) -> int:
        """Delete what ended, or was begun and never ended, before then, and return how many."""
        ...

    def hold_slot(self, slot: int) -> Right | None:
        """Return a lock that ends with its process, or None where another has it."""
        ...

    def put_answer(self, key: str, body: str, answer: str, patient: str, at: datetime) -> None:
        """Keep what an idempotency key was answered with, unless something is kept already."""
        ...

    def get_answer(self, key: str, since: datetime) -> tuple[str, str] | None:
        """Return the body and the answer of an idempotency key that is not older, or None."""
        ...


SLOTS = 256
"""Locks of makers: a process leaves a lock file behind for each that was ever held, so their names repeat."""
