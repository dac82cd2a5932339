"""The sandbox of a template set: what its templates may see, and that they can be rendered at all.

A site's template is data from a file: it runs without I/O, without private attributes, without chance, and
sees only the names of `VARIABLES` and the files of its own set.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from service.context.written import TemplateError

_SOME = {"title": "Problems", "lines": ["[F1] Gout: active"]}
_PATIENT = {"gender": "female", "born": "04-May-1951"}
_NOBODY = {"gender": "", "born": ""}
_PAIR = {"number": 1, "source": '"Gout: active"', "claim": '"Gout is active."'}
_REFUSED = {"text": '"Gout is resolved."', "labels": "[F1]", "reasons": "It gives another status."}
VARIABLES: Mapping[str, tuple[dict[str, Any], ...]] = {
    "system.j2": ({},),
    "evidence.j2": (
        {"patient": _PATIENT, "index": ["x"], "blocks": [_SOME], "focus": [_SOME], "manifest": ["x"]},
        {"patient": _NOBODY, "index": [], "blocks": [], "focus": [], "manifest": []},
    ),
    "task.j2": ({"titles": ["Problems", "Results"]}, {"titles": []}),
    "digest.j2": ({"titles": ["Problems", "Results"]}, {"titles": []}),
    "guided.j2": ({},),
    "section.j2": (_SOME, {"title": "Problems", "lines": []}),
    "entailment.j2": ({"pairs": [_PAIR]}, {"pairs": []}),
    "images.j2": ({"captions": ["[F1] Chest radiograph"]}, {"captions": []}),
    "repair.j2": ({"refused": [_REFUSED], "titles": ["Problems"]}, {"refused": [], "titles": []}),
}
"""Template → what it is given, as a full and an empty example, with which it is tried at start."""

OF_QUESTION: Mapping[str, tuple[dict[str, Any], ...]] = {
    **VARIABLES,
    "task.j2": ({"titles": ["Problems", "Results"], "question": '"Gout?"'}, {"titles": [], "question": '""'}),
}
"""The same for a set whose task is a question."""

TEMPLATES = tuple(VARIABLES)

_REFERENCES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


def open_sandbox(
    sources: Mapping[str, str],
    places: Mapping[str, str],
    variables: Mapping[str, tuple[dict[str, Any], ...]] = VARIABLES,
) -> Environment:
    """Return a sandbox that holds exactly these templates, each parsed, examined and tried.

    `sources` and `places` hold, for each of TEMPLATES, its text and what messages call its file; `variables`,
    what it is given. Raises TemplateError with file and line.
    """
    environment = ImmutableSandboxedEnvironment(
        loader=FunctionLoader(lambda name: (sources[name], places[name], None) if name in sources else None),
        undefined=StrictUndefined,
        autoescape=False,  # the output is a prompt, never a page
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    # The same record gives the same bytes: nothing in a template may be random.
    del environment.globals["lipsum"], environment.filters["random"]
    for name in TEMPLATES:
        _examine(environment, name, sources[name], places[name], variables[name][0])
    for name in TEMPLATES:
        for values in variables[name]:
            _try(environment, name, values, places)
    return environment


def _examine(environment: Environment, name: str, source: str, place: str, given: dict[str, Any]) -> None:
    """Refuse by reading: wrong syntax, names that nobody passes, private attributes, files of elsewhere."""
    try:
        tree = environment.parse(source)
        undeclared = find_undeclared_variables(tree) - set(given)
    except TemplateSyntaxError as error:
        raise TemplateError(place, error.lineno, f"not a template: {error.message}.") from None
    for node in tree.find_all((nodes.Name, nodes.Getattr, nodes.Getitem, *_REFERENCES)):
        sentence = _fault(node, undeclared, name, given)
        if sentence:
            raise TemplateError(place, node.lineno, sentence)


def _fault(node: nodes.Node, undeclared: set[str], name: str, given: dict[str, Any]) -> str:
    if isinstance(node, nodes.Name):
        passed = listed(given) or "nothing"
        return f"nobody passes {node.name!r} to {name}: it gets {passed}." if node.name in undeclared else ""
    if isinstance(node, nodes.Getattr):
        return _private(node.attr) or _missing(node, given)
    if isinstance(node, nodes.Getitem):
        return _private(node.arg.value) if isinstance(node.arg, nodes.Const) else ""
    wanted = getattr(node, "template", None)
    inside = isinstance(wanted, nodes.Const) and wanted.value in TEMPLATES
    return "" if inside else "a template may use only those of its own set, by name."


def _missing(node: nodes.Getattr, passed: Mapping[str, Any]) -> str:
    holder = node.node.name if isinstance(node.node, nodes.Name) else ""
    value = passed.get(holder)
    absent = isinstance(value, dict) and node.attr not in value
    return f"nobody passes {holder}.{node.attr}: there are {listed(value)}." if absent and value else ""


def _private(attribute: object) -> str:
    hidden = isinstance(attribute, str) and attribute.startswith("_")
    return f"a template may not reach for {attribute!r}." if hidden else ""


def _try(environment: Environment, name: str, values: dict[str, Any], places: Mapping[str, str]) -> None:
    """Render once with made-up values, so that what only rendering shows is shown at start."""
    try:
        environment.get_template(name).render(**values)
    except Exception as error:  # whatever a site's template does, it is that template's fault
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in places.values()]
        file, line = (frames[-1].filename, frames[-1].lineno) if frames else (places[name], None)
        raise TemplateError(file, line, f"it cannot be rendered: {error}") from None


def listed(words: Iterable[str]) -> str:
    """Return words in order, with commas, for a message."""
    return ", ".join(sorted(words))
