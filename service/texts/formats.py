"""Text of a content by its media type. Pure, but for the libraries' own faults: run it in a child."""

from __future__ import annotations

from service.record.attachments import DICOM, MARKUP, PAGES, PLAIN, PORTABLE, RICH, decode_text, tidy
from service.texts.declaration import decode_marked_up
from service.texts.markup import embedded_body, markup_text, parse_markup
from service.texts.page import page_text
from service.texts.portable import portable_text
from service.texts.rich import rich_text
from service.texts.structured import structured_text
from service.texts.unreadable import Partial, Unreadable

__all__ = ["Partial", "Unreadable", "text_of"]


def text_of(content: bytes, media_type: str, declared: str) -> str:
    """Return the text of a content; raise Unreadable, and nothing else that a parser can be made to raise.

    Partial, which is an Unreadable, carries the text that could be read.

    `media_type` is in lower case without parameters, `declared` the whole content type. In the text `\\n` is
    the only line end, and a tab the only control character: offsets into it may be cited.
    """
    try:
        return tidy(_read(content, media_type, declared))
    except Partial as partly:
        raise Partial(partly.reason, tidy(partly.text)) from partly
    except (Unreadable, MemoryError):
        raise
    except Exception as error:
        raise Unreadable("its content is broken") from error


def _read(content: bytes, media_type: str, declared: str) -> str:
    if media_type in MARKUP:
        return _of_markup(content, declared)
    return _of_document(content, media_type, declared)


def _of_document(content: bytes, media_type: str, declared: str) -> str:
    if media_type in PLAIN:
        return decode_text(content, declared)
    if media_type in PAGES:
        return page_text(decode_marked_up(content, declared))
    if media_type in RICH:
        return rich_text(content)
    if media_type in PORTABLE:
        return portable_text(content)
    if media_type in DICOM:
        return structured_text(content)
    raise Unreadable("format not known")


def _of_markup(content: bytes, declared: str) -> str:
    root = parse_markup(decode_marked_up(content, declared))
    body = embedded_body(root)
    return _of_document(*body) if body else markup_text(root)
