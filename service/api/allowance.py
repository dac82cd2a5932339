"""How often one visitor may ask: a bucket each that fills steadily."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

MOST_VISITORS: Final = 10_000


@dataclass
class Allowance:
    """Buckets, one a visitor. `monotonic` is in seconds."""

    monotonic: Callable[[], float]
    per_s: float
    burst: int
    _left: dict[str, tuple[float, float]] = field(default_factory=dict, init=False)

    def take(self, visitor: str) -> float:
        """Take one and return 0; where there is none left, return in how many seconds there is."""
        now = self.monotonic()
        left, since = self._left.get(visitor, (float(self.burst), now))
        left = min(float(self.burst), left + (now - since) * self.per_s)
        if left < 1:
            self._left[visitor] = left, now
            return (1 - left) / self.per_s
        self._left[visitor] = left - 1, now
        if len(self._left) > MOST_VISITORS:
            self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Forget those whose buckets are full again: they are as if they had never asked."""
        self._left = {
            visitor: (left, since)
            for visitor, (left, since) in self._left.items()
            if left + (now - since) * self.per_s < self.burst
        }
