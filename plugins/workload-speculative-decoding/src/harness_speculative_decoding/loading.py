"""Loads a causal language model: built in, from a folder, or by its id on the hub, all along the same path."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import list_repo_files, snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from harness.errors import MeasurementError, UsageError
from harness_speculative_decoding.formats.gguf_folder import facts_of as gguf_facts_of
from harness_speculative_decoding.formats.gguf_folder import folder_of
from harness_speculative_decoding.formats.gguf_names import gguf_path, is_gguf
from harness_speculative_decoding.networks.digest import model_digest, weight_files
from harness_speculative_decoding.networks.quantization import Quantization, quantize
from harness_speculative_decoding.training.builder import build, recipe_named
from harness_speculative_decoding.training.recipes import PREFIX
from harness_speculative_decoding.training.shipped import FOLDER as SHIPPED
from harness_speculative_decoding.training.shipped import facts_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_OTHER_FORMATS = ("*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.ot", "*.pth", "*.pt", "original/*", "onnx/*")
"""Files of a hub repository that transformers does not load here."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_GIVE_FOLDER = "give a folder that holds the model instead: `options: {target: /path/to/folder}`"


_BUILT = ("perplexity", "recipe", "corpus", "versions", "time_cap_struck", "alignment", "answers", "distillation")
"""What the record says of a built-in model besides its identity."""
KEPT_SHARE = 0.9
"""Share of a card's free memory that weights may take; the rest is for keys, values and activations."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in eval mode on its device, its tokenizer, and what belongs into the record."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    facts: Mapping[str, object]

    def eos(self) -> frozenset[int]:
        """Token ids that end a text: the generation settings' where the model has any, else the tokenizer's."""
        settings = self.model.generation_config
        found: Any = settings.eos_token_id if settings is not None else None
        if found is None:
            found = self.tokenizer.eos_token_id
        return frozenset(() if found is None else [found] if isinstance(found, int) else found)


@dataclass(frozen=True, slots=True)
class Placement:
    """How the layers of a model are spread over devices, by transformers and accelerate.

    Attributes:
        how: `auto`, `balanced`, `balanced_low_0` or `sequential`, as transformers means them.
        devices: that may hold layers; no other is used.
    """

    how: str
    devices: tuple[torch.device, ...]

    def settings(self) -> dict[str, Any]:
        """What `from_pretrained` is told. Raises UsageError where accelerate is not installed."""
        if find_spec("accelerate") is None:
            raise UsageError("device_map needs accelerate", accepted="pip install accelerate, or device_map: none")
        if self.devices[0].type != "cuda":
            return {"device_map": {"": str(self.devices[0])}}
        free = {each.index or 0: int(torch.cuda.mem_get_info(each)[0] * KEPT_SHARE) for each in self.devices}
        return {"device_map": self.how, "max_memory": free}


def placed(model: PreTrainedModel) -> dict[str, int]:
    """Device -> how many modules of the map it holds."""
    found: Mapping[str, object] = getattr(model, "hf_device_map", None) or {"": model.device}
    return dict(Counter(str(device) for device in found.values()))


def load_causal_lm(
    name_or_path: str,
    device: torch.device,
    dtype: str,
    cache: Path,
    progress: Callable[[str, float | None], None],
    quantization: Quantization = "none",
    *,
    trust_remote_code: bool = False,
    placement: Placement | None = None,
) -> Loaded:
    """Loads a model and its tokenizer.

    Args:
        name_or_path: `builtin:small` and the like (trained first if neither the package nor `cache` holds it), a
            folder, a GGUF file (`gguf_file:PATH`, or a path that ends in `.gguf`; converted once), or a hub id.
        device: where the model goes.
        dtype: one of `DTYPES`.
        cache: where built-in and converted models are kept.
        progress: receives text and the share that is done.
        quantization: of its linear layers.
        trust_remote_code: whether code that comes with the model is run.
        placement: over which devices its layers go; None for all on `device`.

    Raises:
        UsageError: no such built-in model, or torchao or accelerate is not installed.
        MeasurementError: the model cannot be had, or is damaged; says what to do.
    """
    folder = _local(name_or_path, cache, progress)
    built: dict[str, object] = {}
    if folder is not None and name_or_path.startswith(PREFIX) and (facts := facts_of(folder)) is not None:
        built = {key: facts.get(key) for key in _BUILT} | {"shipped": folder.parent == SHIPPED}
    if folder is not None and (converted := gguf_facts_of(folder)):
        built = {"gguf": converted}
    progress(f"loading {name_or_path}", None)
    source, spread = str(folder or name_or_path), placement.settings() if placement is not None else {}
    model, tokenizer = _from_pretrained(source, DTYPES[dtype], name_or_path, trust_remote_code, spread)
    if placement is None:
        model.to(device)  # type: ignore[arg-type]
    model.eval()  # type: ignore[no-untyped-call]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    revision = getattr(model.config, "_commit_hash", None)
    return Loaded(
        model,
        tokenizer,
        {
            "source": name_or_path,
            "revision": revision,
            "architecture": type(model).__name__,
            "parameters": parameters,
            "dtype": dtype,
            "trust_remote_code": trust_remote_code,
            **({} if placement is None else {"device_map": placed(model)}),
            **_quantized(model, quantization),
            "digest": _digest(folder, name_or_path, revision),
            **built,
        },
    )


def fetch_causal_lm(name_or_path: str, cache: Path, progress: Callable[[str, float | None], None]) -> None:
    """Builds or converts a model into the cache, or downloads one by its hub id; a folder is there already.

    What the hub does not give now is left to `load_causal_lm`, which says what is wrong with it.

    Raises:
        UsageError: no such built-in model, or what a GGUF file holds is not read here.
    """
    if name_or_path.startswith(PREFIX) or is_gguf(name_or_path):
        _local(name_or_path, cache, progress)
    elif not Path(name_or_path).expanduser().exists() and _HUB_ID.fullmatch(name_or_path):
        progress(f"downloading {name_or_path}", None)
        with contextlib.suppress(OSError, ValueError):
            files = list_repo_files(name_or_path)
            safe = any(name.endswith(".safetensors") for name in files)
            snapshot_download(name_or_path, ignore_patterns=[*_OTHER_FORMATS, *(["*.bin"] if safe else [])])


def _local(name: str, cache: Path, progress: Callable[[str, float | None], None]) -> Path | None:
    """The folder of a model, built or converted first where it must be; None for a hub id."""
    if name.startswith(PREFIX):
        return build(recipe_named(name), cache, progress)
    return folder_of(gguf_path(name), cache, progress) if is_gguf(name) else model_folder(name)


def _came_quantized(model: PreTrainedModel) -> Mapping[str, object]:
    """How a checkpoint was quantized beforehand, and what its linear layers hold now; empty for one that was not.

    A library may unpack 8-bit weights while loading: then the work is that of the dtype they hold now, and its energy
    says nothing of 8-bit kernels.
    """
    given = getattr(model.config, "quantization_config", None)
    if given is None:
        return {}
    with torch.inference_mode():
        model(torch.zeros((1, 1), dtype=torch.long, device=model.device))  # what is unpacked is unpacked on first use
    method = given.get("quant_method") if isinstance(given, Mapping) else given.quant_method
    linears = [module for module in model.modules() if isinstance(getattr(module, "weight", None), torch.Tensor)]
    held = sorted({str(module.weight.dtype).removeprefix("torch.") for module in linears if module.weight.dim() > 1})  # type: ignore[operator]
    return {"checkpoint_quantization": str(getattr(method, "value", method)), "weights_held_as": held}


def _quantized(model: PreTrainedModel, how: Quantization) -> Mapping[str, object]:
    """What was done to the weights here, and beforehand."""
    try:
        return {**quantize(model, how), **_came_quantized(model)}
    except ImportError as error:
        raise UsageError(str(error)) from error


def model_folder(name: str) -> Path | None:
    """The folder that a name stands for, checked; None for a hub id."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if _HUB_ID.fullmatch(name) is None:
            raise MeasurementError(f"there is no model folder {name}", accepted="a folder, a hub id, or builtin:NAME")
        return None
    if not (folder / "config.json").is_file():
        raise MeasurementError(f"the folder {name} holds no config.json", accepted="what `save_pretrained` writes")
    if not weight_files(folder):
        raise MeasurementError(
            f"the folder {name} holds no weights",
            accepted="*.safetensors or pytorch_model*.bin, as `save_pretrained` writes them",
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise MeasurementError(f"{folder / 'config.json'} is not JSON: {error}") from None
    if "model_type" not in config:
        raise MeasurementError(
            f"{folder / 'config.json'} names no model_type", accepted="what `save_pretrained` writes"
        )
    return folder


def _from_pretrained(
    source: str,
    dtype: torch.dtype,
    name: str,
    trust_remote_code: bool,
    spread: Mapping[str, Any],
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Both parts, or a MeasurementError that names what the suite wrote."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, trust_remote_code=trust_remote_code, **spread)
    except Exception as error:  # OSError, ValueError, KeyError, SafetensorError and more
        first = str(error).strip().partition("\n")[0]
        what = f"the model {name} cannot be loaded: {type(error).__name__}: {first}"
        raise MeasurementError(what, hint="" if Path(source).is_dir() else _GIVE_FOLDER) from error
    return model, tokenizer


def _digest(folder: Path | None, name: str, revision: str | None) -> Mapping[str, str]:
    """Identity of the files that were loaded; for a hub id those of the local snapshot."""
    try:
        return model_digest(folder or Path(snapshot_download(name, revision=revision, local_files_only=True)))
    except (OSError, ValueError) as error:
        return {"unavailable": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
