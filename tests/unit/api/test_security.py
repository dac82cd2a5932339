from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Scope

import service.api
from fixtures.sample_run import sample_run
from service.api.render import keep_together, make_environment
from service.api.security import check_bind, host_name
from service.errors import SettingsError
from tests.conftest import CANARY
from tests.unit.api.markup import Markup
from tests.unit.api.serving import serve

HOME = Path(service.api.__file__).parent
RUN = sample_run()
PATH = f"/runs/{RUN.run_id}"
EVERY = ("/", PATH, f"{PATH}/sources/2", f"{PATH}.json", "/healthz", "/nothing", "/static/page.css")

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></bdi></dd></main><svg onload=alert(1)>",
    "(javascript:alert(1))",
    "{{ 7 * 7 }}{% raw %}",
    "<!--<script>",
    "&lt;b&gt;&amp;#60;",
    "<img src=x> 500 mg<script>x <b>twice</b> 04-May-2026 <i>",
)
BENIGN = "~plain words~"
KEPT = frozenset({"run_id", "id", "citations", "key", "kind"})
"""What ties the parts of a run together; everything else is text that a record could hold."""


def spoil(value: Any, text: str) -> Any:
    """Return a copy in which every text is `text`."""
    if isinstance(value, Enum | date | datetime | int | float) or value is None:
        return value
    if isinstance(value, str):
        return text
    if isinstance(value, tuple):
        return tuple(spoil(item, text) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        spoilt = {f.name: spoil(getattr(value, f.name), text) for f in fields(value) if f.name not in KEPT}
        return replace(value, **spoilt)
    return value


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("path", ["/", PATH, f"{PATH}/sources/2"])
async def test_no_text_of_a_record_changes_a_page_s_elements(path: str, text: str) -> None:
    benign = Markup((await serve(spoil(RUN, BENIGN)).ask(path)).text)
    hostile = Markup((await serve(spoil(RUN, text)).ask(path)).text)
    assert hostile.shape == benign.shape
    assert hostile.text.count(text) == benign.text.count(BENIGN)
    addresses = [a[name] for _, a in hostile.elements for name in ("href", "src") if name in a]
    assert all(address.startswith(("/", "#")) and not address.startswith("//") for address in addresses)


async def test_text_that_runs_backwards_is_shown_for_what_it_is() -> None:
    text = "give \u202egm 05\u202c now"
    for path in ("/", PATH, f"{PATH}/sources/2"):
        page = (await serve(spoil(RUN, text)).ask(path)).text
        assert "\u202e" not in page
        assert "give [U+202E]gm 05[U+202C] now" in Markup(page).text


@pytest.mark.parametrize("text", ["1" * 50_000, "1," * 50_000, "<1 " * 50_000, "1 " * 50_000, "a-" * 50_000])
def test_odd_text_takes_no_more_than_linear_time(text: str) -> None:
    began = time.process_time()
    keep_together(text)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "127.0.0.1.evil.example", "evil.example:80", "127.0.0.1@evil.example", "",
        "127.0.0.1:x", "localhost.", "[::1", "::1", "127.0.0.1, evil.example", "0.0.0.0",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [PATH, "/healthz", "/static/page.css"])
async def test_a_request_for_another_name_is_refused(host: str, path: str) -> None:
    served = serve(RUN)
    answer = await served.ask(path, host=host)
    assert answer.status_code == 400
    assert CANARY.lower() not in answer.text.lower()
    assert "evil" not in answer.text
    assert served.audit.entries == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "LOCALHOST:1", "[::1]:8080", "[::1]"])
async def test_a_request_for_one_of_our_names_is_answered(host: str) -> None:
    assert (await serve(RUN).ask(PATH, host=host)).status_code == 200


@pytest.mark.parametrize("hosts", [(), (b"127.0.0.1", b"evil.example"), (b"127.0.0.1", b"127.0.0.1")])
async def test_no_host_or_two_are_refused(hosts: tuple[bytes, ...]) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope: Scope = {
        "type": "http", "method": "GET", "path": PATH, "raw_path": PATH.encode(), "query_string": b"",
        "headers": [(b"host", host) for host in hosts], "http_version": "1.1", "scheme": "http",
    }  # fmt: skip
    await serve(RUN).app(scope, receive, send)
    assert sent[0]["status"] == 400


