"""The one-time token by which the first browser of an installation without a provider comes in."""

from __future__ import annotations

import hmac
import secrets
import threading

from service.identity.refusal import Reason, Refused


class OneTimeToken:
    """A token that is good once, and is replaced as it is used. It lies in memory alone."""

    def __init__(self) -> None:
        self._token = secrets.token_urlsafe(32)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return "OneTimeToken()"

    @property
    def value(self) -> str:
        """The token that is good now."""
        return self._token

    def use(self, shown: str) -> None:
        """Take a token in. Raises Refused for any but the one that is good now; of two at once, one wins."""
        with self._lock:
            if not hmac.compare_digest(shown.encode(), self._token.encode()):
                raise Refused(Reason.ONE_TIME)
            self._token = secrets.token_urlsafe(32)
