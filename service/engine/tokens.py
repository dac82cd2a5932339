"""Counting tokens without a running engine: the tokenizer and chat template in a model's folder.

The same files that the engine serves, so both count alike; an acceptance test holds them to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.engine.prompt import Message, Profile
from service.engine.wire import count_images, text_messages


class FolderTokenizer:
    """The tokenizer of one local model folder."""

    def __init__(self, folder: Path, profile: Profile) -> None:
        from transformers import AutoTokenizer  # two seconds that only this needs

        self._tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        self._profile = profile

    def count(self, messages: tuple[Message, ...]) -> int:
        """Count the tokens of a rendered chat, the opening of the answer included."""
        chat = text_messages(messages, fold_system=self._profile.system_in_user_turn)
        ids = self._tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return len(ids) + self._profile.image_tokens * count_images(messages)
