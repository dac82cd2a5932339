"""What is kept of calls by CDS Hooks: which tokens were used, which cards were shown, what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ShownCard:
    """One card, which stands for one stored run at one EHR: shown again, it is the same card."""

    id: str
    """The `uuid` that the EHR knows it by; random to whoever has no key of this store."""
    ehr: str
    """The EHR's name in the configuration."""
    server: str
    """Base URL of the FHIR server that `patient` is of."""
    patient: str = field(repr=False)
    """`Patient/1`"""
    run_id: str


@dataclass(frozen=True, slots=True)
class CardFeedback:
    """What a person did with a card, as an EHR tells it."""

    card: str
    outcome: str
    """`accepted` or `overridden`."""
    acted_at: datetime
    reason: str = ""
    """The code of one of our own reasons, `other` for one that is not, empty where none was given."""
    words: str = field(default="", repr=False)
    """The EHR's own reason, and what the person wrote; patient data."""


class HookStore(Protocol):
    """Used tokens, shown cards and feedback. Every method raises StoreError."""

    def use(self, token: str, now: datetime, until: datetime) -> bool:
        """Note that a token (issuer and `jti`) is used; False where it was before, by any process.

        It is forgotten after `until`, when it has expired.
        """
        ...

    def card_of(self, ehr: str, run_id: str) -> str:
        """Return the id of a run's card at an EHR: always the same one."""
        ...

    def keep_card(self, card: ShownCard) -> None:
        """Keep a card, once. Raises ShreddedError where the patient's data key was destroyed."""
        ...

    def find_card(self, card_id: str) -> ShownCard | None:
        """Return a card that was shown, or None; that of a shredded patient is none."""
        ...

    def keep_feedback(self, card: ShownCard, said: Sequence[CardFeedback], now: datetime) -> int:
        """Keep what became of a card, each act once however often it is told; return how many are new."""
        ...

    def outcomes(self) -> Mapping[str, int]:
        """Count the acts of persons by outcome and reason: `overridden:outdated` → 3."""
        ...