def test_a_malformed_host_has_no_name() -> None:
    assert [host_name(h) for h in ("a:b:c", "a:", ":80", "[::1]:80", "A:1")] == ["", "a", "", "[::1]", "a"]


@pytest.mark.parametrize("path", EVERY)
async def test_every_answer_carries_the_headers(path: str) -> None:
    for host in ("127.0.0.1", "evil.example"):
        headers = (await serve(RUN).ask(path, host=host)).headers
        assert headers["content-security-policy"].split("; ") == [
            "default-src 'none'", "style-src 'self'", "script-src 'self'", "img-src 'self'",
            "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'",
        ]  # fmt: skip
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")


async def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    for path in ("/", PATH, f"{PATH}/sources/2", "/nothing"):
        page = Markup((await serve(RUN).ask(path)).text)
        assert all("src" in script for script in page.all("script"))
        assert page.all("style") == []
        names = {name for _, attributes in page.elements for name in attributes}
        assert not {name for name in names if name.startswith("on") or name in ("style", "title")}
        assert page.open_tags == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_serving_on_this_machine_is_allowed(host: str) -> None:
    check_bind(host, has_tls=False, has_provider=False)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.7", "", "epicrisis.hospital.example", "127.0.0.1.nip.io"]
)
def test_serving_to_others_is_refused_without_tls_and_a_sign_in(host: str) -> None:
    with pytest.raises(SettingsError, match=r"without TLS .* and an identity provider"):
        check_bind(host, has_tls=False, has_provider=False)
    with pytest.raises(SettingsError, match="without TLS"):
        check_bind(host, has_tls=False, has_provider=True)
    with pytest.raises(SettingsError, match="without an identity provider"):
        check_bind(host, has_tls=True, has_provider=False)
    check_bind(host, has_tls=True, has_provider=True)


async def test_the_access_log_names_the_route_and_no_id(caplog: pytest.LogCaptureFixture) -> None:
    served = serve(RUN)
    with caplog.at_level(logging.INFO, logger="epicrisis"):
        for path in (*EVERY, f"/runs/{CANARY}?x={CANARY}", f"/{CANARY}"):
            await served.ask(path)
        await served.ask(PATH, method=CANARY.upper())
        await served.ask(PATH, host=f"{CANARY}.example")
    lines = [record.getMessage() for record in caplog.records if record.name == "epicrisis.access"]
    said = [re.sub(r"\d+ ms$", "N ms", line) for line in lines]
    assert said == [
        "GET / 200 N ms",
        "GET /runs/{run_id} 200 N ms",
        "GET /runs/{run_id}/sources/{n} 200 N ms",
        "GET /runs/{run_id}.json 200 N ms",
        "GET /healthz 200 N ms",
        "GET unmatched 404 N ms",
        "GET /static 200 N ms",
        "GET /runs/{run_id} 404 N ms",
        "GET unmatched 404 N ms",
        "OTHER /runs/{run_id} 405 N ms",
        "GET unmatched 400 N ms",
    ]
    ours = "\n".join(r.getMessage() for r in caplog.records if not r.name.startswith("httpx"))
    assert CANARY.lower() not in ours.lower()
    assert RUN.run_id not in ours


def _stylesheets() -> Iterator[Path]:
    yield from (HOME / "static").glob("*.css")


def test_no_style_cuts_a_drug_a_dose_or_a_result() -> None:
    hiding = []
    for sheet in _stylesheets():
        text = sheet.read_text()
        assert not re.search(r"text-overflow|ellipsis|line-clamp|mask-image", text)
        hiding += re.findall(r"([^{}]*)\{[^{}]*overflow(?:-[xy])?:\s*(?:hidden|clip)", text)
    assert [rule.strip() for rule in hiding] == [".hear"]


def test_no_template_switches_escaping_off() -> None:
    environment = make_environment()
    assert environment.autoescape is True
    for name in environment.list_templates():
        source = (HOME / "templates" / name).read_text()
        assert not re.search(r"\|\s*safe|autoescape|Markup", source), name
