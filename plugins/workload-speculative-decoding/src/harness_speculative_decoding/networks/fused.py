"""The forward pass of Llama-like models as plain tensor operations on fused weights.

For the short passes of decoding, what transformers does around the arithmetic takes as long as the arithmetic. Here a
layer is four matrix products, two norms, a rotation and an attention kernel; queries, keys and values are one product,
and so are the gate and the feed-forward's input. Shapes depend on nothing but the arguments, as CUDA graphs need it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM
from transformers.activations import SiLUActivation

from harness_speculative_decoding.networks.layouts import Layouts, Shape
from harness_speculative_decoding.networks.products import Product, multiplier

FUSABLE = (LlamaForCausalLM, Qwen2ForCausalLM)
"""Architectures that this pass computes; of other classes not even a subclass is taken for one."""

ROTATIONS = ("default", "linear", "llama3")
"""Rotary embeddings whose angles depend on the position alone."""


Angles = tuple[Tensor, Tensor]
"""Cosines and signed sines of rotary embeddings."""


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


def fused_pass(model: PreTrainedModel, layouts: Layouts | None = None) -> FusedPass:
    """The pass of a model, made once for the same layouts; raises ValueError where transformers must do it."""
    if reason := why_not(model):
        raise ValueError(reason)
    made = _MADE.get(model)
    if made is None or not made.is_of(model) or (layouts is not None and layouts != made.layouts):
        made = _MADE[model] = FusedPass(model, layouts or Layouts())
    return made


class FusedPass:
    """Logits from token ids, positions and a mask.

    The model's own weights become views of the fused ones, so that nothing is stored twice and both stay in step; what
    a layout packs is a copy of the weights as they are now.

    Args:
        model: one for which `why_not` is empty, in eval mode.
        layouts: of its weights.
    """

    def __init__(self, model: PreTrainedModel, layouts: Layouts) -> None:
        config: Any = model.config
        inner: Any = model.model
        self.layouts = layouts
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._embedding: Tensor = inner.embed_tokens.weight
        self._rotary: Callable[..., tuple[Tensor, Tensor]] = inner.rotary_emb
        self._norm = _norm_of(inner.norm, config.rms_norm_eps)
        self._layers = [_Weights(layer, layouts, config.rms_norm_eps) for layer in inner.layers]
        self._scale = inner.layers[0].self_attn.scaling
        head: Tensor = model.lm_head.weight
        layout = layouts.of(Shape(head.shape[1], head.shape[0], head=True))
        self._head = multiplier(layout, head, None, layouts.rows)
        self._angles: Angles | None = None
        model.register_state_dict_post_hook(_saved_apart)  # type: ignore[no-untyped-call]

    def is_of(self, model: PreTrainedModel) -> bool:
        """Whether the model still uses these weights: moving it to a device or a number type gives it others."""
        return self._layers[0].joined.holds(model.model.layers[0].self_attn.q_proj.weight)

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def angles(self, capacity: int) -> Angles:
        """Cosines and sines of at least so many positions, each (positions, 1, width).

        A larger table replaces a smaller one for those who ask later; who holds the smaller one keeps it.
        """
        if self._angles is None or len(self._angles[0]) < capacity:
            positions = torch.arange(capacity, device=self._embedding.device)[None]
            cosine, sine = (part[0, :, None] for part in self._rotary(self._embedding, positions))
            # The rotation swaps halves and negates one; the sign is put into the sine.
            half = sine.shape[-1] // 2
            self._angles = cosine, torch.cat([-sine[..., :half], sine[..., half:]], -1)
        return self._angles

    def __call__(
        self, tokens: Tensor, angles: Angles, mask: Tensor | None, layers: Sequence[Layer], keep: int
    ) -> Tensor:
        """Reads tokens and writes their keys and values.

        Args:
            tokens: ids, (rows, n).
            angles: cosines and sines of the tokens, (rows, n, 1, width), or (n, 1, width) where all rows have the same.
            mask: added to the attention scores, (rows or 1, 1, n, width); None where all is seen.
            layers: where keys and values are kept.
            keep: of how many last tokens the logits are wanted.

        Returns:
            Logits, (rows, keep, vocabulary).
        """
        rows, count = tokens.shape
        cosine, sine = angles
        width = sine.shape[-1]
        groups = self._heads // self._kv_heads
        if mask is not None and groups > 1:
            mask = mask.repeat(1, 1, groups, 1)
        stream = functional.embedding(tokens, self._embedding).view(rows * count, -1)
        for weights, layer in zip(self._layers, layers, strict=True):
            heads = weights.qkv(weights.attention_norm(stream)).view(rows, count, -1, width)
            asked, values = torch.split(heads, [self._heads + self._kv_heads, self._kv_heads], 2)
            turned = torch.addcmul(asked * cosine, asked.roll(width // 2, -1), sine).transpose(1, 2)
            queries, keys = torch.split(turned, [self._heads, self._kv_heads], 1)
            keys, values = layer.update(keys, values.transpose(1, 2))
            seen = self._attention(queries, keys, values, mask, groups)
            stream = weights.output(seen.transpose(1, 2).reshape(rows * count, -1), stream)
            gate, up = weights.gate_up(weights.feed_forward_norm(stream)).chunk(2, -1)
            stream = weights.down(weights.activation(gate) * up, stream)
        if keep < count:
            stream = stream.view(rows, count, -1)[:, count - keep :].reshape(rows * keep, -1)
        return self._head(self._norm(stream)).view(rows, keep, -1)

    def _attention(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, groups: int) -> Tensor:
        """Attention in which the queries that share keys are taken for more tokens of one head."""
        shape = queries.shape
        if groups > 1:
            queries = queries.reshape(shape[0], self._kv_heads, groups * shape[2], shape[3])
        seen = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=self._scale)
        return seen.reshape(shape) if groups > 1 else seen


def _norm_of(norm: nn.Module, eps: float) -> Callable[[Tensor], Tensor]:
    """The norm in few operations where number types allow; elsewhere casts are part of the model's arithmetic."""
    weight: Tensor = norm.weight  # type: ignore[assignment]
    if weight.dtype != torch.float32:
        return norm
    if weight.device.type != "cpu":
        return lambda stream: functional.rms_norm(stream, weight.shape, weight, eps)
    scale = math.sqrt(weight.shape[0])
    zero, floor = torch.zeros(()), torch.tensor(math.sqrt(weight.shape[0] * eps))

    def normed(stream: Tensor) -> Tensor:
        # On a CPU PyTorch computes that norm in twice as many operations as these, and here they are what costs.
        length = torch.linalg.vector_norm(stream, dim=-1, keepdim=True)
        return torch.addcdiv(zero, stream * weight, torch.hypot(length, floor), value=scale)

    return normed


