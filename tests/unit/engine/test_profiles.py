"""Which profile a model gets."""

from __future__ import annotations

import re

import pytest

from service.engine.profiles import PROFILES, profile_for
from service.errors import SettingsError


@pytest.mark.parametrize(
    ("model", "profile", "mode"),
    [
        ("google/medgemma-4b-it", "medgemma-4b", "free"),
        ("google/medgemma-1.5-4b-it", "medgemma-1.5-4b", "free"),
        ("/models/MedGemma-27B-text-it", "medgemma-27b", "free"),
        ("/hub/models--google--medgemma-27b-it/snapshots/0a1b2c", "medgemma-27b", "free"),
        ("smollm2-135m-instruct", "smollm2-135m", "guided"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m", "guided"),
        ("gemma3-270m", "gemma3-270m", "guided"),
        ("google/gemma-3-270m", "gemma3-270m", "guided"),
        ("scripted", "scripted", "free"),
        ("somebody/unscripted-7b", "default", "guided"),
        ("somebody/unheard-of-7b", "default", "guided"),
        ("/srv/medgemma-4b/../qwen", "medgemma-4b", "free"),
        ("", "default", "guided"),
    ],
)
def test_a_model_gets_its_family_s_profile(model: str, profile: str, mode: str) -> None:
    found = profile_for(model)
    assert (found.name, found.mode) == (profile, mode)


def test_the_nearest_folder_decides() -> None:
    assert profile_for("/models/medgemma-4b/smollm2-135m-instruct").name == "smollm2-135m"


def test_a_named_profile_overrides_and_an_unknown_one_is_refused_with_the_choice() -> None:
    assert profile_for("somebody/unheard-of-7b", "medgemma-27b").name == "medgemma-27b"
    with pytest.raises(SettingsError) as caught:
        profile_for("medgemma", "medgemma-1b")
    assert "medgemma-4b" in caught.value.advice


def test_medgemma_wants_the_system_text_in_the_first_user_turn() -> None:
    assert {p.name for p in PROFILES if p.name.startswith("medgemma") and p.system_in_user_turn} == {
        "medgemma-4b",
        "medgemma-1.5-4b",
        "medgemma-27b",
    }


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("<unused94>thought\nfirst<unused95>Answer.", "Answer."),
        ("<unused94>thought that never ended", ""),
        ('```json\n{"a": 1}\n```\n', '{"a": 1}'),
        ("```\n{}\n```", "{}"),
        ("Dose:\n```\n5 mg\n```\ntwice.", "Dose:\n```\n5 mg\n```\ntwice."),
        ("A dash ` and no fence.", "A dash ` and no fence."),
    ],
)
def test_thinking_and_the_outer_fence_are_stripped_and_nothing_else(said: str, left: str) -> None:
    for pattern in profile_for("medgemma-4b").strip:
        said = re.sub(pattern, "", said, flags=re.DOTALL)
    assert said == left
