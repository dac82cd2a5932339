"""Mutants of a package: its source with one small change each, sampled by a seed, never written to disk.

mutmut makes the changes. Its own runner is not used: it changes functions alone, and half of the rules stand
in module-level word lists and patterns; it has no sample; and it keeps every mutant in one rewritten module.
A change of letter case alone, in a pattern that ignores case, leaves the rule as it was (`caseless.py`): such
changes are left out.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import libcst
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import Mutation, MutationVisitor, deep_replace
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

from tests.mutation.caseless import caseless_strings, is_same_but_for_case


@dataclass(frozen=True)
class Mutant:
    """One module with one change."""

    path: str
    """Relative to the project: `service/grounding/check.py`."""
    original: str
    source: str

    @property
    def module(self) -> str:
        """`service.grounding.check`"""
        return self.path.removesuffix(".py").replace("/", ".")

    @cached_property
    def diff(self) -> str:
        """What was taken away and what was put there, line by line."""
        return "\n".join(self._lines[2:])

    @property
    def place(self) -> str:
        """`service/grounding/check.py:123`, the first line that differs."""
        return f"{self.path}:{self._lines[2].split()[1].lstrip('-').partition(',')[0]}"

    @cached_property
    def _lines(self) -> list[str]:
        pair = self.original.splitlines(), self.source.splitlines()
        return list(difflib.unified_diff(*pair, n=0, lineterm=""))


class _Module(NamedTuple):
    """A source file taken apart, and every change that can be made to it."""

    path: str
    source: str
    tree: libcst.Module
    changes: list[Mutation]
    caseless: frozenset[libcst.SimpleString]


def sample(root: Path, package: str, count: int, seed: int) -> list[Mutant]:
    """Return `count` mutants of the package's modules, each module in proportion, the same for the same seed.

    Fewer where there are not so many. Changes that leave no valid Python, or that only change the case of
    letters where case is ignored, are passed over for others.
    """
    modules = [_take_apart(root, path) for path in sorted((root / package).glob("*.py"))]
    shares = apportion([len(module.changes) for module in modules], count)
    chance = random.Random(seed)
    found = [
        mutant
        for module, share in zip(modules, shares, strict=True)
        for mutant in _some(module, share, chance)
    ]
    chance.shuffle(found)
    return found


def apportion(sizes: Sequence[int], count: int) -> list[int]:
    """Share `count` out in proportion to sizes, by largest remainder; no more than there is."""
    total = sum(sizes)
    count = min(count, total)
    exact = [count * size / total if total else 0.0 for size in sizes]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda place: shares[place] - exact[place])
    for place in by_remainder[: count - sum(shares)]:
        shares[place] += 1
    return shares


def _take_apart(root: Path, path: Path) -> _Module:
    source = path.read_text(encoding="utf-8")
    visitor = MutationVisitor(mutation_operators, IgnoredCode(set(), set(), set()))
    tree = MetadataWrapper(libcst.parse_module(source)).visit(visitor)
    return _Module(path.relative_to(root).as_posix(), source, tree, visitor.mutations, caseless_strings(tree))


def _some(module: _Module, count: int, chance: random.Random) -> list[Mutant]:
    found: dict[str, Mutant] = {}
    for change in chance.sample(module.changes, len(module.changes)):
        if len(found) == count:
            break
        if change.original_node in module.caseless and is_same_but_for_case(
            change.original_node, change.mutated_node
        ):
            continue
        source = _changed(module.tree, change)
        if source != module.source and _is_python(source):
            found[source] = Mutant(module.path, module.source, source)
    return list(found.values())


def _changed(tree: libcst.Module, change: Mutation) -> str:
    changed = deep_replace(tree, change.original_node, change.mutated_node)
    assert isinstance(changed, libcst.Module)
    return changed.code


def _is_python(source: str) -> bool:
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True
