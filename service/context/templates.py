"""Template sets: loading, checking and identifying the versioned folders of `prompts/` and of a site.

Everything is read and checked when the library is opened: a bad set is refused at start, with its file and
line, never in the middle of a patient. A set is data. Its templates run in a sandbox without I/O, see only
what `VARIABLES` names, and include only files of their own set.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Environment

from service.context.sandbox import OF_QUESTION, TEMPLATES, VARIABLES, listed, open_sandbox
from service.context.written import (
    BlockRule,
    Change,
    Example,
    Focus,
    FocusScope,
    Form,
    Limits,
    MedicationRecord,
    Scope,
    SectionRule,
    TemplateError,
    Written,
    line_in,
    read_settings,
    record_of,
)
from service.record.facts import Fact, Kind, Status
from service.record.rules import default_rules

__all__ = [
    "TEMPLATES", "VARIABLES", "BlockRule", "Change", "Example", "Focus", "FocusScope", "Form", "Library",
    "Limits", "MedicationRecord", "Scope", "SectionRule", "TemplateError", "TemplateSet", "available", "load",
    "open_library", "rebuild", "record_of",
]  # fmt: skip

SETTINGS, SCHEMA, BASE = "prompt.toml", "answer.schema.json", "base"
QUESTION = "question"
"""The set that answers a question about a chart: no kind of summary, and not offered as one."""

_ID = re.compile(r"[a-z][a-z0-9_-]{0,39}")


Sources = tuple[tuple[str, Mapping[str, str]], ...]


@dataclass(frozen=True)
class TemplateSet:
    """One versioned template set. `digest` and `schema_digest` (SHA-256 hex) are part of the run key."""

    id: str
    version: str
    title: str
    changes: tuple[Change, ...]
    lineage: tuple[str, ...]
    """The set and what it extends, each with its version: `handover 1.0.0`, `base 1.0.0`."""
    sections: tuple[SectionRule, ...]
    blocks: tuple[BlockRule, ...]
    limits: Limits
    focus: Focus
    kind_order: tuple[Kind, ...]
    kind_titles: dict[Kind, str]
    unshown: dict[Kind, str]
    examples: tuple[Example, ...]
    schema: dict[str, Any]
    digest: str
    schema_digest: str
    environment: Environment
    sources: Sources = ()
    """Each folder that it was built from, itself first: name, and every file with its text."""

    def render(self, template: str, **values: object) -> str:
        """Render one template. A name that the template uses and nobody passed is an error."""
        return self.environment.get_template(template).render(**values).strip()

    def heading_of(self, fact: Fact, of_stay: bool) -> SectionRule | None:
        """Return the one heading under which a fact stands, or None where this set does not show it."""
        slot = (fact.kind, fact.status, of_stay)
        if slot not in self._headings:
            self._headings[slot] = next((rule for rule in self.sections if rule.takes(*slot)), None)
        return self._headings[slot]

    def block_of(self, fact: Fact) -> BlockRule | None:
        """Return the one block of the evidence that holds a fact; None for the patient's own fact."""
        slot = (fact.kind, fact.status, record_of(fact) if fact.kind is Kind.MEDICATION else "")
        if slot not in self._found:
            self._found[slot] = next((rule for rule in self.blocks if rule.takes(*slot)), None)
        return self._found[slot]

    # A chart has thousands of facts and few different slots: each is looked up once.
    @cached_property
    def _headings(self) -> dict[tuple[Kind, Status, bool], SectionRule | None]:
        return {}

    @cached_property
    def _found(self) -> dict[tuple[Kind, Status, str], BlockRule | None]:
        return {}


class Library:
    """The checked template sets of this installation: the built-in ones and a site's own."""

    def __init__(self, sets: Mapping[str, TemplateSet]) -> None:
        self._sets = dict(sets)

    def available(self) -> tuple[str, ...]:
        """Return the ids of all sets that a summary may be asked by, sorted."""
        return tuple(sorted(set(self._sets) - {QUESTION}))

    def load(self, set_id: str) -> TemplateSet:
        """Return a set by id. Raises KeyError for an id that is neither in `available()` nor QUESTION."""
        return self._sets[set_id]


def open_library(site_folder: Path | None = None) -> Library:
    """Read and check every built-in set and every set of a site's folder. Raises TemplateError."""
    layers, sets = dict(_built_in_layers()), dict(_built_in_sets())
    own = list(_layers(site_folder, str(site_folder))) if site_folder else []
    for layer in own:
        if layer.name in layers:
            layer.refuse("id", f"the id {layer.name!r} is that of a built-in set.", word=layer.name)
    layers |= {layer.name: layer for layer in own}
    return Library(sets | {layer.name: _resolve(layer, layers) for layer in own})


