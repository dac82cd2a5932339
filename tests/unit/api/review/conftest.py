from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.review.console import Console

Open = Callable[..., Console]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Opens a console."""

    def open_console(**more: Any) -> Console:
        return Console(tmp_path, **more)

    return open_console
