"""What is known of each model family: how it must be asked, and how much it can read and write.

Facts of the models, apart from any transport. A model that no row names gets the cautious default.
"""

from __future__ import annotations

import re
from pathlib import Path

from service.engine.prompt import Profile
from service.engine.scripted import IMAGE_TOKENS, SCRIPTED_PROFILE
from service.errors import SettingsError

THINKING = r"<unused94>.*?(?:<unused95>|\Z)"
"""MedGemma's thinking tokens, also where the answer ended before the thinking did."""
CODE_FENCE = r"\A\s*```(?:json)?[ \t]*\n|\n?```\s*\Z"
"""The fence around a whole answer; a fence inside it stays."""
GEMMA_OUTPUT_TOKENS = 8192


def _medgemma(name: str, context_tokens: int) -> Profile:
    return Profile(
        name=name,
        mode="free",
        context_tokens=context_tokens,
        max_output_tokens=GEMMA_OUTPUT_TOKENS,
        temperature=0.0,
        digest_windows=48,
        system_in_user_turn=True,
        image_tokens=IMAGE_TOKENS,  # a 27b of text alone refuses pictures: the run goes on without them
        strip=(THINKING, CODE_FENCE),
    )


PROFILES: tuple[Profile, ...] = (
    # 131,072 tokens are what the models were trained for; the server says what it really serves
    _medgemma("medgemma-27b", 131_072),
    _medgemma("medgemma-1.5-4b", 131_072),
    _medgemma("medgemma-4b", 131_072),
    Profile(
        name="smollm2-135m",
        mode="guided",
        context_tokens=8192,
        max_output_tokens=2048,
        temperature=0.0,
        # measured: 62 of 100 sentences right at 1 fact a request, 47 at 2, 23 at 5, 5 at 10; the tokens
        # written are the same, and the prompts' common prefix comes from the cache
        facts_per_request=1,
    ),
    Profile(
        # the same behind a tower that was never trained: it sees nothing, and takes pictures as MedGemma does
        name="gemma3-270m-multimodal",
        mode="guided",
        context_tokens=32_768,
        max_output_tokens=2048,
        temperature=0.0,
        facts_per_request=5,
        system_in_user_turn=True,
        image_tokens=IMAGE_TOKENS,
        strip=(CODE_FENCE,),
    ),
    Profile(
        # a base model: it follows no instructions, and stands in for MedGemma's shapes and paths alone
        name="gemma3-270m",
        mode="guided",
        context_tokens=32_768,
        max_output_tokens=2048,
        temperature=0.0,
        facts_per_request=5,
        system_in_user_turn=True,
        strip=(CODE_FENCE,),
    ),
    SCRIPTED_PROFILE,
    Profile(
        name="default",
        mode="guided",
        context_tokens=8192,
        max_output_tokens=2048,
        temperature=0.0,
        facts_per_request=10,
        system_in_user_turn=True,
        strip=(r"<think>.*?(?:</think>|\Z)", THINKING, CODE_FENCE),
    ),
)
"""The most specific family first: the first one that matches a model's name is taken."""

_PATTERNS: dict[str, str] = {
    "medgemma-27b": r"medgemma.*27b",
    "medgemma-1.5-4b": r"medgemma-?1[._]5.*4b",
    "medgemma-4b": r"medgemma",
    "smollm2-135m": r"smollm2.*135m",
    "gemma3-270m-multimodal": r"gemma-?3.*270m.*multimodal",
    "gemma3-270m": r"gemma-?3.*270m",
    "scripted": r"^scripted$",
    "default": r"",
}
_BY_NAME = {profile.name: profile for profile in PROFILES}


def profile_for(model_name_or_path: str, override: str | None = None) -> Profile:
    """Return the profile of a model by its name, its folder or its hub cache path.

    `override` names a profile outright. Raises SettingsError where there is no such profile.
    """
    if override:
        return _named(override)
    names = reversed(Path(model_name_or_path.lower()).parts)
    for part in names:
        for profile in PROFILES[:-1]:
            if re.search(_PATTERNS[profile.name], part):
                return profile
    return _BY_NAME["default"]


def _named(name: str) -> Profile:
    try:
        return _BY_NAME[name]
    except KeyError:
        raise SettingsError(
            f"There is no model profile named {name}.", f"Choose one of: {', '.join(_BY_NAME)}."
        ) from None
