"""Pictures in a prompt: how they are sent, counted and stored, and that text alone stays as it was."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace

import pytest

from service.engine.profiles import profile_for
from service.engine.prompt import PLACE, Image, Message, Prompt, Sampling, Usage
from service.engine.scripted import IMAGE_TOKENS, ScriptedEngine
from service.engine.scripted_server import prompt_of, read_body, tokens_of
from service.engine.wire import chat_body, chat_messages, read_usage, text_messages
from service.errors import EngineError

PNG = b"\x89PNG\r\n\x1a\nmade-up pixels"
IMAGE = Image(hashlib.sha256(PNG).hexdigest(), PNG)
OTHER = Image(hashlib.sha256(b"other").hexdigest(), b"other")
SHOWN = Message("user", f"Evidence.\n\n[F1] Chest\n{PLACE}\n[F2] Hand\n{PLACE}\nTASK: look.", (IMAGE, OTHER))


def url(png: bytes) -> dict[str, object]:
    return {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + base64.b64encode(png).decode()},
    }


def test_each_picture_stands_right_after_its_caption() -> None:
    (turn,) = chat_messages((SHOWN,), fold_system=False)
    assert turn["content"] == [
        {"type": "text", "text": "Evidence.\n\n[F1] Chest"},
        url(PNG),
        {"type": "text", "text": "[F2] Hand"},
        url(b"other"),
        {"type": "text", "text": "TASK: look."},
    ]


def test_a_turn_of_text_is_sent_as_it_always_was_even_with_the_sign_of_a_place_in_it() -> None:
    text = Message("user", f"a note with {PLACE} in it")
    assert chat_messages((text,), fold_system=True) == [{"role": "user", "content": text.content}]


def test_a_folded_system_turn_keeps_the_pictures_of_the_first_user_turn() -> None:
    (turn,) = chat_messages((Message("system", "Rules."), SHOWN), fold_system=True)
    assert turn["role"] == "user"
    assert [part["type"] for part in turn["content"]] == ["text", "image_url", "text", "image_url", "text"]
    assert turn["content"][0]["text"].startswith("Rules.\n\nEvidence.")


@pytest.mark.parametrize(
    "torn",
    [replace(SHOWN, images=(IMAGE,)), replace(SHOWN, images=(IMAGE, Image(OTHER.digest)))],
    ids=["one too few", "bytes gone"],
)
def test_a_prompt_without_its_bytes_is_not_sent(torn: Message) -> None:
    with pytest.raises(EngineError, match="not at hand"):
        chat_messages((torn,), fold_system=False)


def test_what_is_stored_names_pictures_by_digest_and_holds_no_pixel() -> None:
    prompt = Prompt((Message("system", "Rules."), SHOWN), Sampling(10))
    stored = prompt.without_pixels()
    assert [image.digest for image in stored.messages[1].images] == [IMAGE.digest, OTHER.digest]
    assert not any(image.png for message in stored.messages for image in message.images)
    assert stored == prompt  # equal by what names them
    assert "made-up pixels" not in repr(prompt)
    assert Prompt((Message("user", "text"),), Sampling(10)).without_pixels().messages[0].images == ()


def test_a_tokenizer_of_text_is_asked_about_the_text_alone() -> None:
    (turn,) = text_messages((SHOWN,), fold_system=False)
    assert turn["content"] == SHOWN.content.replace(PLACE, "")


def test_usage_tells_the_tokens_of_pictures_where_the_server_does() -> None:
    told = {"prompt_tokens": 820, "completion_tokens": 40}
    assert read_usage(told | {"prompt_tokens_details": {"multimodal_tokens": {"image": 780}}}) == Usage(
        820, 40, image_tokens=780
    )
    for nothing in (None, 7, {"image": "many"}, {"audio": 3}):
        details = {"prompt_tokens_details": {"multimodal_tokens": nothing}}
        assert read_usage(told | details) == Usage(820, 40)


def test_a_model_of_text_has_no_tokens_for_pictures() -> None:
    assert profile_for("gemma3-270m-multimodal").image_tokens == IMAGE_TOKENS
    assert profile_for("google/medgemma-1.5-4b-it").image_tokens == IMAGE_TOKENS
    assert profile_for("gemma3-270m").image_tokens == profile_for("smollm2-135m").image_tokens == 0


async def test_every_picture_costs_its_tokens() -> None:
    plain = Message("user", SHOWN.text)
    engine = ScriptedEngine()
    assert await engine.count_tokens((SHOWN,)) == await engine.count_tokens((plain,)) + 2 * IMAGE_TOKENS


def test_the_scripted_server_reads_pictures_back_and_counts_them() -> None:
    prompt = Prompt((SHOWN,), Sampling(10))
    sent = json.loads(json.dumps(chat_body(prompt, "m", fold_system=False, with_priority=False)))
    body = read_body(json.dumps(sent).encode())
    assert body is not None
    (turn,) = prompt_of(body).messages
    assert (turn.images, [image.png for image in turn.images]) == (SHOWN.images, [PNG, b"other"])
    assert turn.content.count(PLACE) == 2
    without = {**sent, "messages": [{"role": "user", "content": turn.text}]}
    assert len(tokens_of(sent)) == len(tokens_of(without)) + 2 * IMAGE_TOKENS


@pytest.mark.parametrize("bad", ["https://elsewhere.example/x.png", "data:image/png;base64,%%%"])
def test_the_scripted_server_takes_no_address_and_no_broken_bytes(bad: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": bad}}]
    assert read_body(json.dumps({"messages": [{"role": "user", "content": content}]}).encode()) is None
