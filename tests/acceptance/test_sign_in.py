"""Serving the pages: what is refused before a port is opened, and a whole visit over TLS."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
import trustme

from tests.acceptance.conftest import Run
from tests.conftest import CANARY, ROOT

PROVIDER = {
    "EPICRISIS_OIDC_ISSUER": "https://login.hospital.example",
    "EPICRISIS_OIDC_CLIENT_ID": "epicrisis",
    "EPICRISIS_OIDC_CLIENT_SECRET": CANARY,
    "EPICRISIS_OIDC_ROLES": '{"ward-doctors": "clinician"}',
}


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """Settings that name a certificate of 127.0.0.1 and its key."""
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    return {"EPICRISIS_TLS_CERT": str(chain), "EPICRISIS_TLS_KEY": str(key)}


def refused(epicrisis: Run, settings: Mapping[str, str], host: str = "0.0.0.0") -> str:
    ended = epicrisis("serve", "--host", host, "--port", "0", **settings)
    assert ended.code == 3, ended.stderr
    assert CANARY not in ended.stdout + ended.stderr
    return " ".join(ended.stderr.split())


def test_other_machines_are_served_over_tls_alone(epicrisis: Run) -> None:
    assert "without TLS (EPICRISIS_TLS_CERT, EPICRISIS_TLS_KEY)" in refused(epicrisis, PROVIDER)


def test_other_machines_are_served_with_a_provider_alone(epicrisis: Run, tls: dict[str, str]) -> None:
    said = refused(epicrisis, tls)
    assert "without an identity provider" in said
    assert "login?token" not in said


@pytest.mark.parametrize("lacking", ["EPICRISIS_OIDC_CLIENT_ID", "EPICRISIS_OIDC_ROLES"])
def test_half_a_provider_is_none(epicrisis: Run, lacking: str) -> None:
    half = {name: value for name, value in PROVIDER.items() if name != lacking}
    assert lacking in refused(epicrisis, half, "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EPICRISIS_OIDC_ROLES", '{"ward-doctors": "superuser"}'),
        ("EPICRISIS_OIDC_ISSUER", "http://login.hospital.example"),
    ],
)
def test_a_provider_that_cannot_be_used_is_named(epicrisis: Run, name: str, value: str) -> None:
    assert name in refused(epicrisis, {**PROVIDER, name: value}, "127.0.0.1")


def test_a_certificate_without_its_key_is_refused(epicrisis: Run, tls: dict[str, str]) -> None:
    alone = {"EPICRISIS_TLS_CERT": tls["EPICRISIS_TLS_CERT"]}
    assert "cannot be used" in refused(epicrisis, alone, "127.0.0.1")


def test_a_key_of_another_certificate_is_refused(
    epicrisis: Run, authority: trustme.CA, tls: dict[str, str]
) -> None:
    other = authority.issue_cert("127.0.0.1").private_key_pem.bytes()
    Path(tls["EPICRISIS_TLS_KEY"]).write_bytes(other)
    assert "cannot be used" in refused(epicrisis, tls, "127.0.0.1")


@pytest.fixture
def served(tls: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The address with the token, of pages that are served over TLS."""
    environment = {"PATH": os.environ["PATH"], "EPICRISIS_HOME": str(tmp_path / "home"), **tls}  # noqa: TID251
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "serve", "--port", "0"],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    found = re.search(r"https://\S+", process.stderr.readline())
    yield found[0] if found else ""
    process.terminate()
    process.communicate(timeout=20)


def test_over_tls_the_cookie_is_for_this_host_alone_and_the_browser_stays_with_tls(
    served: str, authority: trustme.CA
) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with httpx.Client(verify=trusting, trust_env=False) as client:
        answer = client.get(served)
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-epicrisis=")
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
        assert "domain" not in cookie.lower()
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers["referrer-policy"] == "no-referrer"
        home = served.partition("login")[0]
        assert client.get(home).status_code == 200
        assert client.get(served).status_code == 401
