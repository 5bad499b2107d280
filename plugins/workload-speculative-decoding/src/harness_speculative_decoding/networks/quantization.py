"""Post-training quantization of a model's linear layers to 8 bits, through torchao or in fused passes."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any, Final, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from harness_speculative_decoding.networks.products import rounded

Quantization = Literal["none", "int8-fused", "int8-weight-only", "int8-dynamic"]
EXTRA: Final = "joule-harness-workload-speculative-decoding[quantization]"


def _torchao() -> Any:
    try:
        return importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise ImportError(
            f"quantization needs torchao, which cannot be imported: {error} (pip install '{EXTRA}')"
        ) from error


def quantize(model: PreTrainedModel, how: Quantization) -> dict[str, object]:
    """Quantizes every linear layer in place and says what it did, for the record.

    `int8-weight-only` keeps weights as int8 with a scale per output channel and computes in the model's dtype;
    `int8-dynamic` also rounds activations to int8, with a scale per token. Embeddings stay as they are, and so does an
    output layer that shares its weights with them. `int8-fused` needs no torchao: the weights become what 8-bit
    integers with a scale per output channel can say, in the model's dtype, and fused passes multiply by the integers,
    in bfloat16.

    Raises:
        ImportError: torchao cannot be imported; says what to install.
    """
    if how == "none":
        return {"quantization": how}
    if how == "int8-fused":
        return {"quantization": how, "quantized_layers": _rounded_in_place(model)}
    torchao = _torchao()
    config = (
        torchao.Int8WeightOnlyConfig() if how == "int8-weight-only" else torchao.Int8DynamicActivationInt8WeightConfig()
    )
    tied = model.get_output_embeddings() if model.config.tie_word_embeddings else None  # type: ignore[no-untyped-call]

    def wanted(module: Any, name: str) -> bool:  # noqa: ARG001 - torchao's signature
        return type(module).__name__ == "Linear" and module is not tied

    names = [name for name, module in model.named_modules() if wanted(module, name)]
    torchao.quantize_(model, config, filter_fn=wanted)
    return {
        "quantization": how,
        "quantized_layers": len(names),
        "torchao": importlib.metadata.version("torchao"),
    }


@torch.no_grad()
def _rounded_in_place(model: PreTrainedModel) -> int:
    """Rounds the linear layers but the output layer, and says how many there are."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    linears = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    for linear in linears:
        integers, scales = rounded(linear.weight)
        linear.weight.copy_(integers * scales)
    return len(linears)
