from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.store.cipher import Cipher
from service.store.reviews import SqlReviews
from tests.unit.api.review.console import Console

Open = Callable[..., Console]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new database and its key: migrating one takes most of a second."""
    folder = tmp_path_factory.mktemp("migrated")
    SqlReviews(f"sqlite:///{folder}/e.db", Cipher.from_file(folder / "key")).close()
    return folder


@pytest.fixture
def opened(tmp_path: Path, migrated: Path) -> Iterator[Open]:
    """Opens a console, which is closed at the end."""
    consoles: list[Console] = []

    def open_console(**more: Any) -> Console:
        shutil.copytree(migrated, tmp_path, dirs_exist_ok=True)
        consoles.append(Console(tmp_path, **more))
        return consoles[-1]

    yield open_console
    for console in consoles:
        console.close()
