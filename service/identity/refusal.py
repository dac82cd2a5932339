"""Why somebody was not let in, in one word that is safe to log: never a token, a name or a claim's value."""

from __future__ import annotations

from enum import StrEnum

from service.errors import EpicrisisError


class Reason(StrEnum):
    """What was wrong with what was shown. It is the outcome of an audit entry."""

    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    """Not one of the algorithms that are allowed: `none` and `HS256` among them."""
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    PARTY = "party"
    """Issued for another client (`azp`)."""
    TENANT = "tenant"
    EXPIRED = "expired"
    NOT_YET = "not_yet"
    NONCE = "nonce"
    KIND = "kind"
    """An ID token where an access token is wanted, or a token of no kind that is known."""
    SUBJECT = "subject"
    ROLE = "role"
    """Known, and without a role that may do this."""
    PATIENT = "patient"
    """A patient or a relative: these pages are not for them."""
    NO_PATIENT = "no_patient"
    """A launch without a patient: there is no chart to show."""
    OTHER_PATIENT = "other_patient"
    """A launch's tokens that came to be for another patient than it was opened for."""
    BROWSER = "browser"
    """A launch that another browser began."""
    STATE = "state"
    """An answer that no sign-in of this browser asked for, or that came too late."""
    DECLINED = "declined"
    """The provider sent the browser back without a code."""
    CODE = "code"
    """The provider gave no token for the code."""
    ONE_TIME = "one_time"
    """A one-time token that is wrong, or was used."""
    ELSEWHERE = "elsewhere"
    """A form that was not sent from a page of ours."""
    KEY_OFFERED = "key_offered"
    """A token whose header brings its own key, or names keys elsewhere than where they are configured."""
    REPLAYED = "replayed"
    """A token that was used before."""
    NO_ID = "no_id"
    """A token that cannot be told from another one (`jti`), so that a second use would not show."""


class Refused(EpicrisisError):
    """Somebody was not let in. `reason` is all that is told, and it holds nothing that was sent."""

    code = "refused"
    exit_code = 5

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"This sign-in was refused ({reason}).", "Sign in again.")
        self.reason = reason
