"""Documents that cannot drift: settings, commands, links and error codes in them exist, and all are there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from service import errors
from service.cli import app
from service.context.templates import available, load
from service.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_setting_is_in_the_readme_and_every_one_named_there_exists() -> None:
    named = {name.lower() for name in re.findall(r"EPICRISIS_([A-Z0-9_]+[A-Z0-9])", README)}
    assert named == set(Settings.model_fields)


def test_every_command_is_in_the_readme() -> None:
    commands = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    named = set(re.findall(r"epicrisis ([a-z]+)", README))
    assert commands <= named


def test_every_make_target_named_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make\s+([a-z-]+)", README, re.MULTILINE)) <= targets
    assert {"setup", "demo", "test", "check", "bench", "clean-demo"} <= targets


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("*/README.md")), ids=str)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_error_class_is_drawn_with_its_exit_code() -> None:
    tree = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.EpicrisisError) and name != "EpicrisisError":
            assert re.search(rf"{name}\s+{value.exit_code}\b", tree), name


def test_the_version_of_a_template_set_is_its_newest_change() -> None:
    for set_id in available():
        settings = tomllib.loads((ROOT / "prompts" / set_id / "prompt.toml").read_text())
        assert settings["changes"][-1]["version"] == load(set_id).version
        assert all(change["reason"] for change in settings["changes"])


def test_every_dependency_has_its_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start = lines.index("dependencies = [")
    listed = lines[start + 1 : lines.index("]", start)]
    assert all("#" in line for line in listed)
