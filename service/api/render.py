"""Templates to HTML: everything is escaped, and no text of a chart can hide or reorder a page."""

from __future__ import annotations

import re
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from service.api.words import count
from service.writeback.labels import BANNER

TITLES: Final = {
    400: "Not understood",
    403: "Not allowed",
    404: "Not found",
    405: "Not offered",
    500: "Something went wrong",
    503: "Not available now",
}

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
    "\U000e0000-\U000e007f]"
)
"""Control, invisible and direction-overriding characters. Joiners and plain direction marks stay: names in
Persian, Hindi and Hebrew need them."""

_UNBROKEN = re.compile(
    r"(?<![\w.,])(?:(?:\d\d-)?[A-Z][a-z]{2}-\d{4}(?: \d\d:\d\d)?"
    r"|[<>≤≥]?=?\s?\d[\d.,]* [A-Za-zµμ%°\[{][^\s,;()]{0,11})"
)
"""A date, or a number with its unit: `04-May-2026 14:05`, `500 mg`, `<0.01 ng/mL`, `5,000 units`."""


def show_hidden(text: str) -> str:
    """Write characters that nobody sees as `[U+202E]`: overridden text could show a dose backwards."""
    return _HIDDEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text.replace("\r\n", "\n"))


def keep_together(text: str) -> Markup:
    """Escape a text so that no line breaks inside a date, or between a number and its unit (MEDi-025)."""
    shown = show_hidden(text)
    parts, end = [], 0
    for found in _UNBROKEN.finditer(shown):
        parts += [escape(shown[end : found.start()]), Markup('<span class="amount">')]
        parts += [escape(found[0]), Markup("</span>")]
        end = found.end()
    return Markup("").join([*parts, escape(shown[end:])])


def _finalize(value: Any) -> Any:
    return show_hidden(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def make_environment() -> Environment:
    """Return the page templates' environment; an undefined name is an error, never an empty place."""
    environment = Environment(
        loader=PackageLoader("service.api", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["together"] = keep_together
    environment.globals.update(AI_LABEL=BANNER, count=count)
    return environment


_environment: Final = make_environment()


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Render one page."""
    return HTMLResponse(_environment.get_template(template).render(values), status)


def plain_page(status: int, text: str, advice: str = "") -> HTMLResponse:
    """Render a page that says one thing in plain words. Never pass it anything that a request said."""
    title = TITLES.get(status, "Not possible")
    return page("message.html", status, title=title, text=text, advice=advice)
