"""Template sets: loading, checking and identifying the versioned folders of `prompts/`."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined

from service.record.facts import Kind, Status

TEMPLATES = ("system.j2", "patient.j2", "task.j2", "guided.j2", "section.j2")


@dataclass(frozen=True, slots=True)
class SectionRule:
    """A heading of the summary: which fact kinds and which required kinds stand under it."""

    key: str
    title: str
    kinds: tuple[Kind, ...]
    required: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A worked example for guided models: a fact's line, and the sentence that it should become."""

    kind: Kind
    status: Status
    line: str
    claim: str


@dataclass(frozen=True)
class TemplateSet:
    """One versioned template set. `digest` and `schema_digest` (SHA-256 hex) are part of the run key."""

    id: str
    version: str
    title: str
    sections: tuple[SectionRule, ...]
    kind_order: tuple[Kind, ...]
    kind_titles: dict[Kind, str]
    unshown: dict[Kind, str]
    examples: tuple[Example, ...]
    schema: dict[str, Any]
    digest: str
    schema_digest: str
    environment: Environment

    def render(self, template: str, **values: object) -> str:
        """Render one template. A name that the template uses and nobody passed is an error."""
        return self.environment.get_template(template).render(**values).strip()

    def section_of(self, kind: Kind) -> SectionRule | None:
        """Return the heading under which facts of this kind stand, or None where none shows them."""
        return next((rule for rule in self.sections if kind in rule.kinds), None)


def available() -> tuple[str, ...]:
    """Return the ids of the template sets that this installation holds."""
    folders = (entry for entry in files("prompts").iterdir() if entry.is_dir())
    return tuple(sorted(f.name for f in folders if (f / "prompt.toml").is_file()))


@cache
def load(set_id: str) -> TemplateSet:
    """Load a template set by id. Raises KeyError for an id that is not in `available()`."""
    if set_id not in available():
        raise KeyError(set_id)
    folder = files("prompts") / set_id
    sources = {name: (folder / name).read_text(encoding="utf-8") for name in TEMPLATES}
    settings_text = (folder / "prompt.toml").read_text(encoding="utf-8")
    schema_text = (folder / "answer.schema.json").read_text(encoding="utf-8")
    settings = tomllib.loads(settings_text)
    environment = Environment(
        loader=DictLoader(sources),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - the output is a prompt, never a page
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    return TemplateSet(
        id=settings["id"],
        version=settings["version"],
        title=settings["title"],
        sections=tuple(_section(rule) for rule in settings["sections"]),
        kind_order=tuple(Kind(kind) for kind in settings["order"]["kinds"]),
        kind_titles={Kind(kind): title for kind, title in settings["kind_titles"].items()},
        unshown={Kind(kind): reason for kind, reason in settings["unshown"].items()},
        examples=tuple(_example(example) for example in settings["examples"]),
        schema=json.loads(schema_text),
        digest=_digest([settings_text, *(sources[name] for name in TEMPLATES)]),
        schema_digest=_digest([schema_text]),
        environment=environment,
    )


def _section(rule: dict[str, Any]) -> SectionRule:
    kinds = tuple(Kind(kind) for kind in rule["kinds"])
    return SectionRule(rule["key"], rule["title"], kinds, tuple(rule["required"]))


def _example(example: dict[str, Any]) -> Example:
    return Example(Kind(example["kind"]), Status(example["status"]), example["line"], example["claim"])


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
