"""The public keys that our documents are signed with, where a verifier looks for them (RFC 7517)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

PATH = "/.well-known/jwks.json"
Jwks = Mapping[str, Any]
"""Public keys as JSON: `{"keys": [...]}`."""


def add_keys(app: FastAPI, jwks: Jwks | None) -> None:
    """Serve public keys to whoever asks; without any an empty list. No secret, no patient data."""

    def keys() -> Response:
        return JSONResponse(dict(jwks or {"keys": []}), media_type="application/jwk-set+json")

    app.add_api_route(PATH, keys, methods=["GET", "HEAD"], response_model=None)
