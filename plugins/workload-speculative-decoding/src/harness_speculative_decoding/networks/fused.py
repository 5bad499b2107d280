"""The forward pass of Llama-like models as plain tensor operations on fused weights.

For the short passes of decoding, what transformers does around the arithmetic takes as long as the arithmetic. Here a
layer is four matrix products, two norms, a rotation and an attention kernel; queries, keys and values are one product,
and so are the gate and the feed-forward's input. Shapes depend on nothing but the arguments, as CUDA graphs need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM

FUSABLE = (LlamaForCausalLM, Qwen2ForCausalLM)
"""Architectures that this pass computes; of other classes not even a subclass is taken for one."""

ROTATIONS = ("default", "linear", "llama3")
"""Rotary embeddings whose angles depend on the position alone."""


class Layer(Protocol):
    """Where a layer's keys and values are kept."""

    def update(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """Writes (rows, heads, n, width) and returns everything that is looked at."""


def why_not(model: PreTrainedModel) -> str:
    """Why a model is left to transformers; empty where it is not."""
    if type(model) not in FUSABLE:
        return f"{type(model).__name__} is not among {', '.join(known.__name__ for known in FUSABLE)}"
    config: Any = model.config
    if config.rope_parameters["rope_type"] not in ROTATIONS:
        return f"rotary embedding {config.rope_parameters['rope_type']} depends on more than the position"
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        return "some layers do not attend to everything before them"
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if any(type(linear) is not nn.Linear or type(linear.weight) is not nn.Parameter for linear in linears):
        return "its linear layers are not plain matrices"
    if len({weight.dtype for weight in model.parameters()}) > 1:
        return "its weights are of several number types"
    return ""


def fused_pass(model: PreTrainedModel) -> FusedPass:
    """The pass of a model, made once; raises ValueError where transformers must do it."""
    if reason := why_not(model):
        raise ValueError(reason)
    made = _MADE.get(model)
    if made is None or not made.is_of(model):
        made = _MADE[model] = FusedPass(model)
    return made


class FusedPass:
    """Logits from token ids, positions and a mask.

    The model's own weights become views of the fused ones, so that nothing is stored twice and both stay in step.

    Args:
        model: one for which `why_not` is empty, in eval mode.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        config: Any = model.config
        inner: Any = model.model
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._eps = config.rms_norm_eps
        self._embedding: Tensor = inner.embed_tokens.weight
        self._head: Tensor = model.lm_head.weight
        self._rotary: Callable[..., tuple[Tensor, Tensor]] = inner.rotary_emb
        self._norm = inner.norm
        self._layers = [_Weights(layer) for layer in inner.layers]
        self._scale = inner.layers[0].self_attn.scaling
        self._angles: tuple[Tensor, Tensor] | None = None
        model.register_state_dict_post_hook(_saved_apart)  # type: ignore[no-untyped-call]

    def is_of(self, model: PreTrainedModel) -> bool:
        """Whether the model still uses these weights: moving it to a device or a number type gives it others."""
        return self._layers[0].qkv.holds(model.model.layers[0].self_attn.q_proj.weight)

    @torch.inference_mode()
    def prepare(self, capacity: int) -> None:
        """Works out the rotations of so many positions."""
        if self._angles is not None and len(self._angles[0]) >= capacity:
            return
        positions = torch.arange(capacity, device=self._embedding.device)[None]
        cosine, sine = (part[0, :, None] for part in self._rotary(self._embedding, positions))
        # The rotation swaps halves and negates one; the sign is put into the sine.
        half = sine.shape[-1] // 2
        self._angles = cosine, torch.cat([-sine[..., :half], sine[..., half:]], -1)

    def __call__(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, layers: Sequence[Layer], keep: int
    ) -> Tensor:
        """Reads tokens and writes their keys and values.

        Args:
            tokens: ids, (rows, n).
            positions: of the tokens, (rows, n), or (1, n) where all rows have the same.
            mask: added to the attention scores, (rows or 1, 1, n, width); None where all is seen.
            layers: where keys and values are kept.
            keep: of how many last tokens the logits are wanted.

        Returns:
            Logits, (rows, keep, vocabulary).
        """
        assert self._angles is not None, "prepare() comes first"
        rows, count = tokens.shape
        cosine, sine = (table[positions] for table in self._angles)
        groups = self._heads // self._kv_heads
        if mask is not None and groups > 1:
            mask = mask.repeat(1, 1, groups, 1)
        stream = functional.embedding(tokens, self._embedding).view(rows * count, -1)
        for weights, layer in zip(self._layers, layers, strict=True):
            heads = weights.qkv(self._normed(stream, weights.attention_norm)).view(rows, count, -1, sine.shape[-1])
            turned = heads[:, :, : self._heads + self._kv_heads]
            turned = torch.addcmul(turned * cosine, turned.roll(sine.shape[-1] // 2, -1), sine)
            keys, values = layer.update(
                turned[:, :, self._heads :].transpose(1, 2),
                heads[:, :, self._heads + self._kv_heads :].transpose(1, 2),
            )
            queries = turned[:, :, : self._heads].transpose(1, 2)
            seen = self._attention(queries, keys, values, mask, groups)
            stream = stream + weights.output(seen.transpose(1, 2).reshape(rows * count, -1))
            gate, up = weights.gate_up(self._normed(stream, weights.feed_forward_norm)).chunk(2, -1)
            stream = stream + weights.down(weights.activation(gate) * up)
        last = stream.view(rows, count, -1)[:, count - keep :]
        return functional.linear(self._normed(last, self._norm), self._head)

    def _attention(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, groups: int) -> Tensor:
        """Attention in which the queries that share keys are taken for more tokens of one head."""
        shape = queries.shape
        if groups > 1:
            queries = queries.reshape(shape[0], self._kv_heads, groups * shape[2], shape[3])
        seen = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=self._scale)
        return seen.reshape(shape) if groups > 1 else seen

    def _normed(self, stream: Tensor, norm: nn.Module) -> Tensor:
        """The norm, in one call where number types allow; elsewhere the casts are part of the model's arithmetic."""
        if stream.dtype == torch.float32:
            weight: Tensor = norm.weight  # type: ignore[assignment]
            return functional.rms_norm(stream, weight.shape, weight, self._eps)
        normed: Tensor = norm(stream)
        return normed


def _saved_apart(module: nn.Module, state: dict[str, Any], *_: object) -> None:
    """Gives a saved model weights of its own, as file formats want them."""
    del module
    for name, value in state.items():
        if isinstance(value, Tensor) and not value.is_contiguous():
            state[name] = value.contiguous()


class _Weights:
    """The weights of a layer, fused."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.attention_norm = layer.input_layernorm
        self.feed_forward_norm = layer.post_attention_layernorm
        self.activation: Callable[[Tensor], Tensor] = mlp.act_fn
        self.qkv = _Product([attention.q_proj, attention.k_proj, attention.v_proj])
        self.output = _Product([attention.o_proj])
        self.gate_up = _Product([mlp.gate_proj, mlp.up_proj])
        self.down = _Product([mlp.down_proj])


class _Product:
    """Several linear layers of one input as one matrix, stored by input: fewer than ten rows are multiplied faster."""

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        widths = [linear.out_features for linear in linears]
        with torch.inference_mode(mode=False), torch.no_grad():  # these weights may be trained later
            self._matrix = torch.cat([linear.weight.t() for linear in linears], 1).contiguous()
            for linear, part in zip(linears, torch.split(self._matrix, widths, 1), strict=True):
                linear.weight.data = part.t()
            biases: list[Tensor] = [linear.bias for linear in linears]
            self._bias = None if biases[0] is None else torch.cat(biases)
            if self._bias is not None:
                for linear, part in zip(linears, torch.split(self._bias, widths), strict=True):
                    linear.bias.data = part

    def holds(self, weight: Tensor) -> bool:
        """Whether a layer's weight is a view of the matrix."""
        return weight.data_ptr() == self._matrix.data_ptr() and weight.dtype == self._matrix.dtype

    def __call__(self, rows: Tensor) -> Tensor:
        """(rows, inputs) -> (rows, outputs)."""
        return rows @ self._matrix if self._bias is None else torch.addmm(self._bias, rows, self._matrix)


_MADE: WeakKeyDictionary[PreTrainedModel, FusedPass] = WeakKeyDictionary()
