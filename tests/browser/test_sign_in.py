"""Coming in with a real browser: by the address in the terminal, and by way of a provider on another site."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from fixtures.servers import free_port
from service.settings import load_settings
from service.wiring import build_app
from tests.browser.conftest import running
from tests.conftest import ROOT
from tests.integration.identity.conftest import AUDIENCE, SECRET, oidc_server

pytestmark = pytest.mark.browser


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`epicrisis serve`, as a person starts it."""
    environment = {"PATH": os.environ["PATH"], "EPICRISIS_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}  # noqa: TID251
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "serve", "--port", "0"],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.terminate()
    process.communicate(timeout=20)


def address_in(terminal: subprocess.Popen[str]) -> str:
    assert terminal.stderr is not None
    found = re.search(r"http://\S+", terminal.stderr.readline())
    assert found is not None
    return found[0]


def test_the_address_in_the_terminal_opens_the_pages_once(
    browser: Browser, terminal: subprocess.Popen[str]
) -> None:
    address = address_in(terminal)
    home = address.partition("login")[0]
    first, second = browser.new_context(), browser.new_context()
    page = first.new_page()
    page.goto(home)
    page.get_by_role("heading", name="Sign in").wait_for()
    page.goto(address)
    page.get_by_role("heading", name="Summaries").wait_for()
    assert page.url == home
    assert page.evaluate("document.cookie") == ""
    page.reload()
    page.get_by_role("heading", name="Summaries").wait_for()
    other = second.new_page()
    other.goto(address)
    other.get_by_role("heading", name="Sign in").wait_for()
    following = address_in(terminal)
    assert following != address
    other.goto(following)
    other.get_by_role("heading", name="Summaries").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="You are signed out").wait_for()
    page.goto(home)
    page.get_by_role("heading", name="Sign in").wait_for()
    other.reload()
    other.get_by_role("heading", name="Summaries").wait_for()
    first.close()
    second.close()


def sign_in_there(page: Page, login: str) -> None:
    page.locator("input[name=login]").fill(login)
    page.locator("input[name=password]").fill("x")
    page.locator("button[type=submit]").click()
    page.get_by_role("button", name="Continue").click()


def test_a_provider_on_another_site_sends_the_browser_back_signed_in(
    browser: Browser, tmp_path: Path
) -> None:
    port = free_port()
    (tmp_path / "oidc").mkdir()
    with oidc_server(tmp_path / "oidc", f"http://127.0.0.1:{port}/callback", "localhost") as server:
        settings = load_settings(
            home=tmp_path / "home",
            oidc_issuer=server.issuer,
            oidc_client_id="epicrisis",
            oidc_client_secret=SECRET,
            oidc_audience=AUDIENCE,
            oidc_roles={"is-clinician": "clinician"},
        )
        with running(build_app(settings), port) as here:
            context = browser.new_context()
            page = context.new_page()
            page.goto(f"{here}/ward")
            page.get_by_role("link", name="Sign in").click()
            assert page.url.startswith(server.issuer)
            sign_in_there(page, "roe")
            page.get_by_role("heading", name="Ward").wait_for()
            assert page.url == f"{here}/ward"
            (cookie,) = [one for one in context.cookies(here) if one["name"].startswith("epicrisis-")]
            assert (cookie["sameSite"], cookie["httpOnly"]) == ("Strict", True)
            page.goto(here)
            page.get_by_role("heading", name="Summaries").wait_for()
            context.close()
