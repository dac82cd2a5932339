"""What the wiring gives to whom: credentials to the configured server, a salt of its own to each tenant.

And what it lets nobody keep: a process that serves for days holds no prompt that is answered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.engine.prompt import Message, Prompt, Sampling
from service.engine.scripted import ScriptedEngine
from service.errors import SettingsError
from service.settings import Settings, load_settings
from service.wiring import build_engine, cache_salt_of, fhir_client

HERE, ELSEWHERE = "https://ehr.example/fhir", "https://elsewhere.example/fhir"
SECRET = "s3cret-t0ken"


def settings_of(home: Path, **more: Any) -> Settings:
    return load_settings(home=home, **{"fhir_url": HERE, "fhir_auth": "bearer", "fhir_token": SECRET, **more})


def salt_of(settings: Settings) -> str:
    return cache_salt_of(settings, fhir_client(settings))


@pytest.mark.parametrize(
    "url",
    [
        ELSEWHERE,
        "http://127.0.0.1:1/fhir",
        "https://ehr.example:8443/fhir",
        "https://ehr.example.evil.example/fhir",
    ],
)
def test_credentials_are_for_the_configured_server_alone(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        fhir_client(settings_of(tmp_path), url)
    assert SECRET not in f"{caught.value.message} {caught.value.advice}"
    assert fhir_client(settings_of(tmp_path, fhir_auth="none"), url).base_url == url


@pytest.mark.parametrize("url", [None, HERE, "HTTPS://EHR.example:443/other"])
def test_the_configured_server_is_signed_in_at(tmp_path: Path, url: str | None) -> None:
    assert fhir_client(settings_of(tmp_path), url).session.auth.profile == "system:bearer"
    assert fhir_client(settings_of(tmp_path, fhir_url=""), ELSEWHERE).session.auth.profile == "system:bearer"


def test_two_tenants_share_no_salt_and_one_keeps_its_own(tmp_path: Path) -> None:
    """Tenants are installations, servers, and kinds of access."""
    first = salt_of(settings_of(tmp_path / "a"))
    others = [
        salt_of(settings_of(tmp_path / "a", fhir_auth="none")),
        salt_of(settings_of(tmp_path / "a", fhir_url=ELSEWHERE)),
        salt_of(settings_of(tmp_path / "b")),
    ]
    assert salt_of(settings_of(tmp_path / "a")) == first
    assert len({first, *others}) == 4
    for salt in (first, *others):
        assert len(salt) >= 43  # 256 bits, as vLLM recommends
        assert "ehr.example" not in salt


async def test_the_scripted_engine_of_an_installation_keeps_no_prompt(tmp_path: Path) -> None:
    """A prompt is a chart: a worker would grow by each, and hold what it has no need of."""
    engine = build_engine(settings_of(tmp_path, engine="scripted"), lambda stage, detail: None)
    assert isinstance(engine, ScriptedEngine)
    for number in range(3):
        await engine.generate(Prompt((Message("user", f"chart {number}"),), Sampling(9)))
    assert engine.prompts == []
