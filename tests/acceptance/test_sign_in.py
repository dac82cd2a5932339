"""Serving the pages: what is refused before a port is opened, and a whole visit over TLS."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import time
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


def start(home: Path, settings: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "EPICRISIS_HOME": str(home), **settings}  # noqa: TID251
    return subprocess.Popen(
        [sys.executable, "-m", "service.cli", "serve", "--port", "0", *arguments],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def served(tls: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The address with the token, of pages that are served over TLS."""
    process = start(tmp_path / "home", tls)
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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"EPICRISIS_ENGINE": "scripted"}, "Without an identity provider"),
        ({**PROVIDER, "EPICRISIS_ENGINE": "vllm"}, "an engine of their own"),
    ],
)
def test_several_processes_are_refused_what_there_must_be_one_of(
    epicrisis: Run, settings: Mapping[str, str], said: str
) -> None:
    ended = epicrisis("serve", "--port", "0", "--processes", "2", **settings)
    assert ended.code == 3
    assert said in " ".join(ended.stderr.split())


TOGETHER = {**PROVIDER, "EPICRISIS_ENGINE": "scripted"}


def test_several_processes_answer_at_one_address_one_that_dies_is_replaced_and_none_is_left(
    tmp_path: Path,
) -> None:
    with start(tmp_path, TOGETHER, "--processes", "2") as process:
        try:
            assert process.stderr is not None
            found = re.search(r"http://\S+", process.stderr.readline())
            assert found is not None
            assert "token" not in found[0]
            first = answering(process.pid)
            assert len(first) == 2
            assert {httpx.get(f"{found[0]}healthz", trust_env=False).status_code for _ in range(9)} == {200}
            os.kill(first[0], signal.SIGKILL)
            while len(now := answering(process.pid)) < 2 or first[0] in now:
                assert process.poll() is None
                time.sleep(0.1)
            assert httpx.get(f"{found[0]}healthz", trust_env=False).status_code == 200
        finally:
            process.kill()
        assert process.communicate(timeout=60)[1] == ""  # whoever lived on would hold standard error open


def test_a_database_that_cannot_be_opened_ends_all_of_several_processes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database")
    wrong = {**TOGETHER, "EPICRISIS_DATABASE_URL": f"sqlite:///{tmp_path}/file"}
    with start(tmp_path / "home", wrong, "--processes", "2") as process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 3
    assert "could not be opened" in said
    assert "Traceback" not in said


def answering(parent: int) -> list[int]:
    """Return the processes that answer for another one."""
    found = []
    for one in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes():
            found.append(int(one))
    return found
