"""What of a summary is stored under its own words: they are read again by later versions."""

from __future__ import annotations

from service.grounding.summary import Origin, Verdict


def test_verdicts_and_origins_are_stored_under_these_words() -> None:
    assert [verdict.value for verdict in Verdict] == [
        "supported", "unsupported", "contradicted", "superseded", "not_checked",
    ]  # fmt: skip
    assert [origin.value for origin in Origin] == ["model", "record"]
