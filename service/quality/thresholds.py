"""When quality has changed, and what must be reached: `ops/quality.toml`, or the same values built in."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from service.errors import SettingsError

_ADVICE = "See ops/quality.toml."


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftLimits:
    """When a change over time is told."""

    recent_weeks: int = 2
    baseline_weeks: int = 8
    alpha: float = 0.01
    least_things: int = 50
    """Things counted on either side below which nothing is said."""
    least_change: float = 0.03
    """Of a share; the runs of a night are thousands, and thousands make any difference certain."""
    slower: float = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """What an evaluation must reach before a schedule may use the model with the prompt."""

    least_charts: int = 3
    most_failed: int = 0
    support_low: float = 0.95
    coverage: float = 1.0
    told_low: float = 0.0
    contradicted_high: float = 0.02
    most_fabricated: int = 0
    max_age_days: int = 365


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """A site's limits."""

    drift: DriftLimits = field(default_factory=DriftLimits)
    gate: GateLimits = field(default_factory=GateLimits)


def read_thresholds(path: Path | None) -> Thresholds:
    """Return a site's limits; without a file those built in. Raises SettingsError that says what is wrong."""
    if path is None:
        return Thresholds()
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise SettingsError("The file of EPICRISIS_QUALITY cannot be read.", _ADVICE) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The file of EPICRISIS_QUALITY is not TOML: {error}.", _ADVICE) from None
    try:
        _refuse_unknown(given)
        limits = msgspec.convert(given, Thresholds)
    except (msgspec.ValidationError, ValueError) as error:
        raise SettingsError(f"EPICRISIS_QUALITY cannot be used: {error}.", _ADVICE) from None
    _check(limits)
    return limits


def _refuse_unknown(given: dict[str, object]) -> None:
    """A limit with a misspelt name would silently not hold."""
    known = {"drift": DriftLimits.__slots__, "gate": GateLimits.__slots__}
    for table, keys in given.items():
        if table not in known or not isinstance(keys, dict):
            raise ValueError(f"there is no table [{table}]")
        if strange := set(keys) - set(known[table]):
            raise ValueError(f"[{table}] knows no {min(strange)}")


def _check(limits: Thresholds) -> None:
    drift, gate = limits.drift, limits.gate
    shares = {
        "alpha": drift.alpha, "least_change": drift.least_change, "support_low": gate.support_low,
        "coverage": gate.coverage, "told_low": gate.told_low, "contradicted_high": gate.contradicted_high,
    }  # fmt: skip
    least = {
        "recent_weeks": drift.recent_weeks - 1, "baseline_weeks": drift.baseline_weeks - 1,
        "least_things": drift.least_things - 1, "slower": drift.slower - 1,
        "least_charts": gate.least_charts - 1, "most_failed": gate.most_failed,
        "most_fabricated": gate.most_fabricated, "max_age_days": gate.max_age_days - 1,
    }  # fmt: skip
    wrong = [name for name, value in shares.items() if not 0 <= value <= 1]
    wrong += [name for name, value in least.items() if value < 0]
    if wrong:
        raise SettingsError(f"EPICRISIS_QUALITY cannot be used: {wrong[0]} is out of range.", _ADVICE)
