"""`epicrisis verify --jwks URL`: the keys of whoever is believed come from there, and from nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.commands.verify import MAX_KEYS_BYTES, _keys
from service.errors import SettingsError
from service.settings import load_settings
from tests.integration.connectors.fault_server import FaultServer, Raw, Reply

KEYS = {"keys": [{"kty": "OKP", "kid": "a"}]}


async def test_keys_are_fetched_as_they_are(server: FaultServer, tmp_path: Path) -> None:
    server.on("GET", "/jwks.json", Reply(json=KEYS))
    assert await _keys(load_settings(home=tmp_path), f"{server.root_url}/jwks.json?v=1") == KEYS
    assert server.requests[0].query == (("v", "1"),)
    assert "authorization" not in server.requests[0].headers


async def test_neither_a_proxy_nor_a_password_of_our_surroundings_is_used(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("GET", "/jwks.json", Reply(json=KEYS))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login us password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert await _keys(load_settings(home=tmp_path), f"{server.root_url}/jwks.json") == KEYS
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    "answer",
    [
        Reply(302, headers={"Location": "http://169.254.169.254/latest/meta-data"}),
        Reply(body=b" " * (MAX_KEYS_BYTES + 1)),
        Reply(404),
        Raw(b"SSH-2.0\r\n"),
    ],
)
async def test_what_is_not_there_too_large_or_elsewhere_is_refused(
    server: FaultServer, tmp_path: Path, answer: Reply | Raw
) -> None:
    server.on("GET", "/jwks.json", answer)
    with pytest.raises(SettingsError, match="cannot be fetched"):
        await _keys(load_settings(home=tmp_path), f"{server.root_url}/jwks.json")


@pytest.mark.parametrize(
    "url", ["http://keys.example/jwks.json", "https://us:pw@keys.example/jwks.json", "HTTP://keys.example/"]
)
async def test_an_address_that_nobody_vouches_for_is_not_asked(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="cannot be fetched"):
        await _keys(load_settings(home=tmp_path), url)
