"""A real OpenID provider beside the real application."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from joserfc.jwk import RSAKey

from fixtures.servers import free_port
from tests.conftest import ROOT, missing

AUDIENCE = "https://epicrisis.example"
TENANT = "st-elsewhere"
SECRET = "of-the-client"
PACKAGES = ROOT / "tests" / "node" / "node_modules"
ACCOUNTS = {
    "roe": {"roles": ["is-clinician"], "fhirUser": "Practitioner/roe"},
    "doe": {"roles": ["choir"]},
    "own": {"roles": ["is-clinician"], "fhirUser": "Patient/1"},
}


@dataclass
class OidcServer:
    """One provider. `rotate` starts it again with a new key, and none of the old."""

    folder: Path
    port: int
    redirect_uri: str
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = None

    @property
    def issuer(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self, kid: str = "first") -> None:
        key = {**RSAKey.generate_key(2048).as_dict(private=True), "kid": kid, "use": "sig", "alg": "RS256"}
        given = {
            "issuer": self.issuer, "port": self.port, "secret": SECRET, "audience": AUDIENCE,
            "tenant": TENANT, "redirect_uris": [self.redirect_uri], "accounts": ACCOUNTS,
            "jwks": {"keys": [key]},
        }  # fmt: skip
        (self.folder / "given.json").write_text(json.dumps(given))
        self.process = subprocess.Popen(
            ["node", "provider.mjs", "given.json"],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"]},  # noqa: TID251
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def rotate(self, kid: str) -> None:
        self.stop()
        self.start(kid)

    def service_token(self, **more: str) -> str:
        answer = httpx.post(
            f"{self.issuer}/token",
            auth=("night-job", SECRET),
            data={"grant_type": "client_credentials", "scope": "roles", **more},
            trust_env=False,
        )
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def _wait(self) -> None:
        for _ in range(200):
            assert self.process is not None
            assert self.process.poll() is None, "the OpenID provider stopped"
            try:
                httpx.get(f"{self.issuer}/.well-known/openid-configuration", trust_env=False)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError("the OpenID provider did not start")


@contextmanager
def oidc_server(folder: Path, redirect_uri: str, host: str = "127.0.0.1") -> Iterator[OidcServer]:
    """Yield a running provider."""
    if shutil.which("node") is None or not (PACKAGES / "oidc-provider").is_dir():
        missing("Node.js and oidc-provider from npm")
    (folder / "node_modules").symlink_to(PACKAGES)
    shutil.copy(Path(__file__).parent / "provider.mjs", folder)
    server = OidcServer(folder, free_port(), redirect_uri, host)
    server.start()
    try:
        yield server
    finally:
        server.stop()
