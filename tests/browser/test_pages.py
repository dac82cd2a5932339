from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from service.writeback.labels import BANNER
from tests.browser.conftest import AXE, Open
from tests.conftest import missing

pytestmark = pytest.mark.browser

PATHS = ("/", "/ward", "/runs/filed", "/runs/part", "/runs/dead", "/runs/filed/sources/2", "/nothing")
LOOKS = [(narrow, scheme) for narrow in (True, False) for scheme in ("light", "dark")]

CONTRASTS = """() => {
  const light = ([r, g, b]) => {
    const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      const stripes = style.backgroundImage.match(/rgba?\\([^)]*\\)/g);
      if (stripes) return stripes.map(numbers);
      const colour = numbers(style.backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return [colour];
    }
    return [[255, 255, 255]];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const style = getComputedStyle(element);
    if (!own || !element.checkVisibility() || element.closest(".hear, .copied, .skip")) continue;
    const ink = light(numbers(style.color));
    const ratios = behind(element).map((b) => {
      const [high, low] = [ink, light(b)].sort((x, y) => y - x);
      return (high + 0.05) / (low + 0.05);
    });
    found.push({ text: element.textContent.trim().slice(0, 30), of: element.className || element.tagName,
                 ratio: Math.min(...ratios), size: parseFloat(style.fontSize) });
  }
  return found;
}"""

OVERFLOWING = """[...document.querySelectorAll("body *:not(.hear)")]
  .filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)
  .filter((e) => getComputedStyle(e).overflowX !== "visible")
  .map((e) => e.className || e.tagName)"""

TARGETS = """(least) => [
  ...document.querySelectorAll(".chip, summary, button, .button, .glance a, .run a, .path a, .back a"),
]
  .filter((element) => element.checkVisibility())
  .map((element) => [element.className || element.tagName, element.getBoundingClientRect()])
  .filter(([, box]) => box.width < least || box.height < least)
  .map(([name, box]) => `${name} ${box.width}x${box.height}`)"""


@pytest.mark.parametrize("path", [*PATHS, "/runs/long", "/runs/long/sources/1"])
def test_no_page_scrolls_sideways_at_any_width(open_page: Open, path: str) -> None:
    page = _open(open_page, path)
    for width in (320, 360, 559, 560, 899, 900, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, width
        assert page.evaluate(OVERFLOWING) == [], width


@pytest.mark.parametrize(("narrow", "scheme"), LOOKS)
@pytest.mark.parametrize("path", PATHS)
def test_text_has_contrast_and_is_large_enough(open_page: Open, path: str, narrow: bool, scheme: str) -> None:
    page = _open(open_page, path, narrow=narrow, scheme=scheme)
    if page.locator(".chip").count():
        page.locator(".chip").first.click()
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    found = page.evaluate(CONTRASTS)
    assert found
    assert [one for one in found if one["ratio"] < 4.5 or one["size"] < 12] == []


@pytest.mark.parametrize("path", PATHS)
def test_targets_are_large_enough_for_a_pointer_and_for_a_finger(open_page: Open, path: str) -> None:
    for narrow, least in ((False, 24), (True, 44)):
        page = _open(open_page, path, narrow=narrow)
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate(TARGETS, 24) == []
        if narrow:
            assert [t for t in page.evaluate(TARGETS, least) if t.startswith("chip")] == []


@pytest.mark.parametrize("narrow", [True, False])
def test_the_banner_and_the_label_stay_while_scrolling(open_page: Open, narrow: bool) -> None:
    page = open_page("/runs/filed", narrow=narrow).page
    page.mouse.move(180, 400)
    page.mouse.wheel(0, 1500)
    _until(page, "scrollY > 500 || document.querySelector('.text').scrollTop > 300")
    for part in (".banner .name", ".banner .label"):
        box = page.locator(part).bounding_box()
        assert box is not None
        assert 0 <= box["y"] < 120
        seen = page.evaluate(
            "([x, y, part]) => !!document.elementFromPoint(x, y).closest(part)",
            [box["x"] + 5, box["y"] + box["height"] / 2, ".banner"],
        )
        assert seen


def test_what_matters_is_on_the_first_screen(open_page: Open) -> None:
    page = open_page("/runs/filed").page
    for text in (
        "Known allergies",
        "Penicillin",
        "Community acquired pneumonia",
        "apixaban 5 mg oral tablet",
    ):
        box = page.locator(".text").get_by_text(text).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 800, text
    page = open_page("/runs/filed", narrow=True).page
    box = page.locator("#statement-1").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 640


@pytest.mark.parametrize("narrow", [True, False])
def test_a_number_opens_its_source_and_escape_gives_the_focus_back(open_page: Open, narrow: bool) -> None:
    page = open_page("/runs/filed", narrow=narrow).page
    chip = page.locator("#statement-12 .chip")
    number = chip.inner_text().strip("[]\n ")
    chip.focus()
    page.keyboard.press("Enter")
    card = page.locator(f"#source-{number}")
    assert card.evaluate("(e) => e.classList.contains('open') && e === document.activeElement")
    assert chip.get_attribute("aria-expanded") == "true"
    _until(
        page,
        f"(() => {{ const b = document.querySelector('#source-{number}').getBoundingClientRect();"
        " return b.top >= 0 && b.top < innerHeight && b.left < innerWidth; })()",
    )
    page.keyboard.press("Escape")
    assert page.locator(".source.open").count() == 0
    assert chip.evaluate("(e) => e === document.activeElement")
    assert chip.get_attribute("aria-expanded") == "false"


def test_the_close_button_gives_the_focus_back_too(open_page: Open) -> None:
    page = open_page("/runs/filed", narrow=True).page
    page.locator("#statement-3 .chip").tap()
    page.locator(".source.open .close").tap()
    assert page.locator("#statement-3 .chip").evaluate("(e) => e === document.activeElement")


def test_on_a_phone_the_statement_stays_in_sight_above_its_source(open_page: Open) -> None:
    page = open_page("/runs/filed", narrow=True).page
    page.locator("#statement-7 .chip").tap()
    statement = page.locator("#statement-7").bounding_box()
    card = page.locator(".source.open").bounding_box()
    banner = page.locator(".banner").bounding_box()
    assert statement is not None
    assert card is not None
    assert banner is not None
    assert banner["y"] + banner["height"] <= statement["y"] + 1
    assert statement["y"] + statement["height"] <= card["y"] + 1


def test_arrows_walk_through_the_sources(open_page: Open) -> None:
    page = open_page("/runs/filed").page
    page.locator("#statement-1 .chip").click()
    for key, number in (
        ("ArrowRight", 2),
        ("ArrowRight", 3),
        ("ArrowLeft", 2),
        ("ArrowLeft", 1),
        ("ArrowLeft", 1),
    ):
        page.keyboard.press(key)
        assert page.locator(".source.open").get_attribute("id") == f"source-{number}"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert page.locator("#statement-2 .chip").evaluate("(e) => e === document.activeElement")


def test_everything_is_reached_with_tab_alone(open_page: Open) -> None:
    page = open_page("/runs/filed").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= 0  # type: ignore[index]
    reached, chips = [], page.locator(".chip").count()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.closest('.statement, .source, summary')?.id || ''")
        )
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        if reached[-1].startswith("source-"):
            break
    visible = [f"statement-{n}" for n in range(1, 25) if page.locator(f"#statement-{n}").is_visible()]
    assert [name for name in dict.fromkeys(reached) if name.startswith("statement")] == visible
    assert chips == 25


