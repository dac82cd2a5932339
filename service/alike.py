"""Whether two runs were given the same, but for the chart, or for pictures that are away for now."""

from __future__ import annotations

from dataclasses import replace

from service.ports import RunInputs
from service.ports.images import Looked


def is_alike(then: RunInputs, now: RunInputs, looked: Looked) -> bool:
    """Tell whether two runs differ by chart and attempt alone.

    Where pictures are away for now, so do they by pictures, if the earlier run saw no fewer: a text without
    the pictures of an hour ago is no newer one. When the archive is back, they are told apart again.
    """
    if looked.is_for_now and (then.images or then.unseen) and len(then.images) >= len(now.images):
        then, now = _without_pictures(then), _without_pictures(now)
    return _of_any_chart(then) == _of_any_chart(now)


def is_same_chart(then: RunInputs, now: RunInputs, looked: Looked) -> bool:
    """Tell whether the chart did not change either, while some of its pictures are away for now.

    Whoever raises the attempt wants it written anew all the same.
    """
    is_same = then.record_digest == now.record_digest and now.attempt <= then.attempt
    return looked.is_for_now and is_same and is_alike(then, now, looked)


def _without_pictures(inputs: RunInputs) -> RunInputs:
    return replace(inputs, images=(), unseen=(), files_images=False)


def _of_any_chart(inputs: RunInputs) -> RunInputs:
    """Leave out what tells one chart, and one attempt, from the next."""
    return replace(inputs, key="", record_digest="", attempt=1, server="")
