"""Trends and alarms as JSON. Keys may be added; none is renamed or removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from service.quality.drift import Watched
from service.quality.trends import KINDS, Series, Trends


def trends_shape(trends: Trends, watched: Watched) -> dict[str, Any]:
    """Return what `epicrisis quality --json` prints."""
    return {
        "weeks": trends.weeks,
        "alarms": [
            {"measure": one.kind.key, **_named(one.series), "p": one.p, "sentence": one.sentence}
            for one in watched.alarms
        ],
        "comparisons": watched.compared,
        "too_few_to_compare": [kind.key for kind in watched.thin],
        "series": [_series_shape(trends, one) for one in trends.series],
    }


def _named(series: Series) -> Mapping[str, str]:
    return {"model": series.model, "model_digest": series.model_digest, "prompt": series.prompt}


def _series_shape(trends: Trends, series: Series) -> dict[str, Any]:
    return {
        **_named(series),
        "runs": trends.runs[series],
        "measures": {
            kind.key: [
                {"week": week, **asdict(found)}
                for week in trends.weeks
                if (found := trends.estimate(kind.key, series, week)) is not None
            ]
            for kind in KINDS
        },
    }
