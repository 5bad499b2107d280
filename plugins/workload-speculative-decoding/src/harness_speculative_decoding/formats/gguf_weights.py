"""The model that a GGUF file holds: its configuration, and its weights as numbers again, in the order of transformers.

llama.cpp stores the rows of the query and key matrices of `llama` models so that the two halves of a rotation lie side
by side (`permute` in its `convert_hf_to_gguf.py`); here they are put back. Other architectures are stored as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from harness.errors import MeasurementError, UsageError
from harness_speculative_decoding.formats.gguf_names import INSTALL

if TYPE_CHECKING:
    from gguf import GGUFReader

_CLASSES: Final[Mapping[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]]] = {
    "llama": (
        LlamaConfig,
        LlamaForCausalLM,
    ),  # what llama.cpp calls so: Llama, SmolLM, TinyLlama, Mistral without window
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
ARCHITECTURES: Final = tuple(_CLASSES)
"""Values of `general.architecture` that are read; every other is refused by its name."""

_WHOLE: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER: Final = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_ROTATION: Final = "rope_freqs.weight"
_NEEDED: Final = (
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
)


def read(path: Path) -> GGUFReader:
    """A GGUF file, mapped into memory.

    Raises:
        UsageError: package gguf is not installed.
        MeasurementError: the file is not there, or is not GGUF of a version that is known.
    """
    try:
        from gguf import GGUFReader
    except ImportError:
        raise UsageError("GGUF files are read by the package gguf, which is not installed", accepted=INSTALL) from None
    try:
        return GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        what = f"{path} cannot be read as GGUF: {type(error).__name__}: {error}"
        raise MeasurementError(what, accepted="a file in GGUF version 2 or 3, whole") from None


def value(reader: GGUFReader, key: str, default: Any = None) -> Any:
    """A value of the file's metadata."""
    field = reader.get_field(key)
    return default if field is None else field.contents()


def model_of(reader: GGUFReader, end_tokens: list[int], begin_token: int | None) -> PreTrainedModel:
    """The model in float32, which holds every value of every quantization of GGUF.

    Args:
        reader: of the file.
        end_tokens: ids that end an answer, for its generation settings.
        begin_token: id that begins a text; None where there is none.

    Raises:
        UsageError: an architecture, a rotary embedding or a quantization that is not read here; names it.
        MeasurementError: tensors that do not belong to the architecture, or that are missing.
    """
    architecture = value(reader, "general.architecture")
    if architecture not in _CLASSES:
        raise UsageError(
            f"GGUF files of architecture {architecture!r} are not read here",
            accepted=f"general.architecture {', '.join(ARCHITECTURES)}; or the model's own folder of `save_pretrained`",
        )
    weights = {tensor.name: tensor for tensor in reader.tensors}
    config_class, model_class = _CLASSES[architecture]
    tokens = {
        "bos_token_id": begin_token,
        "eos_token_id": end_tokens[0] if len(end_tokens) == 1 else end_tokens or None,
        "pad_token_id": value(reader, "tokenizer.ggml.padding_token_id"),
    }
    config = config_class(**_settings(reader, architecture, weights), **tokens)
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name != _ROTATION:
            state[_named(name, architecture)] = _numbers(tensor, config, architecture)
    with torch.device("meta"):
        model = model_class(config)
    wanted = set(model.state_dict()) - ({"lm_head.weight"} if config.tie_word_embeddings else set())
    if odd := sorted(wanted ^ set(state)):
        what = "misses" if odd[0] in wanted else "holds what the architecture has not:"
        raise MeasurementError(f"the GGUF file of architecture {architecture} {what} {odd[0]} ({len(odd)} such)")
    model = model_class(config)
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    return model.eval()  # type: ignore[no-any-return, no-untyped-call]


