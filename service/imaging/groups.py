"""Where a frame's attributes stand: in its own functional group, the shared one, or at the top."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from pydicom import Dataset


def item_of(dataset: Dataset, macro: str, frame: int) -> Dataset:
    """Return the item of a macro that holds for a frame, from 1; the dataset itself where there is none."""
    for keyword, place in (
        ("PerFrameFunctionalGroupsSequence", frame - 1),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        with suppress(Exception):
            found = dataset[keyword].value[place][macro].value[0]
            if isinstance(found, Dataset):
                return found
    return dataset


def value_of(item: Dataset, keyword: str) -> Any:
    """Return a value as recorded; None where it is absent or broken."""
    with suppress(Exception):
        return item.get(keyword)
    return None


def numbers_of(item: Dataset, keyword: str) -> list[float]:
    """Return the finite numbers of an attribute, one or several; none where one of them is broken."""
    value = value_of(item, keyword)
    if value is None or isinstance(value, str | bytes):
        return []
    with suppress(Exception):
        found = [float(one) for one in value] if hasattr(value, "__iter__") else [float(value)]
        return found if all(map(math.isfinite, found)) else []
    return []


def word_of(item: Dataset, keyword: str) -> str:
    """Return an attribute's text in capitals; empty where there is none."""
    value = value_of(item, keyword)
    return "" if value is None else str(value).strip().upper()
