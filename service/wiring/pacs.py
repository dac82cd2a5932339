"""The image archives of this installation, and as whom we ask the configured one."""

from __future__ import annotations

from connectors.auth import Auth, BasicAuth, BearerAuth, NoAuth, SmartBackendAuth
from connectors.dicomweb.archives import Archives
from connectors.keys import SigningKey
from connectors.limits import Limits
from connectors.origin import check_base_url
from service.errors import SettingsError
from service.settings import FhirAuth, Settings


def open_archives(settings: Settings) -> Archives | None:
    """Return the archives that may be asked; None where no archive is set. Raises SettingsError, BadUrl."""
    url = settings.pacs_url
    if not url and not settings.pacs_allowed_origins:
        return None
    limits = Limits(
        read_s=settings.pacs_timeout_s,
        total_s=4 * settings.pacs_timeout_s,
        retries=2,
        concurrency=settings.pacs_concurrency,
        allow_plain_http=settings.pacs_allow_http,
    )
    checked = check_base_url(url, allow_plain_http=settings.pacs_allow_http) if url else ""
    return Archives(
        checked, auth=_auth(settings), allowed_origins=settings.pacs_allowed_origins, limits=limits
    )


def _auth(settings: Settings) -> Auth:
    match settings.pacs_auth:
        case FhirAuth.NONE:
            return NoAuth()
        case FhirAuth.BASIC:
            return BasicAuth(
                _need(settings.pacs_user, "EPICRISIS_PACS_USER"), settings.pacs_password.get_secret_value()
            )
        case FhirAuth.BEARER:
            return BearerAuth(_need(settings.pacs_token.get_secret_value(), "EPICRISIS_PACS_TOKEN"))
        case FhirAuth.BACKEND:
            if settings.fhir_private_key is None:
                raise SettingsError("SMART Backend Services need a key.", "Set EPICRISIS_FHIR_PRIVATE_KEY.")
            return SmartBackendAuth(
                _need(settings.pacs_url, "EPICRISIS_PACS_URL"),
                _need(settings.fhir_client_id, "EPICRISIS_FHIR_CLIENT_ID"),
                SigningKey.from_file(settings.fhir_private_key),
                settings.pacs_scope,
                token_url=_need(settings.pacs_token_url, "EPICRISIS_PACS_TOKEN_URL"),
                allow_plain_http=settings.pacs_allow_http,
            )


def _need(value: str, name: str) -> str:
    if not value:
        raise SettingsError(f"{name} is not set.", "The chosen EPICRISIS_PACS_AUTH needs it.")
    return value
