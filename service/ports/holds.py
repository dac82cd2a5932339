"""Legal holds: patients of whom nothing stored may be destroyed while a matter lasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

LONGEST_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class LegalHold:
    """One hold on one patient. A patient may be under several: each ends by itself."""

    number: int
    """Given by the store; 0 before."""
    patient: str = field(repr=False)
    """`Patient/1`"""
    reason: str = field(repr=False)
    by: str
    """`system:cli`: who laid it."""
    since: datetime
    lifted_by: str = ""
    lifted_because: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Expired:
    """What is older than a site keeps it, in counts. `held` is kept all the same, for a legal hold."""

    runs: int = 0
    """Summaries whose text goes. What says nothing of a person stays, and so does every audit entry."""
    others: int = 0
    """Inputs, questions, feedback, reviews, decisions and whatever else quotes a chart."""
    held: int = 0
    """Summaries that stay because their patient is under a hold."""


class HoldStore(Protocol):
    """Where holds are kept. Every method raises StoreError."""

    def add(self, hold: LegalHold) -> LegalHold:
        """Hold from now on, and return it with its number. Raises ShreddedError: nothing is left to hold."""
        ...

    def lift(self, patient: str, by: str, reason: str, number: int = 0) -> Sequence[LegalHold]:
        """End a patient's only hold, or the one of this number, and return what ended: none or one.

        Raises StoreError where there are several and none was named.
        """
        ...

    def holds(self, patient: str = "") -> Sequence[LegalHold]:
        """Return the holds that last, of one patient or of all, oldest first."""
        ...
