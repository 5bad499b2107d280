"""How each 3 x 3 convolution of a network is computed: directly, or by F(2,3) or F(4,3), whichever a timing prefers.

Times are taken by shape, not by layer, and can be kept: what is chosen follows from them alone. A choice holds only if
the network's logits stay within `TOLERANCE` of the faithful ones with the weights that it has.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor, nn

from harness_semantic_segmentation.networks.winograd import Tile, WinogradConv2d, Workspace, fits

Setting = Literal["auto", "off", "f2", "f4"]
TILES: Final[dict[str, Tile]] = {"f2": 2, "f4": 4}
DIRECT: Final = "direct"
TOLERANCE: Final = 1e-4
"""Largest difference from the faithful logits that a choice may make."""
MARGIN: Final = 0.95
"""Share of the direct way's time that another way may take to be chosen: less of a gain is noise."""
ROUNDS: Final = 5
STRIP_BYTES: Final = (1 << 20, 12 << 20)
"""Products of a strip, before and after: smaller strips do not fill a matrix product, larger ones leave the cache."""


_ATTEMPTS: Final[dict[Setting, tuple[tuple[str, ...], ...]]] = {
    "auto": (("f2", "f4"), ("f2",), ()),
    "f4": (("f4",), ("f2",), ()),
    "f2": (("f2",), ()),
    "off": ((),),
}


class ConvShape(NamedTuple):
    """What the time of a 3 x 3 convolution of stride 1 depends on."""

    batch: int
    channels: int
    height: int
    width: int
    out: int

    def __str__(self) -> str:
        return f"{self.batch} x {self.channels} x {self.height} x {self.width} to {self.out}"


Seconds = Mapping[str, float]
"""By way: `direct`, or `f4/8`, F(4,3) in strips of 8 rows of tiles."""
Timer = Callable[[ConvShape], Seconds]