def _settings(reader: GGUFReader, architecture: str, weights: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration of transformers is made of."""
    own = {
        key.removeprefix(f"{architecture}."): value(reader, key)
        for key in reader.fields
        if key.startswith(f"{architecture}.")
    }
    if missing := [key for key in _NEEDED if key not in own]:
        raise MeasurementError(f"the GGUF file says no {architecture}.{missing[0]}")
    if own.get("expert_count"):
        raise UsageError(f"GGUF files of {architecture} with experts are not read here", accepted="a dense model")
    heads = own["attention.head_count"]
    kv_heads = own.get("attention.head_count_kv", heads)
    if not (isinstance(heads, int) and isinstance(kv_heads, int)):
        raise UsageError("layers with different numbers of attention heads are not read here", accepted="equal layers")
    head_dim = own.get("attention.key_length", own["embedding_length"] // heads)
    if (turned := own.get("rope.dimension_count", head_dim)) != head_dim:
        raise UsageError(
            f"a rotary embedding of {turned} of {head_dim} dimensions is not read here",
            accepted="one of all dimensions",
        )
    biased = [name for name in weights if name.endswith(".bias")]
    settings = {
        "vocab_size": int(weights["token_embd.weight"].shape[1]),
        "hidden_size": own["embedding_length"],
        "intermediate_size": own["feed_forward_length"],
        "num_hidden_layers": own["block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": own["context_length"],
        "rms_norm_eps": own["attention.layer_norm_rms_epsilon"],
        "tie_word_embeddings": "output.weight" not in weights,
        "rope_parameters": _rotation(own, weights, head_dim),
    }
    if architecture == "llama":
        settings |= {
            "attention_bias": any(".attn_" in name for name in biased),
            "mlp_bias": any(".ffn_" in name for name in biased),
        }
    return settings


def _rotation(own: Mapping[str, Any], weights: Mapping[str, Any], head_dim: int) -> dict[str, Any]:
    """Rotary embedding: plain, stretched linearly, or that of Llama 3.1, whose factors are a tensor of the file."""
    base = float(own.get("rope.freq_base", 10_000.0))
    kind = own.get("rope.scaling.type", "none")
    if _ROTATION in weights:
        return _llama3(torch.from_numpy(weights[_ROTATION].data.copy()), base, head_dim)
    if kind == "linear":
        return {"rope_type": "linear", "rope_theta": base, "factor": float(own["rope.scaling.factor"])}
    if kind != "none":
        raise UsageError(f"a rotary embedding scaled by {kind} is not read here", accepted="none, linear, Llama 3.1's")
    return {"rope_type": "default", "rope_theta": base}


def _llama3(factors: Tensor, base: float, head_dim: int) -> dict[str, Any]:
    """The settings whose frequencies are the plain ones divided by these factors, which is checked.

    The factors alone are in the file; low and high frequency and the original context are those of every Llama 3.1 to
    3.3, and the largest factor is the scale.
    """
    found: dict[str, Any] = {
        "rope_type": "llama3",
        "rope_theta": base,
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(hidden_size=head_dim, num_attention_heads=1, rope_parameters=dict(found))
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = base ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    if len(factors) != len(plain) or not torch.allclose(plain / factors, scaled.double(), rtol=1e-4):
        raise UsageError(
            "the frequency factors of the GGUF file are not those of Llama 3.1", accepted="Llama 3.1 to 3.3"
        )
    return found


def _named(name: str, architecture: str) -> str:
    """The name of a tensor in transformers."""
    if name in _WHOLE:
        return _WHOLE[name]
    match = _LAYER.fullmatch(name)
    if match is None or match[2] not in _IN_LAYER:
        raise MeasurementError(f"the GGUF file of architecture {architecture} holds a tensor {name}, unknown to it")
    return f"model.layers.{match[1]}.{_IN_LAYER[match[2]]}.{match[3]}"


def _numbers(tensor: Any, config: Any, architecture: str) -> Tensor:
    """A tensor in float32, its rows in the order of transformers; GGUF names the innermost dimension first."""
    from gguf import dequantize

    try:
        numbers = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).astype("float32"))
    except RuntimeError:  # gguf has no way back from it
        raise UsageError(
            f"tensor {tensor.name} is quantized as {tensor.tensor_type.name}, which gguf cannot read back",
            accepted="F32, F16, BF16, Q4_0 to Q8_0, the K and IQ quantizations that package gguf knows",
        ) from None
    shape = [int(length) for length in reversed(tensor.shape)]
    if numbers.numel() != math.prod(shape):
        raise MeasurementError(f"tensor {tensor.name} has {numbers.numel()} numbers, and its shape says {shape}")
    numbers = numbers.reshape(shape)
    if architecture != "llama":
        return numbers
    if ".attn_q." in tensor.name:
        return halves_apart(numbers, config.num_attention_heads)
    return halves_apart(numbers, config.num_key_value_heads) if ".attn_k." in tensor.name else numbers


def halves_apart(rows: Tensor, heads: int) -> Tensor:
    """Undoes llama.cpp's permutation of query or key rows (or of their bias), of shape (heads * width, ...).

    In a head of the file rows 2i and 2i + 1 are turned together; transformers turns i and i + width / 2.
    """
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)
