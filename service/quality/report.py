"""What an evaluation came to, as JSON of numbers: each arm by itself, and both on the same charts.

Nothing of a chart is in it, nor which patients it was made of: it may be shown to whoever decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from service.grounding.reasons import reason_of
from service.ports.quality import Counts, Evaluation, Identity, Shadow
from service.quality.count import OTHER
from service.quality.evaluate import Arm
from service.quality.gate import check_arm
from service.quality.statistics import (
    Estimate,
    clustered_share,
    mcnemar,
    middle,
    paired_difference,
    ratio,
    share,
)
from service.quality.thresholds import GateLimits

Part = Callable[[Counts], tuple[float, float]]
"""A measure of one chart: how many, of how many."""

SHARES: Final[Mapping[str, tuple[str, Callable[[Counts], tuple[int, int]]]]] = {
    "support": ("Support", lambda one: (one.supported, one.claims)),
    "contradicted": ("Contradicted", lambda one: (one.contradicted, one.claims)),
    "told": ("Told by the model", lambda one: (one.told, one.told + one.added + one.missing)),
    "coverage": ("Coverage", lambda one: (one.told + one.added, one.told + one.added + one.missing)),
}
"""Of statements and facts, which come in charts."""
MEANS: Final[Mapping[str, tuple[str, Part]]] = {
    "length": ("Characters a summary", lambda one: (one.characters, 1)),
    "prompt_tokens": ("Tokens read a summary", lambda one: (one.prompt_tokens, 1)),
    "completion_tokens": ("Tokens written a summary", lambda one: (one.completion_tokens, 1)),
}
WORDS: Final[Mapping[str, str]] = {
    "support": "share of the model's statements that the rules bore out",
    "contradicted": "share of the model's statements that their sources contradict",
    "told": "share of the required facts that the model told itself",
    "coverage": "share of the required facts that the summary tells, by the model or by code",
    "complete": "share of the summaries that lack no required fact",
    "length": "mean, characters of published text",
    "prompt_tokens": "mean, tokens that the model read",
    "completion_tokens": "mean, tokens that the model wrote",
    "latency": "median seconds to the checked summary",
}


def build_report(
    evaluation: Evaluation, kind: str, arms: Sequence[Arm], limits: GateLimits, at: datetime
) -> dict[str, Any]:
    """Return the whole report. With two arms they are compared on the charts that both read alike."""
    identities = [evaluation.identity, *([evaluation.against] if evaluation.against is not None else [])]
    report: dict[str, Any] = {
        "evaluation": evaluation.id,
        "began_at": evaluation.began_at.isoformat(),
        "ended_at": at.isoformat(),
        "kind": kind,
        "charts": evaluation.charts,
        "arms": [_arm(who, arm, limits) for who, arm in zip(identities, arms, strict=True)],
    }
    if len(arms) > 1:
        report["paired"] = _paired(arms[0], arms[1])
    return report


def _arm(identity: Identity, arm: Arm, limits: GateLimits) -> dict[str, Any]:
    counts = [one.counts for one in arm.shadows.values()]
    told: dict[str, Any] = {
        "identity": asdict(identity),
        "charts": len(counts),
        "failed": dict(sorted(arm.failed.items())),
        "measures": _measures(counts),
        "fabricated": sum(one.fabricated for one in counts),
        "claims": sum(one.claims for one in counts),
        "missing": sum(one.missing for one in counts),
        "refused": [
            {"reason": code, "count": count, "words": words_of(code)}
            for code, count in sum((Counter(one.refused) for one in counts), Counter()).most_common()
        ],
    }
    checks = check_arm(told, limits)
    told["gate"] = {
        "is_passed": all(check.is_passed for check in checks),
        "checks": [asdict(check) for check in checks],
    }
    return told


def _measures(counts: Sequence[Counts]) -> dict[str, Any]:
    found: dict[str, Estimate | None] = {
        key: clustered_share([part(one) for one in counts]) for key, (_, part) in SHARES.items()
    }
    found["complete"] = share(sum(one.missing == 0 for one in counts), len(counts))
    found |= {key: ratio([part(one) for one in counts]) for key, (_, part) in MEANS.items()}
    found["latency"] = middle([one.seconds for one in counts if one.seconds])
    return {key: asdict(one) for key, one in found.items() if one is not None}


def _paired(one: Arm, other: Arm) -> dict[str, Any]:
    """Compare two arms on the charts that both read in the same state."""
    both = [
        (one.shadows[patient], other.shadows[patient])
        for patient in sorted(one.shadows.keys() & other.shadows.keys())
        if _is_same_chart(one.shadows[patient], other.shadows[patient])
    ]
    common = len(one.shadows.keys() & other.shadows.keys())
    return {
        "charts": len(both),
        "changed_meanwhile": common - len(both),
        "differences": _differences(both),
        "facts": _facts(both),
    }


def _differences(both: Sequence[tuple[Shadow, Shadow]]) -> dict[str, Any]:
    parts: dict[str, Part] = {key: part for key, (_, part) in (*SHARES.items(), *MEANS.items())}
    parts["latency"] = lambda one: (one.seconds, 1)
    found = {
        key: paired_difference([part(a.counts) for a, _ in both], [part(b.counts) for _, b in both])
        for key, part in parts.items()
    }
    return {key: asdict(difference) for key, difference in found.items() if difference is not None}


def _facts(both: Sequence[tuple[Shadow, Shadow]]) -> dict[str, Any]:
    """Count the required facts that one model told and the other did not, and test that (McNemar, exact)."""
    first = sum(len((a.told - b.told) & a.required & b.required) for a, b in both)
    second = sum(len((b.told - a.told) & a.required & b.required) for a, b in both)
    return {
        "told_by_both": sum(len(a.told & b.told) for a, b in both),
        "told_by_first_alone": first,
        "told_by_second_alone": second,
        "p": mcnemar(first, second),
    }


def _is_same_chart(one: Shadow, other: Shadow) -> bool:
    return one.run.inputs.record_digest == other.run.inputs.record_digest


def words_of(code: str) -> str:
    """Return what a reason for refusing a statement means."""
    return "For another reason." if code == OTHER else reason_of(code).detail