@cache
def _built_in_layers() -> Mapping[str, _Layer]:
    return {layer.name: layer for layer in _layers(files("prompts"), "prompts")}


@cache
def _built_in_sets() -> Mapping[str, TemplateSet]:
    layers = _built_in_layers()
    return {name: _resolve(layer, layers) for name, layer in layers.items() if name != BASE}


def available() -> tuple[str, ...]:
    """Return the ids of the built-in template sets."""
    return open_library().available()


def load(set_id: str) -> TemplateSet:
    """Return a built-in template set. Raises KeyError for an id that is not in `available()`."""
    return open_library().load(set_id)


@dataclass(frozen=True)
class _Layer:
    """One folder as read: what it says itself, before inheritance. `place` is how messages call it."""

    name: str
    place: str
    texts: Mapping[str, str]
    written: Written

    def refuse(self, table: str, sentence: str, row: int = 0, key: str = "", word: str = "") -> NoReturn:
        """Refuse what stands in prompt.toml: in this table, its row (from 0), at this key or quoted word."""
        line = line_in(self.texts[SETTINGS], table, row, key, word)
        raise TemplateError(f"{self.place}/{SETTINGS}", line, sentence)


def _layers(root: Traversable, place: str) -> Iterator[_Layer]:
    """Read every folder of sets, in order of name. Files, and names that begin with . or _, are set aside."""
    for folder in _entries(root, place):
        if folder.is_dir() and not folder.name.startswith((".", "_")):
            yield _layer(folder, f"{place}/{folder.name}")


def _layer(folder: Traversable, place: str) -> _Layer:
    texts = dict(_texts(folder, place))
    if SETTINGS not in texts:
        raise TemplateError(
            place, None, f"the folder holds no {SETTINGS}; begin its name with _ to set it aside."
        )
    layer = _Layer(folder.name, place, texts, read_settings(texts[SETTINGS], f"{place}/{SETTINGS}"))
    if layer.written.id != folder.name:
        layer.refuse("id", f"the id {layer.written.id!r} is not the name of its folder, {folder.name!r}.")
    if not _ID.fullmatch(folder.name):
        layer.refuse("id", "an id is small letters, digits, - and _, begins with a letter, 40 at most.")
    _check_changes(layer)
    return layer


def _texts(folder: Traversable, place: str) -> Iterator[tuple[str, str]]:
    known = {SETTINGS, SCHEMA, *TEMPLATES}
    for entry in _entries(folder, place):
        if entry.name in known:
            yield entry.name, _text(entry, f"{place}/{entry.name}")
        elif entry.name.endswith((".j2", ".toml", ".json")):
            raise TemplateError(
                f"{place}/{entry.name}", None, f"no such file belongs to a set; known are {listed(known)}."
            )


def _entries(folder: Traversable, place: str) -> list[Traversable]:
    try:
        return sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise TemplateError(place, None, f"the folder cannot be read: {error.strerror}.") from None


