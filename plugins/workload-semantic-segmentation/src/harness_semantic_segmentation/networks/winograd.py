"""3 x 3 convolutions of stride 1 by Winograd's minimal filtering, F(2,3) and F(4,3), in plain torch for CPUs.

An output tile of m x m pixels takes (m + 2)^2 products a pair of channels where the definition takes 9 m^2: 2.25 times
fewer with m = 2, 4 times with m = 4 (Lavin and Gray, arXiv 1509.09308). The transforms before and after are additions
on whole strips of the map. A strip is a few rows of tiles: what lies between the steps stays in the cache, and memory
does not grow with the map. The transformed weights are (m + 2)^2 / 9 times as large as the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Tile = Literal[2, 4]
Views = tuple[Tensor, ...]

FILTERS: Final[dict[Tile, list[list[float]]]] = {
    2: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
    4: [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
}
"""The matrix G by the side of the output tile: it takes three taps to the products' positions."""


def fits(conv: nn.Module) -> bool:
    """Whether the module is a convolution that `WinogradConv2d` computes."""
    return (
        isinstance(conv, nn.Conv2d)
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def transformed(weight: Tensor, tile: Tile) -> Tensor:
    """Weights out x in x 3 x 3 to (tile + 2)^2 x in x out, computed in float64."""
    matrix = torch.tensor(FILTERS[tile], dtype=torch.float64, device=weight.device)
    products = torch.einsum("ia,jb,ocab->ijco", matrix, matrix, weight.detach().double())
    return products.flatten(0, 1).to(weight.dtype).contiguous()


def restored(products: Tensor, tile: Tile) -> Tensor:
    """The weights, out x in x 3 x 3, that `transformed` was given, but for rounding."""
    matrix = torch.tensor(FILTERS[tile], dtype=torch.float64, device=products.device)
    inverse = torch.linalg.pinv(matrix)
    side = tile + 2
    spread = products.view(side, side, *products.shape[1:]).double()
    return torch.einsum("ai,bj,ijco->ocab", inverse, inverse, spread).to(products.dtype)


def _rows_in_2(d: Views, r: Views, _spare: Views) -> None:
    """Four samples to four, F(2,3)."""
    torch.sub(d[0], d[2], out=r[0])
    torch.add(d[1], d[2], out=r[1])
    torch.sub(d[2], d[1], out=r[2])
    torch.sub(d[1], d[3], out=r[3])


def _rows_in_4(d: Views, r: Views, spare: Views) -> None:
    """Six samples to six, F(4,3); sums that two of them share are formed once."""
    even, odd = spare
    torch.sub(d[4], d[2], out=even)
    torch.sub(d[3], d[1], out=odd)
    torch.sub(d[0], d[2], out=r[0])
    torch.add(even, r[0], alpha=4, out=r[0])
    torch.sub(d[5], d[3], out=r[5])
    torch.sub(r[5], odd, alpha=4, out=r[5])
    torch.add(even, odd, alpha=2, out=r[3])
    torch.sub(even, odd, alpha=2, out=r[4])
    torch.sub(even, d[2], alpha=3, out=even)
    torch.sub(odd, d[1], alpha=3, out=odd)
    torch.add(even, odd, out=r[1])
    torch.sub(even, odd, out=r[2])


def _rows_out_2(m: Views, o: Sequence[Tensor]) -> None:
    """Four products to two outputs; the products are overwritten."""
    m[0].add_(m[1])
    torch.add(m[0], m[2], out=o[0])
    m[1].sub_(m[2])
    torch.sub(m[1], m[3], out=o[1])


def _rows_out_4(m: Views, o: Sequence[Tensor]) -> None:
    """Six products to four outputs; the products are overwritten."""
    m[1].add_(m[2])
    torch.sub(m[1], m[2], alpha=2, out=m[2])
    m[3].add_(m[4])
    torch.sub(m[3], m[4], alpha=2, out=m[4])
    m[0].add_(m[1])
    torch.add(m[0], m[3], out=o[0])
    torch.add(m[2], m[4], alpha=2, out=o[1])
    torch.add(m[1], m[3], alpha=4, out=o[2])
    m[5].add_(m[2])
    torch.add(m[5], m[4], alpha=8, out=o[3])


_INPUT: Final[dict[Tile, Callable[[Views, Views, Views], None]]] = {2: _rows_in_2, 4: _rows_in_4}
_OUTPUT: Final[dict[Tile, Callable[[Views, Sequence[Tensor]], None]]] = {2: _rows_out_2, 4: _rows_out_4}


class _Shape(NamedTuple):
    """What the buffers of a strip depend on: side of a tile, rows and columns of tiles, channels."""

    tile: Tile
    rows: int
    columns: int
    channels: int
    out: int


class _Strip:
    """Views into the buffers for strips of one shape, made once.

    Columns of the padded input are kept by their number modulo the tile's side, so that column j of all tiles of a row
    lies in one piece.
    """

    def __init__(self, shape: _Shape, take: Callable[..., Tensor]) -> None:
        tile, rows, columns, channels, out = shape
        side = tile + 2
        self.padded = take(0, tile, tile * rows + 2, columns + 1, channels)
        by_row = take(1, side, tile, rows, columns + 1, channels)
        spare = take(2, 2, side, rows, columns + 1, channels).flatten()
        self.before = take(3, side, side, rows * columns, channels)
        self.after = take(4, side, side, rows * columns, out)
        between = take(1, tile, side, rows, columns, out)
        self.spares = tuple(
            tuple(spare[n * size.numel() : (n + 1) * size.numel()].view(size) for n in range(2))
            for size in (by_row.shape[1:], torch.Size((side, rows, columns, channels)))
        )
        self.rows = tuple(self.padded[:, i : i + tile * (rows - 1) + 1 : tile] for i in range(side))
        self.by_row = tuple(by_row)
        self.columns = tuple(by_row[:, j % tile, :, j // tile : j // tile + columns] for j in range(side))
        tiles = self.before.view(side, side, rows, columns, channels)
        self.by_column = tuple(tiles[:, j] for j in range(side))
        self.inputs, self.products = self.before.flatten(0, 1), self.after.flatten(0, 1)
        self.middle = self.after[1, 1]
        self.after_rows = tuple(self.after)
        self.between = tuple(each.view(side, rows * columns, out) for each in between)
        self.between_columns = tuple(between[:, j] for j in range(side))


class Workspace:
    """Buffers that all convolutions of a network share; they grow to what the largest strip needs."""

    def __init__(self) -> None:
        self._buffers: dict[int, Tensor] = {}
        self._strips: dict[_Shape, _Strip] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def strip(self, shape: _Shape) -> _Strip:
        """The views for a shape."""
        if shape not in self._strips:
            self._strips[shape] = _Strip(shape, self._take)
        return self._strips[shape]

    def _take(self, number: int, *size: int) -> Tensor:
        """A view of that size into a buffer; where the buffer is too small it grows, and older views are dropped."""
        needed = torch.Size(size).numel()
        if number not in self._buffers or self._buffers[number].numel() < needed:
            self._strips.clear()
            self._buffers[number] = torch.zeros(needed)
        return self._buffers[number][:needed].view(size)


class WinogradConv2d(nn.Module):
    """A 3 x 3 convolution of stride 1 and padding 1, float32 on a CPU; anything else goes the direct way.

    Args:
        conv: that `fits`; its weights are shared, not copied.
        tile: side of an output tile, 2 or 4.
        rows: rows of tiles in a strip, at least 1.
        workspace: buffers, shared by the convolutions of a network; a network is run by one thread at a time.

    Raises:
        ValueError: a convolution that does not fit.
    """

    def __init__(self, conv: nn.Conv2d, tile: Tile, rows: int, workspace: Workspace | None = None) -> None:
        super().__init__()
        if not fits(conv):
            raise ValueError(f"{conv} is no 3 x 3 convolution of stride 1 with zeros around it, in one group")
        self.conv: nn.Conv2d | None = conv
        self.tile, self.strip_rows, self.out_channels, self.in_channels = (
            tile,
            rows,
            conv.out_channels,
            conv.in_channels,
        )
        self.bias = conv.bias
        self._workspace = workspace or Workspace()
        self.register_buffer("products", transformed(conv.weight, tile), persistent=False)

    products: Tensor

    @property
    def weight(self) -> Tensor:
        """The weights, out x in x 3 x 3: as they were, or computed back once they are released."""
        return restored(self.products, self.tile) if self.conv is None else self.conv.weight

    def release(self) -> None:
        """Lets go of the weights as they were: the direct way, where it is needed after all, computes them back."""
        self.conv = None

    def forward(self, x: Tensor) -> Tensor:
        """B x in x H x W to B x out x H x W, channels-last."""
        usable = x.dtype == self.products.dtype == torch.float32 and x.device.type == "cpu"
        if not usable or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return functional.conv2d(x, self.weight, self.bias, padding=1)
        batch, _, height, width = x.shape
        tile, rows_of_tiles, columns = self.tile, -(-height // self.tile), -(-width // self.tile)
        out = x.new_empty(batch, rows_of_tiles, tile, columns, tile, self.out_channels)
        pixels = x.permute(0, 2, 3, 1)
        for first in range(0, rows_of_tiles, self.strip_rows):
            rows = min(self.strip_rows, rows_of_tiles - first)
            shape = _Shape(tile, rows, columns, self.in_channels, self.out_channels)
            strip = self._workspace.strip(shape)
            for image in range(batch):
                _pad(pixels[image], strip.padded, first * tile, tile)
                self._strip(strip, out[image, first : first + rows])
        whole = out.view(batch, rows_of_tiles * tile, columns * tile, -1)
        return whole[:, :height, :width].permute(0, 3, 1, 2)

    def _strip(self, strip: _Strip, out: Tensor) -> None:
        """From the padded strip to rows x tile x columns x tile x out."""
        into, back = _INPUT[self.tile], _OUTPUT[self.tile]
        into(strip.rows, strip.by_row, strip.spares[0])
        into(strip.columns, strip.by_column, strip.spares[1])
        torch.bmm(strip.inputs, self.products, out=strip.products)
        if self.bias is not None:
            strip.middle.add_(self.bias)  # the one position that every output takes once, with the factor 1
        back(strip.after_rows, strip.between)
        back(strip.between_columns, [out[:, :, :, column].transpose(0, 1) for column in range(self.tile)])


def _pad(pixels: Tensor, padded: Tensor, top: int, tile: int) -> None:
    """Copies rows from `top` - 1 on, H x W x C, into the strip, a zero wherever there is no pixel."""
    height = pixels.shape[0]
    length, quotients = padded.shape[1:3]
    before = 1 if top == 0 else 0
    after = min(length, height - top + 1)
    if before:
        padded[:, 0].zero_()
    if after < length:
        padded[:, after:].zero_()
    rows = pixels[top - 1 + before : top - 1 + after]
    for phase in range(tile):  # column w lies at w + 1
        start = 1 if phase == 0 else 0
        found = rows[:, start * tile + phase - 1 :: tile]
        end = start + found.shape[1]
        padded[phase, before:after, start:end].copy_(found)
        if start:
            padded[phase, before:after, 0].zero_()
        if end < quotients:
            padded[phase, before:after, end:].zero_()
