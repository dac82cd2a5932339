"""`epicrisis replay`: a stored run rebuilt from what it was made of, and verified again.

Exit code 0: the same prompts, byte for byte, and the same verdicts. 20: something came out otherwise. 21: it
cannot be replayed. Without `--show` nothing of a patient is printed.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterator
from typing import Annotated

import typer

from service.errors import SettingsError
from service.ports import RunId
from service.replay import Generated, Place, Replay, Verdicts, shape_of
from service.settings import Settings
from service.terminal import Steps, print_json, print_table, stdout
from service.wiring.replay import open_replaying

ACTOR = "system:cli"
DIFFERS, NOT_REPLAYABLE = 20, 21


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(replay)


def replay(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run's id; `epicrisis runs` lists them.")],
    generate: Annotated[
        bool, typer.Option("--generate", help="Ask the configured engine again, and show the difference.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Show what differs, in the patient's own words.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
    ] = False,
) -> None:
    """Rebuild a run's prompts and verify its answers again: the same (exit 0), or what differs (20)."""
    found = asyncio.run(_replay(context.obj, run, generate))
    print_json(shape_of(found)) if as_json else _tell(found, show)
    if not found.is_replayable:
        raise typer.Exit(NOT_REPLAYABLE)
    if not found.is_identical or (found.generated is not None and not _same(found.generated)):
        raise typer.Exit(DIFFERS)


async def _replay(settings: Settings, run: str, generate: bool) -> Replay:
    with Steps() as steps, steps.step("Replaying") as step:

        def tell(stage: str, detail: str) -> None:
            step.detail(f"{stage} {detail}".strip())

        async with open_replaying(settings, generate=generate, tell=tell) as replaying:
            found = await replaying.replay(RunId(run), ACTOR)
    if found is None:
        raise SettingsError("There is no such run.", "`epicrisis runs` lists them.")
    return found


def _same(generated: Generated) -> bool:
    return all(answer.identical for answer in generated.answers) and generated.verdicts.identical


def _tell(found: Replay, show: bool) -> None:
    if found.reason:
        stdout.print(f"It cannot be replayed. {found.reason}")
    elif found.is_identical:
        stdout.print(f"Identical: {len(found.prompts)} prompts byte for byte, and every verdict.")
    if found.versions:
        rows: list[tuple[str, ...]] = [(one.what, one.then, one.now) for one in found.versions]
        print_table("Of another version now", ("what", "then", "now"), rows)
    other = [(n, one) for n, one in enumerate(found.prompts, 1) if not one.identical]
    if other and found.is_replayable:
        print_table(
            f"{len(other)} of {len(found.prompts)} prompts differ",
            ("#prompt", "stored", "rebuilt", "differs first"),
            [(str(n), p.stored[:12], p.rebuilt[:12], _where(p.differs_at)) for n, p in other],
        )
    if found.verdicts is not None:
        _tell_verdicts("claims came out otherwise", found.verdicts)
    if found.generated is not None:
        _tell_generated(found.generated)
    if show:
        for line in _differences(found):
            stdout.print(line, markup=False, soft_wrap=True)


def _tell_verdicts(title: str, verdicts: Verdicts) -> None:
    if verdicts.changed:
        rows: list[tuple[str, ...]] = [(str(one.ordinal), one.then, one.now) for one in verdicts.changed]
        print_table(f"{len(rows)} {title}", ("#claim", "then", "now"), rows)
    if verdicts.rest:
        stdout.print(f"Of the summary these came out otherwise too: {', '.join(verdicts.rest)}.")


def _tell_generated(generated: Generated) -> None:
    same = sum(answer.identical for answer in generated.answers)
    stdout.print(
        f"{generated.model} gave {same} of {len(generated.answers)} answers as they are stored; "
        f"{generated.published_now} statements would be published, {generated.published_then} were."
    )
    other = [(n, one) for n, one in enumerate(generated.answers, 1) if not one.identical]
    if other:
        print_table(
            "Answers that differ",
            ("#answer", "#characters then", "#now", "differs first"),
            [(str(n), str(a.characters_then), str(a.characters_now), _where(a.differs_at)) for n, a in other],
        )
    _tell_verdicts("claims are not those that are stored", generated.verdicts)


def _where(place: Place | None) -> str:
    if place is None:
        return "it is there on one side alone"
    if place.what != "text":
        return place.what
    return f"turn {place.turn}, line {place.line}, character {place.character}"


def _differences(found: Replay) -> Iterator[str]:
    for number, one in enumerate(found.prompts, 1):
        if not one.identical and one.then is not None and one.now is not None:
            before, after = ("\n\n".join(turn.content for turn in p.messages) for p in (one.then, one.now))
            yield from _unified(f"prompt {number}", before, after)
    for number, answer in enumerate(found.generated.answers if found.generated else (), 1):
        if not answer.identical:
            yield from _unified(f"answer {number}", answer.then, answer.now)


def _unified(name: str, then: str, now: str) -> Iterator[str]:
    return difflib.unified_diff(
        then.splitlines(), now.splitlines(), f"{name} then", f"{name} now", lineterm=""
    )
