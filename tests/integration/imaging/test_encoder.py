"""The image encoder in its own process, on a SigLIP with random weights: the path, and what happens to it.

What a random model says of a picture means nothing: the vectors are held against transformers' own.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from fixtures.siglip import DIMENSIONS, NOTE, save_random_siglip
from service.album import Album, AlbumAt
from service.cli import app
from service.imaging.encoder import Encoder, Limits, NoEncoder
from service.imaging.index import Entry
from service.imaging.labels import labels_for
from service.imaging.picture import Spot
from service.ports.pictures import Whose
from service.settings import Settings
from service.store.pictures import SqlPictureIndexes
from service.wiring import open_vault
from service.wiring.ehr import reader_of

TEXTS = ("chest x-ray with a pleural effusion", "", "x" * 5000, "Zwerchfell\x00 \u202e")
SERVER = "https://ehr.hospital.example/fhir"
DYING = "tests.integration.imaging.dying_encoder"


def png(seed: int, side: int = 448) -> bytes:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
    written = BytesIO()
    small.resize((side, side), Image.Resampling.BICUBIC).save(written, "PNG")
    return written.getvalue()


PNGS = tuple(png(seed) for seed in range(11))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Iterator[Encoder]:
    opened = Encoder(folder, limits=Limits(batch=4))
    yield opened
    opened.close()


@pytest.fixture
def dying(tmp_path: Path) -> Iterator[Callable[..., Encoder]]:
    """Opens encoders whose process does as the folder's name says."""
    opened: list[Encoder] = []

    def open_one(name: str, deaths: int = 0, **limits: float) -> Encoder:
        place = tmp_path / name
        place.mkdir()
        for file in ("config.json", "preprocessor_config.json", "tokenizer_config.json", "m.safetensors"):
            (place / file).write_bytes(b"")
        for n in range(deaths):
            (place / f"death-{n}").write_bytes(b"")
        opened.append(Encoder(place, limits=Limits(**limits), module=DYING))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def plain(folder: Path, pngs: tuple[bytes, ...], texts: tuple[str, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What transformers says of each picture and text alone."""
    import torch
    from transformers import SiglipImageProcessorPil, SiglipModel, SiglipTokenizer

    model: Any = SiglipModel.from_pretrained(folder)
    model.eval()
    pixels, words = SiglipImageProcessorPil.from_pretrained(folder), SiglipTokenizer.from_pretrained(folder)
    images, told = [], []
    with torch.no_grad():
        for one in pngs:
            seen = pixels(images=Image.open(BytesIO(one)).convert("RGB"), return_tensors="pt")
            images.append(model.get_image_features(**seen).pooler_output[0].numpy())
        for text in texts:
            read = words(text, padding="max_length", truncation=True, max_length=64, return_tensors="pt")
            told.append(model.get_text_features(input_ids=read["input_ids"]).pooler_output[0].numpy())
    return np.stack(images), np.stack(told)


def test_the_fixture_says_that_it_is_random(folder: Path) -> None:
    assert (folder / "README.md").read_text().strip() == NOTE


def test_vectors_are_those_of_transformers_whatever_the_batch(encoder: Encoder, folder: Path) -> None:
    images, texts = encoder.embed_images(PNGS), encoder.embed_texts(TEXTS)
    raw_images, raw_texts = plain(folder, PNGS, TEXTS)
    for told, raw in ((images, raw_images), (texts, raw_texts)):
        expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        found = np.stack(told.vectors)
        assert found.shape == (len(raw), DIMENSIONS)
        assert np.allclose(found, expected, atol=1e-4)
    assert images.scale == pytest.approx(np.exp(4.7), rel=1e-4)
    assert images.bias == pytest.approx(-12.9, rel=1e-4)
    assert encoder.embed_texts([]).vectors == ()


def test_what_is_no_picture_is_refused_and_the_next_one_is_read(encoder: Encoder) -> None:
    encoder.embed_texts(["anything"])
    first = encoder.pid
    huge = png(1, 1100)
    for wrong in (b"", b"\x89PNG\r\n\x1a\n", PNGS[0][:200], b"GIF89a" + bytes(100), huge):
        with pytest.raises(NoEncoder):
            encoder.embed_images([wrong])
    assert len(encoder.embed_images(PNGS[:1]).vectors) == 1
    assert encoder.pid == first


def test_more_than_it_takes_is_refused_before_anything_is_sent(dying: Callable[..., Encoder]) -> None:
    encoder = dying("well", most_at_once=2, most_bytes=10)
    for what in ([b"x"] * 3, [b"x" * 11]):
        with pytest.raises(NoEncoder):
            encoder.embed_images(what)
    assert encoder.pid is None


def test_a_process_that_died_is_started_once_more(dying: Callable[..., Encoder]) -> None:
    encoder = dying("well", deaths=1)
    assert len(encoder.embed_images([b"a", b"b"]).vectors) == 2


def test_a_process_that_was_killed_between_two_calls_is_started_again(dying: Callable[..., Encoder]) -> None:
    encoder = dying("well")
    encoder.embed_images([b"a"])
    first = encoder.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert len(encoder.embed_images([b"a"]).vectors) == 1
    assert encoder.pid != first


def test_what_breaks_the_process_twice_fails_with_a_reason_and_the_next_call_works(
    dying: Callable[..., Encoder],
) -> None:
    encoder = dying("well", deaths=2)
    with pytest.raises(NoEncoder, match="broke again"):
        encoder.embed_images([b"a"])
    assert len(encoder.embed_images([b"a"]).vectors) == 1


def test_a_process_that_hangs_is_ended(dying: Callable[..., Encoder]) -> None:
    encoder = dying("sleep", seconds=0.5)
    with pytest.raises(NoEncoder, match="too long"):
        encoder.embed_images([b"a"])
    assert encoder.pid is None


def test_an_answer_with_too_few_vectors_is_none(dying: Callable[..., Encoder]) -> None:
    with pytest.raises(NoEncoder):
        dying("short").embed_images([b"a", b"b"])


def test_a_process_that_does_not_start_is_not_tried_again(
    dying: Callable[..., Encoder], tmp_path: Path
) -> None:
    encoder = dying("stillborn")
    for _ in range(2):
        with pytest.raises(NoEncoder, match="does not start"):
            encoder.embed_images([b"a"])
        (tmp_path / "stillborn").rename(tmp_path / "well") if (tmp_path / "stillborn").exists() else None
    assert encoder.pid is None


def test_a_folder_without_a_model_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(NoEncoder, match="does not exist"):
        Encoder(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(NoEncoder, match=r"preprocessor_config.json.*\.safetensors"):
        Encoder(tmp_path)


def about(spot: Spot) -> Entry:
    place = (spot.study, spot.series, spot.instance, spot.frame)
    return Entry(*place, "ImagingStudy/1", "DX", "04-May-2019", "Chest PA and lateral, chest")


def test_what_was_looked_at_is_kept_labelled_and_found_by_words_on_the_command_line(
    encoder: Encoder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pngs = {Spot("1", "1.1", f"1.1.{n}"): one for n, one in enumerate(PNGS)}
    vault = open_vault(Settings(home=tmp_path / "home"))
    assert vault is not None
    album = Album(encoder, SqlPictureIndexes(vault))
    server, reader = reader_of(Settings(fhir_url=SERVER))
    ours, anothers = AlbumAt(album, server, reader), AlbumAt(album, server, "user:1")
    prompts = ["X-ray of the chest showing pneumonia", "X-ray of the chest"]
    sight = ours.see(pngs, prompts, "Patient/1", {spot: about(spot) for spot in pngs})
    assert sight is not None
    assert set(sight.images) == set(pngs)
    assert set(sight.prompts) == set(prompts)
    entries = album.entries(Whose(server, reader, "Patient/1"))
    assert [one.spot for one in entries] == list(pngs)
    words = {label.words for label in labels_for("DX", ["chest"])}
    assert all(one.labels and {label.words for label in one.labels} <= words for one in entries)
    assert album.entries(Whose(server, "user:1", "Patient/1")) == ()
    assert album.entries(Whose(server, reader, "Patient/2")) == ()
    assert anothers.see({}, prompts, "Patient/1", {}) is not None
    vault.close()

    for name, value in (("HOME", tmp_path / "home"), ("FHIR_URL", SERVER), ("MEDSIGLIP", folder)):
        monkeypatch.setenv(f"EPICRISIS_{name}", str(value))
    found = CliRunner().invoke(
        app, ["images", "find", "1", "left lower lobe opacity", "--json", "--most", "3"]
    )
    assert found.exit_code == 0, found.output
    asked = encoder.embed_texts(["left lower lobe opacity"]).vectors[0]
    likeness = {spot.instance: float(sight.images[spot] @ asked) for spot in pngs}
    best = sorted(likeness, key=lambda one: -likeness[one])[:3]
    told = msgspec.json.decode(found.stdout)
    assert [one["instance"] for one in told["pictures"]] == best
    assert "nothing here is a finding" in told["note"]


def test_without_weights_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPICRISIS_FHIR_URL", SERVER)
    found = CliRunner().invoke(app, ["images", "find", "1", "opacity"])
    assert found.exit_code == 8 or isinstance(found.exception, NoEncoder)
    assert "EPICRISIS_MEDSIGLIP" in f"{found.output}{getattr(found.exception, 'advice', '')}"


@pytest.mark.gpu
def test_the_real_medsiglip_tells_a_chest_x_ray_from_a_knee() -> None:
    named = os.environ.get("EPICRISIS_TEST_MEDSIGLIP", "")  # noqa: TID251 - the weights need an agreement
    if not named:
        pytest.skip("needs google/medsiglip-448 in a folder that EPICRISIS_TEST_MEDSIGLIP names")
    picture = Path(__file__).parents[4] / "shared/data/dicom/chest_xray_PA_wikimedia_CC0.png"
    written = BytesIO()
    Image.open(picture).convert("RGB").resize((448, 448)).save(written, "PNG")
    encoder = Encoder(Path(named))
    try:
        (seen,) = encoder.embed_images([written.getvalue()]).vectors
        chest, knee = encoder.embed_texts(["a chest X-ray", "an X-ray of a knee"]).vectors
        assert float(seen @ chest) > float(seen @ knee)
    finally:
        encoder.close()
