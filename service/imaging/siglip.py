"""The process in which MedSigLIP runs. Started by `service.imaging.encoder`, never imported by it.

    python -m service.imaging.siglip PARENT SECONDS FOLDER DEVICE

A request is a list of PNGs or of texts in MessagePack; the answer is `HEAD`, then a vector of length one for
each. How the process bounds itself is told in `service.apart.child`. It reads safetensors alone, no pickles,
runs no code that lies beside the weights, and asks nobody on the network.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec

from service.apart.child import Answer, serve
from service.apart.frames import TOO_MUCH_MEMORY, Said

ABOUT, IMAGES, TEXTS = "about", "images", "texts"
HEAD = struct.Struct("!IIdd")
"""Number of vectors, their dimensions, the logits' scale and bias; little-endian floats of 32 bits follow."""
LONGEST_TEXT_TOKENS = 64
"""What SigLIP was trained on; it wants every text filled up to that length."""
_CPU_MEMORY_BYTES = 16 * 1024**3
_ANY_MEMORY = 2**62
"""CUDA reserves address space by the terabyte, so that a bound on it says nothing there."""
_MOST_PIXELS = 1024 * 1024


class Unfit(Exception):
    """A picture or text that cannot be embedded; the message tells nothing of what it shows."""


class Siglip:
    """A model and its processor on one device."""

    def __init__(self, folder: Path, device: str) -> None:
        import torch
        from transformers import AutoTokenizer, SiglipModel
        from transformers.models.siglip.image_processing_pil_siglip import (
            SiglipImageProcessorPil,
        )

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._torch = torch
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = torch.bfloat16 if self.device.startswith("cuda") else torch.float32
        model: Any = SiglipModel.from_pretrained(
            folder, use_safetensors=True, dtype=self._dtype, local_files_only=True
        )
        self._model = model.to(self.device).eval()
        self._pixels = SiglipImageProcessorPil.from_pretrained(folder, local_files_only=True)
        self._words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.scale, self.bias = model.logit_scale.exp().item(), model.logit_bias.item()

    def of_images(self, pngs: Sequence[bytes]) -> bytes:
        """Return their vectors. Raises Unfit for what is no PNG, or too large."""
        pixels = self._pixels(images=[_opened(png) for png in pngs], return_tensors="pt")["pixel_values"]
        with self._torch.inference_mode():
            told = self._model.get_image_features(pixel_values=pixels.to(self.device, self._dtype))
        return self._packed(told.pooler_output)

    def of_texts(self, texts: Sequence[str]) -> bytes:
        """Return their vectors; what is longer than a text may be is cut."""
        tokens = self._words(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=LONGEST_TEXT_TOKENS,
            return_tensors="pt",
        )
        with self._torch.inference_mode():
            told = self._model.get_text_features(input_ids=tokens["input_ids"].to(self.device))
        return self._packed(told.pooler_output)

    def about(self) -> bytes:
        """Return the head alone, and the device's name."""
        size = int(self._model.config.text_config.projection_size)
        return HEAD.pack(0, size, self.scale, self.bias) + self.device.encode()

    def _packed(self, features: Any) -> bytes:
        vectors = self._torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
        count, size = vectors.shape
        return HEAD.pack(count, size, self.scale, self.bias) + vectors.astype("<f4").tobytes()


def main(parent: int, seconds: float, folder: Path, device: str) -> None:
    """Bound this process, load the model, then answer requests until there are no more."""
    # The libraries read these once, when they are imported. No file may grow here, so a folder that is there
    # stands for those that they would make or try.
    nowhere = {"TORCHINDUCTOR_CACHE_DIR": "/", "TMPDIR": "/"}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.update(**nowhere, **offline)  # noqa: TID251 - of this process, which nobody else shares
    tempfile.tempdir = "/"
    has_gpu = Path("/dev/nvidiactl").exists()
    serve(parent, seconds, _ANY_MEMORY if has_gpu else _CPU_MEMORY_BYTES, lambda: _answering(folder, device))


def _answering(folder: Path, device: str) -> Answer:
    model = Siglip(folder, device)

    def answer(content: bytes, what: str, _: str) -> tuple[Said, bytes]:
        try:
            return Said.TEXT, _answer(model, content, what)
        except Unfit as error:
            return Said.UNREADABLE, str(error).encode()
        except MemoryError:
            return Said.UNREADABLE, TOO_MUCH_MEMORY.encode()

    return answer


def _answer(model: Siglip, content: bytes, what: str) -> bytes:
    if what == IMAGES:
        return model.of_images(msgspec.msgpack.decode(content, type=list[bytes]))
    if what == TEXTS:
        return model.of_texts(msgspec.msgpack.decode(content, type=list[str]))
    return model.about()


def _opened(png: bytes) -> Any:
    from PIL import Image  # noqa: PLC0415 - only this process needs it

    try:
        with Image.open(BytesIO(png), formats=["PNG"]) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise Unfit("a picture is too large")
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise Unfit("a picture cannot be read") from error


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
