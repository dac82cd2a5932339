"""Which image archives an installation asks, and as whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from connectors.auth import BasicAuth, BearerAuth, NoAuth, SmartBackendAuth
from connectors.errors import BadUrl, ForeignLink, PlainHttp
from service.errors import SettingsError
from service.settings import Settings, load_settings
from service.wiring.pacs import open_archives

PACS, OTHER = "https://pacs.example/dicom-web", "https://vna.example"


def settings(tmp_path: Path, **more: Any) -> Settings:
    return load_settings(home=tmp_path, **{"pacs_url": PACS, **more})


def test_without_an_archive_none_is_asked(tmp_path: Path) -> None:
    assert open_archives(settings(tmp_path, pacs_url="")) is None


async def test_allowed_archives_may_be_asked_without_a_configured_one(tmp_path: Path) -> None:
    archives = open_archives(settings(tmp_path, pacs_url="", pacs_allowed_origins=(OTHER,)))
    assert archives is not None
    assert archives.pacs_url == ""
    assert archives.at(f"{OTHER}/rs").base_url == f"{OTHER}/rs"
    with pytest.raises(ForeignLink):
        archives.at(PACS)
    await archives.aclose()


@pytest.mark.parametrize(
    ("auth", "more", "kind"),
    [
        ("none", {}, NoAuth),
        ("basic", {"pacs_user": "u", "pacs_password": "p"}, BasicAuth),
        ("bearer", {"pacs_token": "t"}, BearerAuth),
    ],
)
async def test_who_we_are_is_shown_to_the_configured_archive_alone(
    tmp_path: Path, auth: str, more: dict[str, Any], kind: type
) -> None:
    archives = open_archives(settings(tmp_path, pacs_auth=auth, pacs_allowed_origins=(OTHER,), **more))
    assert archives is not None
    assert type(archives.at(PACS).session.auth) is kind
    assert type(archives.at(f"{OTHER}/rs").session.auth) is NoAuth
    await archives.aclose()


async def test_a_backend_service_asks_its_token_endpoint_and_no_other(tmp_path: Path) -> None:
    key = tmp_path / "key.jwk"
    key.write_text(json.dumps(RSAKey.generate_key(2048, {"kid": "1", "alg": "RS384"}).as_dict(private=True)))
    archives = open_archives(
        settings(
            tmp_path, pacs_auth="backend", fhir_client_id="epicrisis", fhir_private_key=key,
            pacs_token_url="https://auth.example/token",
        )
    )  # fmt: skip
    assert archives is not None
    auth = archives.at(PACS).session.auth
    assert isinstance(auth, SmartBackendAuth)
    assert auth.origins == {"https://auth.example:443"}
    assert auth.scope == "system/ImagingStudy.rs"
    await archives.aclose()


@pytest.mark.parametrize("auth", ["basic", "bearer", "backend"])
def test_what_an_auth_lacks_is_named(tmp_path: Path, auth: str) -> None:
    with pytest.raises(SettingsError):
        open_archives(settings(tmp_path, pacs_auth=auth))


def test_an_address_that_is_none_or_travels_unencrypted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadUrl):
        open_archives(settings(tmp_path, pacs_url="pacs"))
    with pytest.raises(PlainHttp):
        open_archives(settings(tmp_path, pacs_url="http://pacs.example/rs"))
    assert open_archives(settings(tmp_path, pacs_url="http://pacs.example/rs", pacs_allow_http=True))
