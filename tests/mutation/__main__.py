"""`make mutate`: the grounding rules changed in one place at a time, and which changes no test noticed.

Options (`make mutate MUTATE_ARGS="--count 30"`): see `--help`. The tests run in a copy of the project, so
that the tree may be worked on meanwhile. Tables and survivors go to stdout and to `bench-results/`.
"""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.table import Row, Table, at_least, document, percent, write
from tests.mutation.mutants import Mutant, sample
from tests.mutation.worker import SURVIVED, TIMEOUT

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "service/grounding"
PROTECTING = (
    "tests/unit/grounding/test_*.py", "tests/claims/test_turned.py", "tests/unit/test_summarize.py",
)  # fmt: skip
"""The tests that hold the rules, the quick ones first: a run ends with the first that fails."""
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", ".epicrisis", ".hypothesis", "*_cache", "__pycache__", "node_modules", "bench-results"
)
TARGET = 0.95


class Judged(NamedTuple):
    """A mutant and what the tests made of it."""

    mutant: Mutant
    verdict: str
    seconds: float


def main() -> None:
    """Sample, judge and tell; what was judged before an interruption is told all the same."""
    wanted = _options()
    started = time.monotonic()
    judged: list[Judged] = []
    with copy_of_the_project() as copy:
        files = [str(path.relative_to(copy)) for pattern in PROTECTING for path in sorted(copy.glob(pattern))]
        try:
            run(copy, files, sample(copy, PACKAGE, wanted.count, wanted.seed), wanted, judged)
        finally:
            page = document(tables(judged, wanted.seed), time.monotonic() - started)
            page += "".join(survivors(judged))
            write(page)
    sys.stdout.write(page)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="how many mutants (300)")
    parser.add_argument("--seed", type=int, default=5, help="which ones: the same seed takes the same (5)")
    parser.add_argument("--processes", type=int, default=2, help="how many at once (2)")
    parser.add_argument(
        "--timeout", type=int, default=0, help="seconds for one (thrice the unchanged code's, and 30)"
    )
    return parser.parse_args()


@contextmanager
def copy_of_the_project() -> Iterator[Path]:
    """Yield a copy of the project beside the shared data, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        shared = ROOT.parent / "shared"
        if shared.is_dir():
            (Path(folder) / "shared").symlink_to(shared)
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
        yield copy


def run(
    copy: Path,
    files: Sequence[str],
    mutants: Sequence[Mutant],
    wanted: argparse.Namespace,
    judged: list[Judged],
) -> None:
    """Judge all mutants, several at once, adding to `judged`.

    Refuses where the tests are not green on the unchanged code.
    """
    with worker(copy, files, wanted.timeout or 600) as ask:
        unchanged = ask({})
    if unchanged["verdict"] != SURVIVED:
        raise SystemExit(f"The tests are not green on the unchanged code:\n{unchanged['said']}")
    timeout_s = wanted.timeout or int(30 + 3 * unchanged["seconds"])
    _say(f"green on the unchanged code in {unchanged['seconds']:.0f} s; {timeout_s} s for one mutant")
    waiting: queue.SimpleQueue[Mutant | None] = queue.SimpleQueue()
    for mutant in (*mutants, *[None] * wanted.processes):
        waiting.put(mutant)

    def work() -> None:
        with worker(copy, files, timeout_s) as ask:
            while (mutant := waiting.get()) is not None:
                answer = ask({"module": mutant.module, "path": mutant.path, "source": mutant.source})
                judged.append(Judged(mutant, answer["verdict"], answer["seconds"]))
                _tell(judged, len(mutants))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(wanted.processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(judged) < len(mutants):
        raise SystemExit("A worker ended before its time: what follows is not all.")


@contextmanager
def worker(copy: Path, files: Sequence[str], timeout_s: int) -> Iterator[Any]:
    """Yield a function that has one change judged by a process of its own in the copy."""
    command = [sys.executable, "-m", "tests.mutation.worker", str(timeout_s), *files]
    with subprocess.Popen(
        command, cwd=copy, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdin
        assert process.stdout
        orders, answers = process.stdin, process.stdout

        def ask(order: dict[str, str]) -> Any:
            orders.write(json.dumps(order) + "\n")
            orders.flush()
            line = answers.readline()
            if not line:
                raise SystemExit("A worker ended before its time.")
            return json.loads(line)

        yield ask
        orders.close()


def tables(judged: Sequence[Judged], seed: int) -> list[Table]:
    """Return how many mutants of each module were noticed."""
    columns = ("module", "", "mutants", "killed", "timed out", "survived", "noticed", "target")
    table = Table(f"Mutants of {PACKAGE}", columns)
    for path in sorted({one.mutant.path for one in judged}):
        table.rows.append(_row(path, [one for one in judged if one.mutant.path == path]))
    if judged:
        table.rows.append(_row("all", judged))
    table.remarks.append(
        f"Seed {seed}; one change each, in proportion to what can be changed in a module. A change that "
        "makes the tests run on without end counts as noticed."
    )
    return [table]


def _row(name: str, judged: Sequence[Judged]) -> Row:
    found = Counter(one.verdict for one in judged)
    share = 1 - found[SURVIVED] / len(judged)
    killed = len(judged) - found[SURVIVED] - found[TIMEOUT]
    target = at_least(share, TARGET, percent(TARGET)) if name == "all" else ""
    counts = (len(judged), killed, found[TIMEOUT], found[SURVIVED])
    return name, "", *(str(count) for count in counts), percent(share), target


def survivors(judged: Sequence[Judged]) -> Iterator[str]:
    """Yield each change that no test noticed, with its place."""
    found = sorted((one.mutant for one in judged if one.verdict == SURVIVED), key=lambda mutant: mutant.place)
    yield f"\n## Survivors: {len(found)}\n"
    for mutant in found:
        yield f"\n{mutant.place}\n```diff\n{mutant.diff}\n```\n"


def _tell(judged: Sequence[Judged], total: int) -> None:
    one = judged[-1]
    survived = sum(other.verdict == SURVIVED for other in judged)
    done = f"{len(judged)}/{total}, {survived} survived"
    _say(f"{done}: {one.verdict} {one.mutant.place} in {one.seconds:.0f} s")


def _say(text: str) -> None:
    sys.stderr.write(f"[mutate] {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
