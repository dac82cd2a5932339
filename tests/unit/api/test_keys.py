"""The public keys are where a verifier looks for them, and only they are."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.keys import add_keys
from service.signing import Signer, check_signature


def test_a_signature_is_checked_with_what_is_served(tmp_path: Path) -> None:
    signer = Signer.from_file(tmp_path / "signing.key")
    app = FastAPI()
    add_keys(app, signer.jwks())
    answer = TestClient(app).get("/.well-known/jwks.json")
    assert answer.headers["content-type"] == "application/jwk-set+json"
    assert check_signature(signer.sign(b"x"), b"x", answer.json()) == ""
    assert '"d"' not in answer.text


def test_an_installation_that_does_not_sign_serves_no_keys() -> None:
    app = FastAPI()
    add_keys(app, None)
    assert TestClient(app).get("/.well-known/jwks.json").json() == {"keys": []}
