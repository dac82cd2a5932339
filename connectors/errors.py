"""What can go wrong between us and another system, each with a code, an exit code and a safe message.

    ConnectorError
    ├── UnreachableError      4   no usable answer came
    │   ├── BadUrl                the base URL is not one
    │   ├── PlainHttp             unencrypted http to another machine
    │   ├── NoFhirHere            something answers there, but nothing at this path
    │   ├── NoSuchHost            the name does not resolve (DNS)
    │   ├── NothingListens        the connection was refused
    │   ├── UntrustedTls          the certificate is not trusted, or TLS failed
    │   ├── TimedOut              no answer in time
    │   ├── CutOff                the connection broke in mid-answer
    │   ├── ServerFailed          5xx
    │   └── Throttled             429, also after waiting
    ├── RefusedError          5   we may not
    │   ├── Unauthorized          401
    │   ├── Forbidden             403
    │   ├── TokenRefused          the token endpoint gave no token
    │   └── KeyUnusable           the signing key cannot be used
    ├── NotFoundError         6   no such resource
    │   ├── UnknownPatient        404 for the patient asked for
    │   ├── Gone                  410
    │   ├── InvalidId             not a legal FHIR id or reference
    │   └── PatientMoved          the server answered with another patient
    ├── NotUnderstoodError    7   the answer is not what FHIR R4 promises
    │   ├── NotFhir               HTML, or JSON that is no FHIR resource
    │   ├── NotDicom              a PACS answers with what is no DICOM, or with another instance
    │   ├── BrokenJson            truncated, malformed or too deeply nested
    │   ├── PagingLoop            pages repeat, or do not end
    │   ├── ForeignLink           a link or redirect leaves the server's origin
    │   ├── TooLarge              more bytes than the limit, before or after decompression
    │   ├── RequestRejected       400, 422 and other 4xx
    │   ├── WrongRelease          the server does not speak FHIR R4
    │   ├── CensusUnreadable      a census file that is no such table
    │   └── SiteListUnreadable    a list of opt-outs that cannot be read whole
    └── ConflictError        11   409
        └── PreconditionFailed    412

Messages name an origin (`scheme://host:port`), a status and codes of the specification's own value sets.
They never hold a path, a query, a patient id, or text out of a resource or an OperationOutcome.
"""

from __future__ import annotations

from collections.abc import Mapping


