"""Which summaries are reviewed is a file's to say, if one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import SettingsError
from service.review.sampling import Sampling
from service.settings import Settings
from service.wiring.review import sampling_of


def test_without_a_file_the_rules_that_come_along_hold(tmp_path: Path) -> None:
    assert sampling_of(Settings(home=tmp_path)) == Sampling()


def test_a_named_file_says_what_is_reviewed(tmp_path: Path) -> None:
    rules = tmp_path / "review.toml"
    rules.write_text("random_share = 0.25\n[wards]\nICU = 1")
    found = sampling_of(Settings(home=tmp_path, review=rules))
    assert (found.random_share, dict(found.wards)) == (0.25, {"icu": 1.0})


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    rules = tmp_path / "review.toml"
    if content is not None:
        rules.write_bytes(content)
    with pytest.raises(SettingsError, match="cannot be read"):
        sampling_of(Settings(home=tmp_path, review=rules))
