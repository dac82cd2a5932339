"""The release gate: what an evaluation must have reached before a schedule may use a model with a prompt.

The limits are looked at when something is scheduled, and not when it was evaluated: a site that raises them
has not released what it evaluated before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec

from service.engine.prompt import EngineInfo, Profile
from service.grounding.summary import RULES_VERSION
from service.ports.quality import Evaluation, Identity
from service.quality.thresholds import GateLimits

_UNSHAPING = frozenset({"name", "tokenizer", "context_tokens"})
"""Of a profile: what shapes no request. Which window is really served is a matter of the engine's machine."""


@dataclass(frozen=True, slots=True)
class Check:
    """One limit, and what was found."""

    name: str
    wanted: str
    found: str
    is_passed: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a model with a prompt stands at the gate."""

    identity: Identity
    is_released: bool
    evaluation: Evaluation | None = None
    """The newest that is about it, passed or not; None where it was never evaluated."""
    failed: tuple[Check, ...] = ()

    @property
    def why(self) -> str:
        """Say why it is not released."""
        if self.evaluation is None:
            return "it was never evaluated"
        return "; ".join(f"{one.name} is {one.found}, wanted {one.wanted}" for one in self.failed)


def identify(info: EngineInfo, prompt: str, template_digest: str) -> Identity:
    """Return what an evaluation of this engine with this prompt is about."""
    profile = info.profile
    return Identity(
        model=info.model,
        model_digest=info.digest,
        prompt=prompt,
        template_digest=template_digest,
        rules_version=RULES_VERSION,
        profile=f"{profile.name}/{_profile_digest(profile)}",
    )


def _profile_digest(profile: Profile) -> str:
    shaping = {name: value for name, value in asdict(profile).items() if name not in _UNSHAPING}
    return sha256(msgspec.json.encode(shaping, order="sorted")).hexdigest()[:16]


def stand_at_gate(
    identity: Identity, evaluations: Iterable[Evaluation], limits: GateLimits, now: datetime
) -> Standing:
    """Return whether the newest evaluation of a model with a prompt lets it through."""
    ended = [one for one in evaluations if one.ended_at is not None and _arm_of(one, identity) is not None]
    if not ended:
        return Standing(identity, False)
    newest = max(ended, key=lambda one: (one.ended_at, one.id))
    checks = [*check_arm(_arm_of(newest, identity) or {}, limits), _age(newest, limits, now)]
    failed = tuple(check for check in checks if not check.is_passed)
    return Standing(identity, not failed, newest, failed)


def check_arm(arm: Mapping[str, Any], limits: GateLimits) -> tuple[Check, ...]:
    """Compare what an evaluation says of one arm with the limits. What it does not say is not passed."""
    measures, failed = arm.get("measures", {}), sum(arm.get("failed", {}).values())
    charts = arm.get("charts", 0)
    return (
        Check("charts", f"at least {limits.least_charts}", str(charts), charts >= limits.least_charts),
        Check("failed charts", f"at most {limits.most_failed}", str(failed), failed <= limits.most_failed),
        _at_least("support", "low", limits.support_low, measures),
        _at_least("coverage", "value", limits.coverage, measures),
        _at_least("told", "low", limits.told_low, measures),
        _at_most_share(limits.contradicted_high, measures),
        _at_most_count(limits.most_fabricated, arm),
    )


def _at_least(key: str, bound: str, limit: float, measures: Mapping[str, Any]) -> Check:
    name = f"{key}, lower bound" if bound == "low" else key
    found = (measures.get(key) or {}).get(bound)
    if found is None:  # nothing was counted: a limit of 0 asks for nothing
        return Check(name, f"at least {limit:g}", "not known", limit == 0)
    return Check(name, f"at least {limit:g}", f"{found:.3f}", found >= limit)


def _at_most_share(limit: float, measures: Mapping[str, Any]) -> Check:
    found = (measures.get("contradicted") or {}).get("high")
    shown = "not known" if found is None else f"{found:.3f}"
    return Check(
        "contradicted, upper bound",
        f"at most {limit:g}",
        shown,
        limit == 1 if found is None else found <= limit,
    )


def _at_most_count(limit: int, arm: Mapping[str, Any]) -> Check:
    found = arm.get("fabricated")
    shown = "not known" if found is None else str(found)
    return Check("fabricated core facts", f"at most {limit}", shown, found is not None and found <= limit)


def _age(evaluation: Evaluation, limits: GateLimits, now: datetime) -> Check:
    ended = evaluation.ended_at
    days = (now - ended).days if ended is not None else 0
    is_fresh = ended is not None and now - ended <= timedelta(days=limits.max_age_days)
    return Check("age in days", f"at most {limits.max_age_days}", str(days), is_fresh)


def _arm_of(evaluation: Evaluation, identity: Identity) -> Mapping[str, Any] | None:
    """Return what an evaluation says of a model with a prompt, whichever arm it was."""
    arms: Sequence[Mapping[str, Any]] = evaluation.report.get("arms", ())
    for about, arm in zip((evaluation.identity, evaluation.against), arms, strict=False):
        if about is not None and about.is_same(identity):
            return arm
    return None