def _text(entry: Traversable, place: str) -> str:
    try:
        data = entry.read_bytes()
    except OSError as error:
        raise TemplateError(place, None, f"the file cannot be read: {error.strerror}.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TemplateError(place, line, "the file is not UTF-8 text.") from None


def _check_changes(layer: _Layer) -> None:
    changes = layer.written.changes
    for row, (before, after) in enumerate(pairwise(changes), 1):
        if after.date < before.date:
            layer.refuse("changes", "changes stand in order of date, the newest last.", row, "date")
    if changes[-1].version != layer.written.version:
        layer.refuse("version", f"the newest change is of version {changes[-1].version!r}.")


def _lineage(layer: _Layer, layers: Mapping[str, _Layer]) -> tuple[_Layer, ...]:
    """Return a set and what it extends, itself first."""
    line = [layer]
    while (name := line[-1].written.extends) is not None:
        if name not in layers:
            line[-1].refuse("extends", f"there is no set {name!r} to extend.")
        if layers[name] in line:
            names = " → ".join(one.name for one in (*line, layers[name]))
            layer.refuse("extends", f"a set cannot extend itself: {names}.")
        line.append(layers[name])
    return tuple(line)


@dataclass(frozen=True)
class _Line:
    """A set's layers, itself first: each thing is taken from the first that gives it."""

    layers: tuple[_Layer, ...]

    def giver(self, name: str) -> _Layer:
        """Return the layer that gives this table or file. Refuses a set that has it from nowhere."""
        for layer in self.layers:
            if name in layer.texts or getattr(layer.written, name, None) is not None:
                return layer
        own = self.layers[0]
        if not name.endswith((".j2", ".json")):
            own.refuse("id", f"there is no table {name!r}, and none is inherited.")
        raise TemplateError(own.place, None, f"there is no {name}, and none is inherited.")

    def templates(self) -> dict[str, str]:
        """Return every template's text, own or inherited, in the order of TEMPLATES."""
        return {name: self.giver(name).texts[name] for name in TEMPLATES}

    def places(self) -> dict[str, str]:
        """Return what messages call each template's file."""
        return {name: f"{self.giver(name).place}/{name}" for name in TEMPLATES}

    def variables(self) -> Mapping[str, tuple[dict[str, Any], ...]]:
        """Return what its templates are given."""
        return OF_QUESTION if any(layer.name == QUESTION for layer in self.layers) else VARIABLES

    def table(self, name: str) -> Any:
        """Return a table of prompt.toml, own or inherited."""
        return getattr(self.giver(name).written, name)

    def table_or(self, name: str, default: Any) -> Any:
        """Return a table, or the default where no layer gives it."""
        given = (getattr(layer.written, name) for layer in self.layers)
        return next((value for value in given if value is not None), default)


def _resolve(layer: _Layer, layers: Mapping[str, _Layer]) -> TemplateSet:
    """Build one set of its own and inherited parts, and check the whole."""
    line = _Line(_lineage(layer, layers))
    _check_blocks(line.giver("blocks"))
    _check_sections(line.giver("sections"))
    _check_kinds(line)
    limits = line.table_or("limits", Limits())
    schema = _schema(line.giver(SCHEMA), limits.max_claims)
    settings = [one.texts[SETTINGS] for one in line.layers]
    return TemplateSet(
        id=layer.name,
        version=layer.written.version,
        title=layer.written.title,
        changes=layer.written.changes,
        lineage=tuple(f"{one.name} {one.written.version}" for one in line.layers),
        sections=line.table("sections"),
        blocks=line.table("blocks"),
        limits=limits,
        focus=line.table_or("focus", Focus()),
        kind_order=line.table("order").kinds,
        kind_titles=line.table("kind_titles"),
        unshown=line.table_or("unshown", {}),
        examples=line.table_or("examples", ()),
        schema=schema,
        digest=_digest([*settings, *line.templates().values()]),
        schema_digest=_digest([json.dumps(schema, ensure_ascii=False)]),
        environment=open_sandbox(line.templates(), line.places(), line.variables()),
        sources=tuple((one.name, one.texts) for one in line.layers),
    )


def rebuild(sources: Sources) -> TemplateSet:
    """Return a set as its kept `sources` make it, whatever the folders hold now. Raises TemplateError."""
    layers = {
        name: _Layer(name, f"kept {name}", texts, read_settings(texts[SETTINGS], f"kept {name}/{SETTINGS}"))
        for name, texts in sources
    }
    return _resolve(layers[sources[0][0]], layers)


def _check_blocks(layer: _Layer) -> None:
    """Every fact but the patient's own falls into exactly one block."""
    blocks = layer.written.blocks or ()
    _check_keys(layer, "blocks", [block.key for block in blocks])
    for row, block in enumerate(blocks):
        if Kind.PATIENT in block.kinds:
            layer.refuse("blocks", "the patient's own fact holds the name: no block shows it.", row, "kinds")
        if block.records and block.kinds != (Kind.MEDICATION,):
            layer.refuse("blocks", "records are of a block of medications alone.", row, "records")
    for kind in Kind:
        words = tuple(MedicationRecord) if kind is Kind.MEDICATION else ("",)
        for status, word in ((status, word) for status in Status for word in words):
            taking = [row for row, block in enumerate(blocks) if block.takes(kind, status, word)]
            what = " ".join(
                filter(None, (f"a {kind.value} fact", word and f"({word})", f"of status '{status}'"))
            )
            if not taking and kind is not Kind.PATIENT:
                layer.refuse("blocks", f"{what} falls into no block.")
            if len(taking) > 1:
                both = " and ".join(repr(blocks[row].key) for row in taking[:2])
                layer.refuse("blocks", f"{what} falls into two blocks, {both}.", taking[1])


def _check_sections(layer: _Layer) -> None:
    """No fact has two headings, and every required kind has one."""
    sections = layer.written.sections or ()
    _check_keys(layer, "sections", [section.key for section in sections])
    needed = {rule.key for rule in default_rules().rules}
    for row, section in enumerate(sections):
        if Kind.PATIENT in section.kinds:
            layer.refuse("sections", "the patient's own fact is required as 'identity'.", row, "kinds")
        for key in section.required:
            if key not in needed | {"encounter"}:
                known = listed(needed | {"encounter"})
                layer.refuse("sections", f"no required kind {key!r}; known are {known}.", row, word=key)
    missing = needed - {key for section in sections for key in section.required}
    if missing:
        layer.refuse("sections", f"no section requires {listed(missing)}.")
    slots = ((kind, status, stay) for kind in Kind for status in Status for stay in (True, False))
    for kind, status, of_stay in slots:
        taking = [row for row, section in enumerate(sections) if section.takes(kind, status, of_stay)]
        if len(taking) > 1:
            both = " and ".join(repr(sections[row].key) for row in taking[:2])
            sentence = f"a {kind.value} fact of status '{status}' has two headings, {both}."
            layer.refuse("sections", sentence, taking[1], "kinds")


def _check_keys(layer: _Layer, table: str, keys: Sequence[str]) -> None:
    for row, key in enumerate(keys):
        if key in keys[:row]:
            layer.refuse(table, f"the key {key!r} is given twice.", row, "key")


def _check_kinds(line: _Line) -> None:
    titles, order = line.giver("kind_titles"), line.giver("order")
    unnamed = [kind.value for kind in Kind if kind not in line.table("kind_titles")]
    if unnamed:
        titles.refuse("kind_titles", f"there is no title for {listed(unnamed)}.")
    kinds = line.table("order").kinds
    if len(set(kinds)) < len(kinds):
        order.refuse("order", "a kind is named twice.", key="kinds")
    focus = line.table_or("focus", Focus())
    if (focus.scope is FocusScope.DAYS) is (focus.days == 0):
        line.giver("focus").refuse("focus", "days are given with scope 'days', and only then.", key="days")
    if (focus.scope is FocusScope.NONE) is (focus.share > 0):
        line.giver("focus").refuse("focus", "a scope needs a share, and a share a scope.", key="share")
    for kind in line.table_or("unshown", {}):
        if any(kind in section.kinds for section in line.table("sections")):
            sentence = f"{kind.value} facts are unshown and have a heading."
            line.giver("unshown").refuse("unshown", sentence, key=kind.value)


def _schema(layer: _Layer, max_claims: int) -> dict[str, Any]:
    """Return the answer's grammar with the limit on claims written in."""
    text, place = layer.texts[SCHEMA], f"{layer.place}/{SCHEMA}"
    try:
        schema = json.loads(text)
    except json.JSONDecodeError as error:
        raise TemplateError(place, error.lineno, f"not JSON: {error.msg}.") from None
    _check_grammar(schema, text, place)
    lengths = re.findall(r'"maxLength"\s*:\s*(\S+?)\s*[,}\s]', text)
    for other in (length for length in lengths if length != lengths[0]):
        sentence = f"maxLength is {lengths[0]} elsewhere: one grammar has one, each costs seconds to compile."
        raise TemplateError(place, _json_line(text, "maxLength", other), sentence)
    claims: dict[str, Any] = schema["properties"]["claims"]
    if "maxItems" in claims:
        sentence = "the number of claims is given by max_claims under [limits], not here."
        raise TemplateError(place, _json_line(text, "maxItems", str(claims["maxItems"])), sentence)
    claims["maxItems"] = max_claims
    return dict(schema)


def _check_grammar(schema: Any, text: str, place: str) -> None:
    """Refuse a grammar without the places that are filled in for each patient, or without a longest text."""
    for path, wanted in (("section", dict), ("cites.items", dict), ("text.maxLength", int)):
        keys = ("properties", "claims", "items", "properties", *path.split("."))
        node = schema
        for n, key in enumerate(keys):
            node = node.get(key) if isinstance(node, dict) else None
            if not isinstance(node, wanted if n == len(keys) - 1 else dict):
                line = _json_line(text, keys[n - 1] if n else "")
                raise TemplateError(place, line, f"the grammar lacks {'.'.join(keys)}.")


def _json_line(text: str, key: str, value: str = "") -> int:
    found = re.search(rf'"{re.escape(key)}"\s*:\s*{re.escape(value)}', text)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
