"""Embedding pictures in the encoder's own process, beside a plain loop over transformers on the same ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fixtures.siglip import SIDE, save_random_siglip
from service.imaging.encoder import Encoder
from tests.bench.rounds import compare
from tests.bench.table import Table, times

PICTURES = 8
ROUNDS = 3
OURS, LOOP = "ours, in its process", "plain transformers loop"
SMALL = {"hidden": 192, "layers": 6, "heads": 3}
"""Half of a ViT-Tiny: a random one of MedSigLIP's 400 million parameters takes minutes a batch here."""


def bench_embedding() -> Table:
    """Return pictures and sentences a second, ours and the loop's taking turns, and how far both agree."""
    pngs = [_png(seed) for seed in range(PICTURES)]
    texts = [f"X-ray of the chest showing finding {n}" for n in range(PICTURES)]
    with tempfile.TemporaryDirectory() as place:
        folder = save_random_siglip(Path(place), **SMALL)
        encoder = Encoder(folder)
        try:
            see, read = _plain(folder)
            rows = [
                _row("pictures", lambda: encoder.embed_images(pngs).vectors, lambda: see(pngs)),
                _row("sentences", lambda: encoder.embed_texts(texts).vectors, lambda: read(texts)),
            ]
        finally:
            encoder.close()
    remark = (
        f"{PICTURES} of each, median of {ROUNDS}, on this machine's CPU: a SigLIP of 448 × 448 with random "
        "weights and half of a ViT-Tiny a tower, loaded before. Ours: PNGs sent to the process, decoded "
        "there, in batches of 8. The loop: SiglipProcessor and SiglipModel, one at a time, in this process, "
        "PNGs decoded too. A second look at the same pictures embeds nothing."
    )
    return Table(
        "Embedding pictures", ("what", "how many", OURS, LOOP, "ratio", "least cosine"), rows, [remark]
    )


def _row(what: str, ours: Callable[[], Any], loop: Callable[[], Any]) -> tuple[str, ...]:
    agreement = np.min(np.sum(_units(ours()) * _units(loop()), axis=1))
    taken = compare({OURS: ours, LOOP: loop}, ROUNDS)
    speeds = (f"{PICTURES / taken[name]:.1f}/s" for name in (OURS, LOOP))
    return what, f"{PICTURES}", *speeds, times(taken[LOOP] / taken[OURS]), f"{agreement:.6f}"


def _plain(folder: Path) -> tuple[Callable[[list[bytes]], Any], Callable[[list[str]], Any]]:
    """What a notebook does."""
    import torch
    from transformers import SiglipImageProcessorPil, SiglipModel, SiglipTokenizer

    model: Any = SiglipModel.from_pretrained(folder)
    model.eval()
    pixels, words = SiglipImageProcessorPil.from_pretrained(folder), SiglipTokenizer.from_pretrained(folder)

    def see(pngs: list[bytes]) -> list[Any]:
        with torch.no_grad():
            return [
                model.get_image_features(**pixels(_open(one), return_tensors="pt")).pooler_output[0]
                for one in pngs
            ]

    def read(texts: list[str]) -> list[Any]:
        with torch.no_grad():
            given = [words(one, padding="max_length", max_length=64, return_tensors="pt") for one in texts]
            return [model.get_text_features(input_ids=one["input_ids"]).pooler_output[0] for one in given]

    return see, read


def _open(png: bytes) -> Image.Image:
    return Image.open(BytesIO(png)).convert("RGB")


def _units(vectors: Any) -> NDArray[np.float64]:
    matrix = np.stack([np.asarray(one, np.float64) for one in vectors])
    units: NDArray[np.float64] = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return units


def _png(seed: int) -> bytes:
    grey = np.random.default_rng(seed).integers(0, 255, (28, 28), np.uint8)
    written = BytesIO()
    Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB").save(written, "PNG")
    return written.getvalue()
