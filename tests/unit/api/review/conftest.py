from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.api.review.console import Console

Open = Callable[..., Console]


@pytest.fixture
def opened() -> Open:
    """Opens a console."""
    return Console
