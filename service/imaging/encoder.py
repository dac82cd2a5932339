"""The image encoder: pictures and words as vectors in one space, by MedSigLIP in a process of its own.

It is an aid to choosing and finding pictures; nothing that it says is a finding, and everything works without
it. Where there are no weights, or the process fails, NoEncoder says why, and rules alone choose.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np

from service.apart.frames import TOO_LONG, Bounds, Said
from service.apart.process import Ended, Process, TookTooLong
from service.engine.weights import digest_of
from service.errors import EngineError
from service.imaging.choice import Vector
from service.imaging.siglip import ABOUT, HEAD, IMAGES, TEXTS

NOT_STARTED = "its process does not start"
BROKE = "its process broke, and broke again"
CLOSED = "it was closed"
_MODULE = "service.imaging.siglip"
_WEIGHTS = "*.safetensors"
_MOST_REPLY_BYTES = 8 * 1024 * 1024
T = TypeVar("T", bytes, str)


class Limits(NamedTuple):
    """What embedding may cost."""

    seconds: float = 300.0
    """For one batch: MedSigLIP takes some ten seconds a picture on two cores, and milliseconds on a GPU."""
    seconds_to_start: float = 300.0
    """Reading 3.5 GB from a slow disk, and importing the libraries on a machine under load."""
    batch: int = 8
    gpu_batch: int = 32
    most_at_once: int = 1024
    """Pictures or texts of one call."""
    most_bytes: int = 4 * 1024 * 1024
    """Of one picture; a PNG of 448 × 448 is seldom over 600 kB."""


class NoEncoder(EngineError):
    """There is no image encoder, or it failed; the message says why and holds nothing of a picture."""

    code = "encoder"


class Embedded(NamedTuple):
    """Vectors of length one, in the order of what they are of; how likeness becomes a score."""

    vectors: tuple[Vector, ...]
    scale: float
    bias: float


class Embedder(Protocol):
    """What turns pictures (PNG, 448 × 448) and texts into vectors. Both methods raise NoEncoder."""

    @property
    def model(self) -> str:
        """Digest of the weights: vectors of different weights are not compared."""
        ...

    def close(self) -> None:
        """End what runs."""
        ...

    def embed_images(self, pngs: Sequence[bytes]) -> Embedded:
        """Return one vector a picture."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Embedded:
        """Return one vector a text."""
        ...


class Encoder:
    """MedSigLIP of one folder. Made cheaply: the process starts with the first call, and stays until `close`.

    It may be shared by threads, which wait for each other. A process that breaks is started once more; what
    breaks it again, or takes too long, fails.
    """

    def __init__(
        self, folder: Path, device: str = "", limits: Limits | None = None, module: str = _MODULE
    ) -> None:
        """Raises NoEncoder where the folder holds no model."""
        check_folder(folder)
        self._folder, self._device, self._limits = folder.resolve(), device, limits or Limits()
        self._module = module
        self._process: Process | None = None
        self._batch = 1
        self._gave_up = ""
        """Why no further process is started: one that does not even start is not tried again and again."""
        self._digest = ""
        self._digesting = threading.Lock()
        # Linux ends a child with the thread that started it: so one thread starts it, asks it, and stays.
        self._owner = ThreadPoolExecutor(1, "encoder")

    @property
    def model(self) -> str:
        """Digest of the weights; the first call of all reads them whole."""
        with self._digesting:
            self._digest = self._digest or digest_of(self._folder)
        return self._digest

    @property
    def pid(self) -> int | None:
        """Process id, while there is one."""
        return self._process.pid if self._process else None

    def embed_images(self, pngs: Sequence[bytes]) -> Embedded:
        """Return one vector for each PNG. Raises NoEncoder."""
        if any(len(png) > self._limits.most_bytes for png in pngs):
            raise NoEncoder("The image encoder was given a picture that is too large.")
        return self._embed(pngs, IMAGES)

    def embed_texts(self, texts: Sequence[str]) -> Embedded:
        """Return one vector for each text; what is longer than 64 tokens is cut. Raises NoEncoder."""
        return self._embed(texts, TEXTS)

    def close(self) -> None:
        """End the process."""
        self._owner.submit(self._stop).result()
        self._owner.shutdown()

    def _embed(self, items: Sequence[T], what: str) -> Embedded:
        if len(items) > self._limits.most_at_once:
            raise NoEncoder("The image encoder was given more at once than it takes.")
        try:
            asked = self._owner.submit(self._embed_here, items, what)
        except RuntimeError:  # its thread has ended
            raise _failed(CLOSED) from None
        return asked.result()

    def _embed_here(self, items: Sequence[T], what: str) -> Embedded:
        told = _read(self._ask([], ABOUT))
        vectors: list[Vector] = []
        for start in range(0, len(items), self._batch):
            batch = items[start : start + self._batch]
            told = _read(self._ask(batch, what))
            if len(told.vectors) != len(batch):
                self._stop()
                raise _failed(BROKE)
            vectors += told.vectors
        return Embedded(tuple(vectors), told.scale, told.bias)

    def _ask(self, items: Sequence[T], what: str) -> bytes:
        content = msgspec.msgpack.encode(items)
        for is_last in (False, True):
            try:
                said, data = self._seated().ask_bytes(content, what)
            except TookTooLong:
                self._stop()
                raise _failed(TOO_LONG) from None
            except Ended:
                self._stop()
                if is_last:
                    raise _failed(BROKE) from None
            else:
                if said is Said.TEXT:
                    return data
                raise _failed(data.decode("utf-8", "replace")[:80])
        raise AssertionError("not reached")

    def _seated(self) -> Process:
        if self._gave_up:
            raise NoEncoder(self._gave_up)
        if self._process is None:
            limits = self._limits
            bounds = Bounds(limits.seconds, 0, _MOST_REPLY_BYTES, limits.seconds_to_start)
            arguments = [str(os.getpid()), str(limits.seconds), str(self._folder), self._device]
            try:
                self._process = Process(self._module, arguments, bounds)
                self._process.wait_until_ready()
                _, about = self._process.ask_bytes(msgspec.msgpack.encode([]), ABOUT)
            except (Ended, OSError):
                self._stop()
                self._gave_up = str(_failed(NOT_STARTED))
                raise NoEncoder(self._gave_up) from None
            on_gpu = about[HEAD.size :].startswith(b"cuda")
            self._batch = limits.gpu_batch if on_gpu else limits.batch
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


def check_folder(folder: Path) -> None:
    """Raise NoEncoder where a folder holds no MedSigLIP that can be loaded without a network."""
    if not folder.is_dir():
        raise NoEncoder("The folder of the image encoder does not exist.", "Set EPICRISIS_MEDSIGLIP.")
    needed = ("config.json", "preprocessor_config.json", "tokenizer_config.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if not any(folder.glob(_WEIGHTS)):
        missing.append(_WEIGHTS)
    if missing:
        raise NoEncoder(
            f"The folder of the image encoder has no {', '.join(missing)}.",
            "EPICRISIS_MEDSIGLIP names a folder with all files of google/medsiglip-448.",
        )


def _read(data: bytes) -> Embedded:
    count, size, scale, bias = HEAD.unpack_from(data)
    if count == 0:
        return Embedded((), scale, bias)
    matrix = np.frombuffer(data, "<f4", count * size, HEAD.size).reshape(count, size)
    return Embedded(tuple(matrix.astype(np.float32)), scale, bias)


def _failed(reason: str) -> NoEncoder:
    return NoEncoder(f"The image encoder failed: {reason}.")
