"""The page that finds pictures by words: who may, what it says, and what it never says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import unescape

import pytest

from service.album import Hit
from service.api.app import create_app
from service.api.review.pictures import MOST_SHOWN, PicturesRoom
from service.imaging.encoder import NoEncoder
from service.imaging.index import Entry
from service.imaging.labels import NO_FINDING, Suggestion
from service.ports import Action
from service.ports.pictures import Whose
from tests.unit.api.review.console import Console, NamedDoor

PATH = "/review/runs/filed/pictures"
LABELS = (Suggestion("pleural <effusion>", 0.912), Suggestion("pneumothorax", 0.2))


def entry(n: int) -> Entry:
    return Entry("1", "2", f"9.{n}", 1, "ImagingStudy/1", "DX", "04-May-2019", f"Chest {n}", labels=LABELS)


@dataclass
class Finder:
    """Two pictures, or so many; `fails` is an encoder that does not work."""

    count: int = 2
    fails: bool = False
    asked: list[tuple[Whose, str]] = field(default_factory=list)

    def find(self, whose: Whose, words: str, most: int = 10) -> Sequence[Hit]:
        self.asked.append((whose, words))
        if self.fails:
            raise NoEncoder("The image encoder failed: took too long.")
        return [Hit(one, 0.25, 0.5) for one in self.entries(whose)][:most]

    def entries(self, whose: Whose) -> Sequence[Entry]:
        return [entry(n) for n in range(self.count)]


def with_room(console: Console, finder: Finder | None, why: str = "") -> Console:
    console.app = create_app(
        store=console.store, audit=console.audit, clock=console.clock, access=NamedDoor(),
        allowed_hosts=("127.0.0.1",), version="9.8.7", feedback=console.said,
        rooms=[PicturesRoom(console.store, console.audit, console.clock, finder, why)],
    )  # fmt: skip
    return console


async def test_pictures_are_listed_with_suggestions_that_are_called_so(
    opened: Callable[..., Console],
) -> None:
    console = with_room(opened(), Finder())
    page = await console.get(PATH)
    assert page.status_code == 200
    assert NO_FINDING in unescape(page.text)
    assert "Chest 0" in page.text
    assert "pleural &lt;effusion&gt;" in page.text
    assert "0.91" in page.text


async def test_words_are_sent_in_the_body_and_come_back_escaped(opened: Callable[..., Console]) -> None:
    finder = Finder()
    console = with_room(opened(), finder)
    page = await console.post(PATH, {"words": 'opacity <b>"'})
    run = console.runs[0].inputs
    assert finder.asked == [(Whose(run.server, run.access_profile, run.patient), 'opacity <b>"')]
    assert "opacity &lt;b&gt;" in page.text
    assert "Something is always most alike" in page.text
    assert "0.250" in page.text


async def test_each_look_is_on_record_without_the_words(opened: Callable[..., Console]) -> None:
    console = with_room(opened(), Finder())
    await console.post(PATH, {"words": "a secret question"})
    (told,) = [one for one in console.audit.entries if one.target == "pictures"]
    assert (told.action, told.actor, told.by) == (Action.VIEW, "user:one", "Practitioner/one")
    assert told.patient == console.runs[0].inputs.patient
    assert "secret" not in repr(told)


@pytest.mark.parametrize("user", ["reader", "clinician", "auditor", "admin"])
async def test_only_reviewers_see_it(opened: Callable[..., Console], user: str) -> None:
    console = with_room(opened(), Finder())
    assert (await console.get(PATH, user)).status_code == 403
    assert (await console.post(PATH, {"words": "x"}, user)).status_code == 403


async def test_without_an_encoder_the_page_says_why(opened: Callable[..., Console]) -> None:
    console = with_room(opened(), None, "No image encoder is configured: pictures are chosen by rules alone.")
    page = await console.get(PATH)
    assert page.status_code == 200
    assert "by rules alone" in page.text


async def test_an_encoder_that_fails_is_an_error_in_words(opened: Callable[..., Console]) -> None:
    console = with_room(opened(), Finder(fails=True))
    page = await console.post(PATH, {"words": "opacity"})
    assert page.status_code == 503
    assert "took too long" in page.text


async def test_nothing_looked_at_yet_and_more_than_fits_are_said(opened: Callable[..., Console]) -> None:
    console = with_room(opened(), Finder(count=0))
    assert "No picture of this patient was looked at yet" in (await console.get(PATH)).text
    with_room(console, Finder(count=MOST_SHOWN + 20))
    page = (await console.get(PATH)).text
    assert f"the last {MOST_SHOWN} of {MOST_SHOWN + 20}" in page
    assert page.count('<li class="entry">') == MOST_SHOWN


async def test_a_form_without_words_a_long_one_and_an_unknown_run_are_refused(
    opened: Callable[..., Console],
) -> None:
    console = with_room(opened(), Finder())
    assert (await console.post(PATH, {"words": "x" * 201})).status_code == 400
    assert (await console.get("/review/runs/unknown/pictures")).status_code == 404
    assert (await console.post(PATH, {"other": "x"})).status_code == 200