@pytest.mark.parametrize("narrow", [True, False])
def test_everything_can_be_read_without_a_script(open_page: Open, narrow: bool) -> None:
    page = open_page("/runs/filed", narrow=narrow, java_script_enabled=False).page
    page.locator("#statement-3 .chip").click()
    assert page.url.endswith("#source-3")
    box = page.locator("#source-3").bounding_box()
    assert box is not None
    height = 640 if narrow else 800
    assert 0 <= box["y"] < height
    banner = page.locator(".banner").bounding_box()
    assert banner is not None
    assert box["y"] >= banner["y"] + banner["height"] - 1
    page.locator("#source-3 .back a").first.click()
    assert page.url.endswith("#statement-3")
    page.locator(".more summary").click()
    assert page.locator(".more .statement").first.is_visible()
    assert page.locator(".close").first.is_hidden()


def test_a_source_in_the_address_is_open_on_arrival(open_page: Open) -> None:
    page = open_page("/runs/filed#source-25").page
    assert page.locator("#source-25").is_visible()
    assert page.locator("#source-25").evaluate("(e) => e.classList.contains('open')")


def test_copied_text_keeps_its_label_and_its_sources(open_page: Open, site: str) -> None:
    visit = open_page("/runs/filed")
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site)
    page = visit.page
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#statement-1'))")
    page.keyboard.press("Control+c")
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[0] == BANNER
    assert "Penicillin: rash, hives. Recorded 12-Jun-2019, confirmed." in " ".join(copied)
    assert copied[-1] == "[1] AllergyIntolerance/11/_history/2"


def test_print_shows_every_statement_and_every_source(open_page: Open) -> None:
    page = open_page("/runs/filed").page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".statement").last.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.text')).overflowY") == "visible"
    unseen = page.evaluate(
        "[...document.querySelectorAll('.statement, .source, .note-text')]"
        ".filter((e) => !e.checkVisibility()).map((e) => e.id || e.className)"
    )
    assert unseen == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("path", PATHS)
def test_axe_finds_nothing(open_page: Open, path: str) -> None:
    if not AXE.exists():
        missing("axe-core in tests/node/node_modules")
    visit = open_page(path, bypass_csp=True)
    visit.complaints.clear()
    visit.page.add_script_tag(path=str(AXE))
    result = visit.page.evaluate("axe.run()")
    assert [(found["id"], [node["html"] for node in found["nodes"]]) for found in result["violations"]] == []


def _open(open_page: Open, path: str, **more: Any) -> Page:
    """Open a path; where there is no such page, the browser's complaint of it is expected."""
    visit = open_page(path, **more)
    if path == "/nothing":
        visit.complaints.clear()
    return visit.page


def _until(page: Page, expression: str) -> None:
    """Wait until an expression is true. Playwright's own waiting needs eval, which the policy forbids."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {expression}")


def test_a_schedule_is_paused_and_resumed_and_run_from_the_page(open_page: Open) -> None:
    page = open_page("/ward").page
    page.get_by_role("button", name="Pause morning").click()
    page.get_by_text("Paused by user:local").nth(1).wait_for()
    page.get_by_role("button", name="Resume morning").click()
    page.get_by_role("button", name="Pause morning").wait_for()
    page.get_by_role("button", name="Run now for morning").press("Enter")
    page.get_by_text("At work since").wait_for()


def test_what_is_wrong_on_the_ward_is_on_the_first_screen(open_page: Open) -> None:
    for narrow in (True, False):
        box = open_page("/ward", narrow=narrow).page.get_by_text("did not answer in time").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 640