class ConnectorError(Exception):
    """One failed exchange. `message` says what happened, `advice` what to do; both are safe to show."""

    code = "connector"
    exit_code = 4
    repeatable = False
    """True where the same idempotent request may succeed a moment later."""
    advice_text = ""

    def __init__(self, message: str, advice: str = "", *, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice or self.advice_text
        self.status = status
        self.retry_after_s: float | None = None


class UnreachableError(ConnectorError):
    """No usable answer came."""

    code = "unreachable"
    exit_code = 4


class BadUrl(UnreachableError):
    """The base URL is not one."""

    code = "bad_url"
    advice_text = "Give the FHIR base URL, for example https://ehr.example.org/fhir."


class PlainHttp(UnreachableError):
    """Unencrypted http to another machine was asked for."""

    code = "plain_http"
    advice_text = "Use https, or allow plain http for this server if the network itself is trusted."


class NoFhirHere(UnreachableError):
    """Something answers at this address, but there is nothing FHIR at this path."""

    code = "no_fhir_here"
    advice_text = "Check the path of the base URL: BASE/metadata should answer with a CapabilityStatement."


class NoSuchHost(UnreachableError):
    """The host's name does not resolve."""

    code = "dns"
    advice_text = "Check the spelling of the host name, and the machine's DNS."


class NothingListens(UnreachableError):
    """The host refused the connection."""

    code = "connection_refused"
    repeatable = True
    advice_text = "Check that the server runs, and that the port is right."


class UntrustedTls(UnreachableError):
    """The certificate is not trusted, or the TLS handshake failed."""

    code = "tls"
    advice_text = "Check the server's certificate, or give the hospital's certificate authority as a CA file."


class TimedOut(UnreachableError):
    """No answer came in time."""

    code = "timeout"
    advice_text = "Try again later, or raise the time limits for this server."


class CutOff(UnreachableError):
    """The connection broke before the answer was complete."""

    code = "cut_off"
    repeatable = True
    advice_text = "Try again; if it happens again, look at the proxies between here and the server."


class ServerFailed(UnreachableError):
    """The server answered 5xx."""

    code = "server_failed"
    repeatable = True
    advice_text = "Try again later; the server's own log says more."


class Throttled(UnreachableError):
    """The server answered 429, also after waiting."""

    code = "throttled"
    repeatable = True
    advice_text = "Lower the number of concurrent requests, or ask for a higher quota."


class RefusedError(ConnectorError):
    """We are not allowed to do this."""

    code = "refused"
    exit_code = 5


class Unauthorized(RefusedError):
    """The server answered 401: it does not know who asks."""

    code = "unauthorized"
    advice_text = "Check the credentials for this server."


class Forbidden(RefusedError):
    """The server answered 403: it knows who asks, and refuses."""

    code = "forbidden"
    advice_text = "Ask for the missing scope or role; reading needs system/*.rs."


class TokenRefused(RefusedError):
    """The token endpoint gave no access token."""

    code = "token_refused"
    advice_text = "Check the client id, the registered public key and the scopes at the authorization server."


class KeyUnusable(RefusedError):
    """The signing key cannot be read, or is not fit for RS384 or ES384."""

    code = "key_unusable"
    advice_text = "Give a file with a private JWK or JWKS: RSA of at least 2048 bits, or EC P-384."


class NotFoundError(ConnectorError):
    """The server has no such resource."""

    code = "not_found"
    exit_code = 6
    advice_text = "Check the id, and that this account may see the record."


class UnknownPatient(NotFoundError):
    """The server has no such patient."""

    code = "unknown_patient"
    advice_text = "Check the patient's id, and that this account may see the record."


class Gone(NotFoundError):
    """The resource was deleted."""

    code = "gone"
    advice_text = "The record was deleted on the server."


class InvalidId(NotFoundError):
    """What was given is not a legal FHIR id or reference, so it was not sent."""

    code = "invalid_id"
    advice_text = "A FHIR id has 1 to 64 letters, digits, dots or hyphens, for example Patient/123."


class PatientMoved(NotFoundError):
    """The server answered with another patient than the one asked for."""

    code = "patient_moved"
    advice_text = "The record may have been merged: open it in the EHR and use its current id."


class NotUnderstoodError(ConnectorError):
    """The answer is not what FHIR R4 promises."""

    code = "not_understood"
    exit_code = 7


class NotFhir(NotUnderstoodError):
    """The answer is HTML, or JSON that is no FHIR resource."""

    code = "not_fhir"
    advice_text = "Check that the URL is the FHIR base, and that no login page or proxy stands before it."


class NotDicom(NotUnderstoodError):
    """A PACS answered with what is no DICOM, or with another instance than was asked for."""

    code = "not_dicom"
    advice_text = (
        "Check that the URL is the DICOMweb base of the PACS, and that no login page stands before it."
    )


class BrokenJson(NotUnderstoodError):
    """The answer is truncated, malformed or too deeply nested."""

    code = "broken_json"
    advice_text = "Try again; if it happens again, the server or a proxy damages its answers."


class PagingLoop(NotUnderstoodError):
    """The pages of a search repeat themselves, or do not end."""

    code = "paging_loop"
    advice_text = "Report it to the server's maintainer: a search must end."


class ForeignLink(NotUnderstoodError):
    """A link or redirect leaves the server's origin, so it was not followed."""

    code = "foreign_link"
    advice_text = "Behind a proxy, the server must be told its public base URL."


class TooLarge(NotUnderstoodError):
    """More bytes than the limit, before or after decompression."""

    code = "too_large"
    advice_text = "Raise the size limit if an answer of this size is meant."


class RequestRejected(NotUnderstoodError):
    """The server understood nothing it could do: 400, 422 and other 4xx."""

    code = "rejected"
    advice_text = "The server's own log says what it did not accept."


class WrongRelease(NotUnderstoodError):
    """The server does not speak FHIR R4."""

    code = "wrong_release"
    advice_text = "Use the server's R4 endpoint."


class ConflictError(ConnectorError):
    """The write met another one (409)."""

    code = "conflict"
    exit_code = 11
    advice_text = "Read the resource again and repeat the write."


class PreconditionFailed(ConflictError):
    """If-Match or If-None-Exist did not hold (412)."""

    code = "precondition_failed"


_BY_STATUS: Mapping[int, tuple[type[ConnectorError], str]] = {
    401: (Unauthorized, "does not accept these credentials"),
    403: (Forbidden, "refuses this request"),
    404: (NotFoundError, "has no such resource"),
    408: (TimedOut, "waited too long for the request"),
    410: (Gone, "says that the resource was deleted"),
    409: (ConflictError, "reports a conflicting change"),
    412: (PreconditionFailed, "says that a precondition of the write does not hold"),
    429: (Throttled, "asks us to send fewer requests"),
}
_PASSING = frozenset({500, 502, 503, 504})
"""5xx that may pass. 500 is among them since large vendors answer it under load."""


def error_of_status(status: int, origin: str, issue_codes: tuple[str, ...] = ()) -> ConnectorError:
    """Return the error for an HTTP status; `issue_codes` are those of an OperationOutcome (R4 value set)."""
    kind, what = _BY_STATUS.get(status, (RequestRejected, "did not accept the request"))
    if status >= 500:
        kind, what = ServerFailed, "failed"
    codes = f": {', '.join(issue_codes)}" if issue_codes else ""
    error = kind(f"The server {origin} {what} (HTTP {status}{codes}).", status=status)
    if status >= 500:
        error.repeatable = status in _PASSING
    return error