def ways(shape: ConvShape) -> list[str]:
    """The direct way, and each tile with strips of the sizes that are worth a try."""
    found = [DIRECT]
    for name, tile in TILES.items():
        most = -(-shape.height // tile)
        sizes = [1 << power for power in range(most.bit_length())]
        if sizes[-1] != most:
            sizes.append(most)
        row = 4 * (tile + 2) ** 2 * -(-shape.width // tile) * (shape.channels + shape.out)
        small, large = STRIP_BYTES
        wanted = [rows for rows in sizes if small <= rows * row <= large]
        fitting = [rows for rows in sizes if rows * row <= large] or [1]
        found += [f"{name}/{rows}" for rows in wanted or fitting[-1:]]
    return found


def layer(conv: nn.Conv2d, way: str, workspace: Workspace | None = None) -> nn.Module:
    """A convolution computed that way."""
    if way == DIRECT:
        return conv
    name, _, rows = way.partition("/")
    return WinogradConv2d(conv, TILES[name], int(rows), workspace)


@torch.inference_mode()
def measured(shape: ConvShape) -> dict[str, float]:
    """Seconds of each way with random values, the least of interleaved rounds.

    Process CPU time with one thread, which neighbours on the machine disturb least; wall time with more.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    generator = torch.Generator().manual_seed(0)
    size = (shape.batch, shape.channels, shape.height, shape.width)
    x = torch.randn(size, generator=generator).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(shape.out, shape.channels, 3, 3, generator=generator)
    conv = nn.Conv2d(shape.channels, shape.out, 3, padding=1, device="meta").to_empty(device="cpu")
    conv.weight = nn.Parameter(weight / (9 * shape.channels) ** 0.5, requires_grad=False)
    conv.bias = nn.Parameter(torch.zeros(shape.out), requires_grad=False)
    conv = conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    workspace = Workspace()
    seconds: dict[str, float] = {}
    layers = {way: layer(conv, way, workspace) for way in ways(shape)}
    for turn in range(ROUNDS + 1):
        for way, module in layers.items():
            if turn == 1:
                module(x)  # the buffers have their last size
            start = clock()
            module(x)
            took = clock() - start
            if turn:
                seconds[way] = min(took, seconds.get(way, took))
    return seconds


def chosen(seconds: Seconds, tiles: Collection[str], *, forced: bool = False) -> str:
    """The fastest of the ways with these tiles; the direct way without any, and where none gains enough.

    Args:
        seconds: by way.
        tiles: names in `TILES`.
        forced: not the direct way, however slow the others are.
    """
    allowed = {way: took for way, took in seconds.items() if way.partition("/")[0] in tiles}
    best = min(allowed, key=lambda way: allowed[way], default=DIRECT)
    return best if forced or seconds[best] <= MARGIN * seconds[DIRECT] else DIRECT


@dataclass
class Convolutions:
    """What was chosen for a network, for the record.

    Attributes:
        setting: what was asked for.
        reason: why faster ways were given up, or not tried; empty where times alone decided.
        limit: bytes that transformed weights may add; None without a limit.
        layers: way of each convolution by its name in the network.
        shapes: the shape that each one was chosen for.
        seconds: the times behind it, by shape.
        error: largest difference from the faithful logits; None where nothing was tried.
        weight_bytes: transformed weights, in place of those that they were computed from.
        buffer_bytes: buffers that all convolutions share.
    """

    setting: Setting
    reason: str = ""
    limit: int | None = None
    layers: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    error: float | None = None
    weight_bytes: int = 0
    buffer_bytes: int = 0

    def facts(self) -> dict[str, Any]:
        """JSON values; times in milliseconds."""
        return {
            "winograd": self.setting,
            "reason": self.reason,
            "limit_bytes": self.limit,
            "counts": dict(Counter(way.split("/")[0] for way in self.layers.values())),
            "layers": self.layers,
            "shapes": self.shapes,
            "milliseconds": {
                shape: {way: round(1e3 * took, 3) for way, took in times.items()}
                for shape, times in self.seconds.items()
            },
            "error": self.error,
            "tolerance": TOLERANCE,
            "transformed_weight_bytes": self.weight_bytes,
            "buffer_bytes": self.buffer_bytes,
        }


def shapes_of(network: nn.Module, run: Callable[[], object]) -> dict[str, ConvShape]:
    """Shapes of all convolutions that `fits`, by name, as they come in a run."""
    found: dict[str, ConvShape] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def seen(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            batch, channels, height, width = inputs[0].shape
            found[name] = ConvShape(batch, channels, height, width, module.out_channels)  # type: ignore[arg-type]

        return seen

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in network.named_modules() if fits(module)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def install(network: nn.Module, layers: Mapping[str, str], workspace: Workspace) -> int:
    """Computes the named convolutions that way, whatever way they took before; bytes of transformed weights."""
    for name, way in layers.items():
        module = network.get_submodule(name)
        conv = module.conv if isinstance(module, WinogradConv2d) else module
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, layer(conv, way, workspace))  # type: ignore[arg-type]
    return sum(module.products.nbytes for module in network.modules() if isinstance(module, WinogradConv2d))


def added_bytes(shape: ConvShape, way: str) -> int:
    """Bytes that the transformed weights of a way take beyond the weights that they replace, float32."""
    if way == DIRECT:
        return 0
    return 4 * shape.channels * shape.out * ((TILES[way.partition("/")[0]] + 2) ** 2 - 9)


def within(
    shapes: Mapping[str, ConvShape],
    times: Mapping[ConvShape, Seconds],
    tiles: Sequence[str],
    limit: int | None,
    *,
    forced: bool,
) -> dict[str, str]:
    """The way of each layer by its name, so that all together add no more bytes than the limit.

    Layers that gain most seconds a byte come first. One for which F(4,3) is too large may still take F(2,3).

    Args:
        shapes: of the layers.
        times: by shape.
        tiles: names in `TILES`.
        limit: in bytes; None for as much as it takes.
        forced: whatever way is slower than the direct one, too.
    """
    best = {name: chosen(times[shape], tiles, forced=forced) for name, shape in shapes.items()}
    if limit is None:
        return best
    found, left = dict.fromkeys(shapes, DIRECT), limit
    second = {name: chosen(times[shape], tiles[:1], forced=forced) for name, shape in shapes.items()}
    for ways_of in (best, second):

        def gain(name: str, ways_of: Mapping[str, str] = ways_of) -> float:
            shape, way = shapes[name], ways_of[name]
            return (times[shape][DIRECT] - times[shape][way]) / added_bytes(shape, way)

        wanted = [name for name, way in ways_of.items() if way != DIRECT and found[name] == DIRECT]
        for name in sorted(wanted, key=gain, reverse=True):
            added = added_bytes(shapes[name], ways_of[name])
            if added <= left:
                found[name], left = ways_of[name], left - added
    return found


def release(network: nn.Module) -> None:
    """Lets go of the weights that transformed ones replace."""
    for module in network.modules():
        if isinstance(module, WinogradConv2d):
            module.release()


def choose(
    network: nn.Module,
    run: Callable[[], Tensor],
    expected: Tensor,
    setting: Setting,
    timer: Timer = measured,
    limit: int | None = None,
) -> Convolutions:
    """Chooses the way of every convolution, and falls back to F(2,3), then to the direct way, where logits move.

    Args:
        network: whose convolutions are replaced in place; float32, on a CPU, in evaluation mode.
        run: returns the network's logits for a sample.
        expected: the faithful logits for it.
        setting: what is allowed.
        timer: times by shape, kept or taken now.
        limit: bytes that transformed weights may take beyond those that they replace; None for as many as it takes.
    """
    found = Convolutions(setting, limit=limit)
    shapes = shapes_of(network, run)
    found.shapes = {name: str(shape) for name, shape in shapes.items()}
    times = {shape: timer(shape) for shape in dict.fromkeys(shapes.values())}
    found.seconds = {str(shape): dict(seconds) for shape, seconds in times.items()}
    faults: list[str] = []
    for tiles in _ATTEMPTS[setting]:
        workspace = Workspace()
        found.layers = within(shapes, times, tiles, limit, forced=setting != "auto")
        found.weight_bytes = install(network, found.layers, workspace)
        found.error = float((run() - expected).abs().max())
        found.buffer_bytes = workspace.nbytes
        if found.error <= TOLERANCE:  # a NaN is not
            break
        faults.append(f"{' and '.join(tiles) or DIRECT}: logits {found.error:.1e} off")
    release(network)
    found.reason = "; ".join(faults)
    return found
