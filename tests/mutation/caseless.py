"""Which strings of a module are patterns, or parts of patterns, that are matched without regard to case.

Told by the source alone: the pattern of a call of `re` with IGNORECASE, or of a function of the module that
hands its argument to one; and a private constant that is used in such patterns and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst
from libcst import matchers

_IGNORES_CASE = matchers.Attribute(matchers.Name("re"), matchers.Name("I") | matchers.Name("IGNORECASE"))
_OF_RE = matchers.Attribute(matchers.Name("re"))
_ESCAPE_OR_GROUP = re.compile(r"\\.|\(\?(?:P[<=]\w+|[A-Za-z]+[:)-])", re.DOTALL)
"""What has another meaning in another case: `\\s` and `\\S`, `(?P<name>` and `(?i:`."""


def caseless_strings(tree: libcst.Module) -> frozenset[libcst.SimpleString]:
    """Return the string literals of a module whose case no match depends on, by identity."""
    patterns = list(_patterns(tree))
    names = [node for node in matchers.findall(tree, matchers.Name()) if isinstance(node, libcst.Name)]
    constants = dict(_private_constants(tree))
    found = [part for pattern in patterns for part in _parts(pattern)]
    while True:
        used = {id(part) for part in found}
        alone = [
            name
            for name, (target, _) in constants.items()
            if all(id(node) in used for node in names if node.value == name and node is not target)
        ]
        if not alone:
            return frozenset(part for part in found if isinstance(part, libcst.SimpleString))
        for name in alone:
            found += _parts(constants.pop(name)[1])


def is_same_but_for_case(original: libcst.CSTNode, changed: libcst.CSTNode) -> bool:
    """Say whether two strings of a pattern differ in the case of letters alone, which are to be matched."""
    if not isinstance(original, libcst.SimpleString) or not isinstance(changed, libcst.SimpleString):
        return False
    one, other = original.value, changed.value
    return one.casefold() == other.casefold() and _ESCAPE_OR_GROUP.findall(one) == _ESCAPE_OR_GROUP.findall(
        other
    )


def _patterns(tree: libcst.Module) -> Iterator[libcst.BaseExpression]:
    """Yield the expression of each pattern that is compiled or searched for with IGNORECASE."""
    takers: set[str] = set()
    for function in tree.body:
        if isinstance(function, libcst.FunctionDef) and function.params.params:
            own = function.params.params[0].name.value
            parts = [part for pattern in _given_to_re(function) for part in _parts(pattern)]
            if any(isinstance(part, libcst.Name) and part.value == own for part in parts):
                takers.add(function.name.value)
    yield from _given_to_re(tree)
    for call in matchers.findall(tree, matchers.Call(func=matchers.Name())):
        if isinstance(call, libcst.Call) and isinstance(call.func, libcst.Name) and call.func.value in takers:
            yield from (argument.value for argument in call.args[:1])


def _given_to_re(tree: libcst.CSTNode) -> Iterator[libcst.BaseExpression]:
    for call in matchers.findall(tree, matchers.Call(func=_OF_RE)):
        if isinstance(call, libcst.Call) and any(matchers.findall(a, _IGNORES_CASE) for a in call.args[1:]):
            yield call.args[0].value


def _parts(node: libcst.BaseExpression) -> list[libcst.CSTNode]:
    """Return the literals and names that a string is put together from; what a call makes of them is left."""
    match node:
        case libcst.SimpleString() | libcst.Name():
            return [node]
        case libcst.ConcatenatedString():
            return [*_parts(node.left), *_parts(node.right)]
        case libcst.FormattedString():
            inner = [
                part.expression for part in node.parts if isinstance(part, libcst.FormattedStringExpression)
            ]
            return [found for part in inner for found in _parts(part)]
        case _:
            return []


def _private_constants(
    tree: libcst.Module,
) -> Iterator[tuple[str, tuple[libcst.Name, libcst.BaseExpression]]]:
    for line in tree.body:
        for statement in line.body if isinstance(line, libcst.SimpleStatementLine) else ():
            if isinstance(statement, libcst.Assign) and len(statement.targets) == 1:
                target = statement.targets[0].target
                if isinstance(target, libcst.Name) and target.value.startswith("_"):
                    yield target.value, (target, statement.value)
