"""The models of a pair: a target and its draft, from a seed or from folders."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, model_validator
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from harness.options import Options

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class SeededModel(Options):
    """A random Llama, and a draft that is its first layers with the same embedding and head.

    The output projections of the layers that the draft lacks are scaled by `eps`: a dial on how often the target agrees
    with the draft, from always (0) to as rarely as chance has it.
    """

    layers: Count = 4
    hidden: Count = 64
    heads: Count = 4
    kv_heads: Count = 2
    vocabulary: Count = 512
    context: Count = 2048
    draft_layers: Count = 1
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    weights_seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> SeededModel:
        if self.hidden % (2 * self.heads) or self.heads % self.kv_heads or self.draft_layers > self.layers:
            raise ValueError(
                f"hidden {self.hidden} is a multiple of twice the heads ({self.heads}), heads of kv_heads "
                f"({self.kv_heads}), and draft_layers ({self.draft_layers}) are at most layers ({self.layers})"
            )
        return self


class FolderModel(Options):
    """Models saved by `save_pretrained`, or hub ids that are already in the local cache."""

    target: Annotated[str, Field(min_length=1)]
    draft: str | None = None


def build_target(model: SeededModel | FolderModel, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The target, in eval mode."""
    if isinstance(model, FolderModel):
        return _load(model.target, dtype, device)
    built = _seeded(model)
    return built.to(device=device, dtype=dtype).eval()  # type: ignore[call-arg] # nn.Module's own, hidden by transformers


def build_draft(model: SeededModel | FolderModel, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The draft, in eval mode; raises ValueError where none was given."""
    if isinstance(model, FolderModel):
        if model.draft is None:
            raise ValueError("no draft model is given; `spec-local` and `dsd` need one")
        return _load(model.draft, dtype, device)
    built = _seeded(model)
    built.model.layers = built.model.layers[: model.draft_layers]
    built.config.num_hidden_layers = model.draft_layers
    return built.to(device=device, dtype=dtype).eval()  # type: ignore[call-arg] # as above


def _load(name: str, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        name, dtype=dtype, local_files_only=True, use_safetensors=True
    )
    return loaded.to(device).eval()  # type: ignore[arg-type] # as above


_WEIGHT_SPREAD = 0.2


def _seeded(model: SeededModel) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=model.vocabulary,
        hidden_size=model.hidden,
        intermediate_size=2 * model.hidden,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        max_position_embeddings=model.context,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    built = LlamaForCausalLM(config)
    # Drawn anew from a generator of their own: the global one is shared with whatever else runs in the process.
    generator = torch.Generator().manual_seed(model.weights_seed)
    with torch.no_grad():
        for weight in built.parameters():
            if weight.dim() > 1:
                weight.normal_(0.0, _WEIGHT_SPREAD, generator=generator)
        for layer in built.model.layers[model.draft_layers :]:
            layer.self_attn.o_proj.weight *= model.eps
            layer.mlp.down_proj.weight *= model.eps
    return built
