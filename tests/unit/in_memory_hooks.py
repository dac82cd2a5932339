"""A HookStore that keeps everything in dicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import NAMESPACE_OID, uuid5

from service.errors import ShreddedError, StoreError
from service.ports.hooks import CardFeedback, ShownCard


class InMemoryHooks:
    """Used tokens, cards and feedback; `broken` makes every call fail; `shredded` patients are refused."""

    def __init__(self) -> None:
        self.used: dict[str, datetime] = {}
        self.cards: dict[str, ShownCard] = {}
        self.said: dict[tuple[str, str, datetime], CardFeedback] = {}
        self.shredded: set[str] = set()
        self.broken = False

    def _check(self, patient: str = "") -> None:
        if self.broken:
            raise StoreError("The database cannot be used.")
        if patient in self.shredded:
            raise ShreddedError

    def use(self, token: str, now: datetime, until: datetime) -> bool:
        self._check()
        self.used = {one: end for one, end in self.used.items() if end >= now}
        if token in self.used:
            return False
        self.used[token] = until
        return True

    def card_of(self, ehr: str, run_id: str) -> str:
        return str(uuid5(NAMESPACE_OID, f"{ehr} {run_id}"))

    def keep_card(self, card: ShownCard) -> None:
        self._check(card.patient)
        self.cards.setdefault(card.id, card)

    def find_card(self, card_id: str) -> ShownCard | None:
        self._check()
        card = self.cards.get(card_id)
        return None if card is None or card.patient in self.shredded else card

    def keep_feedback(self, card: ShownCard, said: Sequence[CardFeedback], now: datetime) -> int:
        self._check(card.patient)
        before = len(self.said)
        for one in said:
            self.said.setdefault((card.id, one.outcome, one.acted_at), one)
        return len(self.said) - before

    def outcomes(self) -> Mapping[str, int]:
        self._check()
        return Counter(
            f"{one.outcome}:{one.reason}" if one.reason else one.outcome for one in self.said.values()
        )
