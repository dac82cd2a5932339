"""Run by the Python of HealthChain's own environment: its CDS Hooks client calls one service of ours.

It cannot sign: the HTTP client that it makes is given the signatures. Its own model of a link wants a field
that no specification knows (`autoLaunchable`): a card is held against that model with the field put in. And
it writes of a context what all hooks have in common alone: that it writes all of it is asked for here.
"""

from __future__ import annotations

import functools
import json
import sys
import time
import uuid
from collections.abc import Generator

import httpx
import jwt
from healthchain.models import CDSResponse
from healthchain.sandbox import sandboxclient

given = json.loads(sys.stdin.read())
KEY = jwt.PyJWK(given["key"])


class Signed(httpx.Auth):
    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        now = int(time.time())
        claims = {
            "iss": given["iss"], "aud": given["url"], "iat": now, "exp": now + 60, "jti": str(uuid.uuid4()),
        }  # fmt: skip
        header = {"kid": given["key"]["kid"], "jku": given["jku"]}
        token = jwt.encode(claims, KEY.key, algorithm="ES384", headers=header)
        request.headers["Authorization"] = f"Bearer {token}"
        yield request


if given["signs"]:
    sandboxclient.httpx.Client = functools.partial(httpx.Client, auth=Signed())
client = sandboxclient.SandboxClient(url=given["url"], workflow=given["workflow"])
client.load_from_path(given["prefetch"])
for request in client.requests:
    for name, value in given["context"].items():
        setattr(request.context, name, value)
    whole = functools.partial(request.model_dump, serialize_as_any=True)
    object.__setattr__(request, "model_dump", whole)
answers = client.send_requests()
for answer in answers:
    for card in answer.get("cards", []):
        links = [{**link, "autoLaunchable": False} for link in card["links"]]
        CDSResponse(cards=[{**card, "links": links}])
print(json.dumps(answers))
