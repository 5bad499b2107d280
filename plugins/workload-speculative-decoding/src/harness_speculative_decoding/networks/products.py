"""A product of a few rows with a matrix of weights, in the order in which the weights lie in memory.

Decoding multiplies one row, or a handful, with every matrix of a model. Which order of the same numbers is read fastest
depends on the machine, the shape and how many rows there are; `layouts` finds out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

Layout = Literal["input", "output", "linear", "packed", "int8"]
"""How weights are stored and multiplied.

`input`: by input, `rows @ matrix`. `output`: by output, `(matrix @ rows.T).T`. `linear`: by output, as PyTorch's linear
layers do it. `packed`: a copy in the blocks that oneDNN computes in, beside the weights, which are stored by output.
`int8`: likewise a copy, of 8-bit integers with a scale an output; products are in bfloat16.
"""

LAYOUTS: tuple[Layout, ...] = ("input", "output", "linear", "packed")
"""Those that give the same numbers but for the order of additions."""

FEW_ROWS = 32
"""More rows than these, as a prompt has, are multiplied as PyTorch's linear layers do it."""


class Multiply(Protocol):
    """A product with one matrix."""

    def __call__(self, rows: Tensor, onto: Tensor | None = None, /) -> Tensor:
        """(rows, inputs) -> (rows, outputs), contiguous; `onto` is added."""


def multiplier(layout: Layout, stored: Tensor, bias: Tensor | None, rows: int) -> Multiply:
    """The product with a matrix.

    Args:
        layout: how `stored` lies in memory.
        stored: weights, (inputs, outputs) in layout `input`, else (outputs, inputs).
        bias: added to each row, (outputs,).
        rows: how many there mostly are; what is packed is packed for them.

    Raises:
        RuntimeError: `packed`, and oneDNN does not take these weights: float64, another device, a build without it;
            `int8`, and PyTorch has no such product.
    """
    if layout == "packed":
        return _packed(stored, bias, rows)
    if layout == "int8":
        return _in_8_bits(stored, bias)

    def by_input(rows: Tensor, onto: Tensor | None = None) -> Tensor:
        if bias is None:
            return torch.mm(rows, stored) if onto is None else torch.addmm(onto, rows, stored)
        product = torch.addmm(bias, rows, stored)
        return product if onto is None else product.add_(onto)

    def linear(rows: Tensor, onto: Tensor | None = None) -> Tensor:
        product = functional.linear(rows, stored, bias)
        return product if onto is None else product.add_(onto)

    def by_output(rows: Tensor, onto: Tensor | None = None) -> Tensor:
        if len(rows) > FEW_ROWS:
            return linear(rows, onto)
        turned = torch.mm(stored, rows.t()) if bias is None else torch.addmm(bias[:, None], stored, rows.t())
        return turned.t().contiguous() if onto is None else onto + turned.t()

    if layout == "input":
        return by_input
    return linear if layout == "linear" else by_output


def _packed(stored: Tensor, bias: Tensor | None, rows: int) -> Multiply:
    try:
        pack, multiply = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
        with torch.inference_mode(mode=False), torch.no_grad():
            blocks: Tensor = pack(stored.detach(), rows)
    except AttributeError as error:  # what TorchInductor uses, and no public interface
        raise RuntimeError(f"oneDNN packs no weights here: {error}") from error

    def packed(rows: Tensor, onto: Tensor | None = None) -> Tensor:
        product: Tensor = (
            functional.linear(rows, stored, bias)
            if len(rows) > FEW_ROWS
            else multiply(rows, blocks, bias, "none", [], "")
        )
        return product if onto is None else product.add_(onto)

    return packed


def rounded(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (outputs, inputs) as integers from -127 to 127, and the scale of each output, (outputs, 1).

    Integers times scales, rounded once more, are the same integers.
    """
    scales = weights.abs().amax(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny) / 127
    return (weights / scales).round().clamp(-127, 127).to(torch.int8), scales


def _in_8_bits(stored: Tensor, bias: Tensor | None) -> Multiply:
    multiply = getattr(torch, "_weight_int8pack_mm", None)
    if multiply is None:
        raise RuntimeError("this PyTorch has no products with 8-bit weights")
    with torch.inference_mode(mode=False), torch.no_grad():
        integers, scales = rounded(stored.detach())
        across, ones = scales[:, 0].contiguous(), torch.ones(len(scales), dtype=torch.bfloat16, device=stored.device)

    def in_8_bits(rows: Tensor, onto: Tensor | None = None) -> Tensor:
        if len(rows) > FEW_ROWS:
            product = functional.linear(rows, stored, bias)
        else:
            product = multiply(rows.bfloat16(), integers, ones).to(rows.dtype) * across
            if bias is not None:
                product = product.add_(bias)
        return product if onto is None else product.add_(onto)

    return in_8_bits


class Product:
    """Several linear layers of one input as one matrix.

    The layers' own weights become views of the matrix, so that nothing is stored twice and both stay in step; only
    layouts `packed` and `int8` multiply with a copy, which later changes of the weights do not reach.

    Args:
        linears: layers with the same inputs.
        layout: of the matrix.
        rows: as in `multiplier`.

    Attributes:
        multiply: the product.
    """

    def __init__(self, linears: Sequence[nn.Linear], layout: Layout = "input", rows: int = 1) -> None:
        widths = [linear.out_features for linear in linears]
        across = 1 if layout == "input" else 0
        with torch.inference_mode(mode=False), torch.no_grad():  # these weights may be trained later
            weights = [linear.weight.t() if layout == "input" else linear.weight for linear in linears]
            self._matrix = torch.cat(weights, across).contiguous()
            for linear, part in zip(linears, torch.split(self._matrix, widths, across), strict=True):
                linear.weight.data = part.t() if layout == "input" else part
            biases: list[Tensor] = [linear.bias for linear in linears]
            bias = None if biases[0] is None else torch.cat(biases)
            if bias is not None:
                for linear, part in zip(linears, torch.split(bias, widths), strict=True):
                    linear.bias.data = part
        self.multiply = multiplier(layout, self._matrix, bias, rows)

    def holds(self, weight: Tensor) -> bool:
        """Whether a layer's weight is a view of the matrix."""
        return weight.data_ptr() == self._matrix.data_ptr() and weight.dtype == self._matrix.dtype