def _saved_apart(module: nn.Module, state: dict[str, Any], *_: object) -> None:
    """Gives a saved model weights of its own, as file formats want them."""
    del module
    for name, value in state.items():
        if isinstance(value, Tensor) and not value.is_contiguous():
            state[name] = value.contiguous()


class _Weights:
    """The weights of a layer, fused."""

    def __init__(self, layer: Any, layouts: Layouts, eps: float) -> None:
        def product(*linears: nn.Linear) -> Product:
            shape = Shape(linears[0].in_features, sum(linear.out_features for linear in linears))
            return Product(linears, layouts.of(shape), layouts.rows)

        attention, mlp = layer.self_attn, layer.mlp
        self.attention_norm = _norm_of(layer.input_layernorm, eps)
        self.feed_forward_norm = _norm_of(layer.post_attention_layernorm, eps)
        plain = isinstance(mlp.act_fn, nn.SiLU | SiLUActivation)
        self.activation: Callable[[Tensor], Tensor] = functional.silu if plain else mlp.act_fn
        self.joined = product(attention.q_proj, attention.k_proj, attention.v_proj)
        self.qkv = self.joined.multiply
        self.output = product(attention.o_proj).multiply
        self.gate_up = product(mlp.gate_proj, mlp.up_proj).multiply
        self.down = product(mlp.down_proj).multiply


_MADE: WeakKeyDictionary[PreTrainedModel, FusedPass] = WeakKeyDictionary()
