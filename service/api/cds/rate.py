"""How often one EHR may call: a bucket that fills steadily, so that no caller keeps the others waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

PER_S: Final = 50.0
"""Charts that a large hospital opens in its busiest second."""
BURST: Final = 200.0


@dataclass
class Rate:
    """Buckets, one a caller. `monotonic` is in seconds."""

    monotonic: Callable[[], float]
    per_s: float = PER_S
    burst: float = BURST
    _left: dict[str, tuple[float, float]] = field(default_factory=dict, init=False)

    def take(self, caller: str) -> bool:
        """Take one call; False where there is none left."""
        now = self.monotonic()
        left, since = self._left.get(caller, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.per_s)
        self._left[caller] = (left - 1 if left >= 1 else left, now)
        return left >= 1
