"""The models of a pair: a target and its draft, from a seed or from folders."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from harness_disaggregated_serving.runtime.options import FolderModel, SeededModel


def build_target(model: SeededModel | FolderModel, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The target, in eval mode."""
    if isinstance(model, FolderModel):
        return _load(model.target, dtype, device)
    built = _seeded(model)
    return built.to(device=device, dtype=dtype).eval()  # type: ignore[call-arg, no-any-return] # nn.Module's own, hidden by transformers


def build_draft(model: SeededModel | FolderModel, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The draft, in eval mode; raises ValueError where none was given."""
    if isinstance(model, FolderModel):
        if model.draft is None:
            raise ValueError("no draft model is given; `spec-local` and `dsd` need one")
        return _load(model.draft, dtype, device)
    built = _seeded(model)
    built.model.layers = built.model.layers[: model.draft_layers]
    built.config.num_hidden_layers = model.draft_layers
    return built.to(device=device, dtype=dtype).eval()  # type: ignore[call-arg, no-any-return] # as above


def _load(name: str, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        name, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    return loaded.to(device).eval()  # type: ignore[arg-type, no-any-return] # as above


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
