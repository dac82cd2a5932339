"""Which runs are reviewed, and why: shares and limits from a file, draws that come out the same each time.

A draw is a keyed hash of the run's id: whoever has the key can repeat it, and nobody without it can tell
which run will be looked at.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

from service.errors import SettingsError
from service.ports.reviews import QueueEntry, Rule
from service.ports.runs import RunId, StoredRun
from service.review.figures import coverage_of, support_of

KeyedHash = Callable[[str, str], str]
"""(purpose, value) → 64 hexadecimal digits."""
_DIGITS: Final = 13
"""Hexadecimal digits of a draw: 52 bits, which a float holds exactly."""
_ADVICE: Final = "See ops/review.toml for what it may say."


@dataclass(frozen=True, slots=True)
class Sampling:
    """How much is reviewed at this site. Shares are 0…1; `ops/review.toml` says the same as the defaults."""

    random_share: float = 0.05
    low_coverage: float = 0.3
    """Reviewed where statements cite less of what the model was given."""
    low_support: float = 0.8
    """Reviewed where less of the model's own statements was let through."""
    first_of_version: int = 20
    """So many runs of each new model and prompt version are reviewed."""
    two_reviewers_share: float = 0.1
    """Of the reviewed runs, those that two reviewers are to look at."""
    seeded_share: float = 0.2
    """Of the reviews, those in which an error is planted."""
    wards: Mapping[str, float] = field(default_factory=dict)
    """Share of the runs of a ward, by its name as the record has it."""


def read_sampling(text: str) -> Sampling:
    """Return what a file says; what it leaves out is as by default. Raises SettingsError."""
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise SettingsError("The file of review rules is not valid TOML.", _ADVICE) from None
    unknown = sorted(set(said) - {one.name for one in fields(Sampling)})
    if unknown:
        raise SettingsError(f"The file of review rules says something unknown: {unknown[0]}.", _ADVICE)
    wards = said.pop("wards", {})
    if not isinstance(wards, dict):
        raise SettingsError("In the file of review rules, wards is no table.", _ADVICE)
    first = said.pop("first_of_version", Sampling().first_of_version)
    if type(first) is not int or first < 0:
        raise SettingsError("In the file of review rules, first_of_version is no count.", _ADVICE)
    shares = {name: _share(name, value) for name, value in said.items()}
    of_wards = {name.casefold(): _share(name, value) for name, value in wards.items()}
    return Sampling(**shares, first_of_version=first, wards=of_wards)


def draw(keyed_hash: KeyedHash, purpose: str, value: str) -> float:
    """Return a number from 0 up to 1 that is always the same for a purpose and value."""
    return int(keyed_hash(f"review {purpose}", value)[:_DIGITS], 16) / 16**_DIGITS


def choose(
    run: StoredRun,
    place: int,
    wards: Sequence[str],
    sampling: Sampling,
    keyed_hash: KeyedHash,
    at: datetime,
) -> QueueEntry | None:
    """Return the entry of a run that is to be reviewed, or None. Of several rules the first one counts.

    `place`: which run of its model and prompt version it is, from 1; 0 for a late one. `wards`: where its
    stay is.
    """
    found = _rule_of(run, place, wards, sampling, keyed_hash)
    if found is None:
        return None
    rule, why = found
    return entry_for(run, rule, why, sampling, keyed_hash, at)


def entry_for(
    run: StoredRun,
    rule: Rule,
    why: str,
    sampling: Sampling,
    keyed_hash: KeyedHash,
    at: datetime,
    wanted: int = 1,
) -> QueueEntry:
    """Return the entry of a run under a rule, for two reviewers where they are wanted or drawn."""
    is_double = draw(keyed_hash, "two reviewers", run.run_id) < sampling.two_reviewers_share
    return QueueEntry(run.run_id, rule, why, at, run.inputs.patient, wanted=2 if is_double else wanted)


def is_seeded(run_id: RunId, reviewer: str, sampling: Sampling, keyed_hash: KeyedHash) -> bool:
    """Tell whether an error is planted into one reviewer's review of a run."""
    return draw(keyed_hash, "seeded", f"{run_id} {reviewer}") < sampling.seeded_share


def _rule_of(
    run: StoredRun, place: int, wards: Sequence[str], sampling: Sampling, keyed_hash: KeyedHash
) -> tuple[Rule, str] | None:
    support, coverage = support_of(run.summary), coverage_of(run.summary)
    if 0 < place <= sampling.first_of_version:
        first = f"the first {sampling.first_of_version} are reviewed"
        return Rule.FIRST_OF_VERSION, f"Run {place} of this model and prompt version; {first}."
    if support.is_under(sampling.low_support):
        why = f"{support.whole - support.part} of the model's {support.whole} statements were refused."
        return Rule.LOW_SUPPORT, why
    if coverage.is_under(sampling.low_coverage):
        why = f"Statements cite {coverage.part} of the {coverage.whole} entries that the model was given."
        return Rule.LOW_COVERAGE, why
    for ward in wards:
        if draw(keyed_hash, "ward", run.run_id) < sampling.wards.get(ward.casefold(), 0):
            return Rule.WARD, f"Drawn from those of {ward}."
    if draw(keyed_hash, "random", run.run_id) < sampling.random_share:
        return Rule.RANDOM, "Drawn at random."
    return None


def _share(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SettingsError(f"In the file of review rules, {name} is no share from 0 to 1.", _ADVICE)
    return float(value)
