"""Which layout each product of a model gets: timed once for a machine, and kept for everyone who asks later.

A choice that every trial made anew would be noise that no number of trials averages out: tokens and times of both
sides of a comparison rest on the same file. It holds what was timed for one processor, release of PyTorch, number of
threads and number type, and is written under a lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from harness_speculative_decoding.networks.products import LAYOUTS, Layout, Multiply, multiplier

FOLDER = "product-layouts"
"""Where in the cache the choices are kept."""

MIB = 2**20

MOST_BYTES = 128 * MIB
"""Matrices that a timing goes through, at most: more than processors' caches hold."""

PACKED_BELOW_BYTES = 2048 * MIB
"""A model with more weights gets no packed copy of them."""

ROUNDS = 7
"""Timings of each layout, interleaved; the median counts."""

FEWEST_CALLS = 100
"""Products in each timing, at least: a processor's clock is coarse."""

GAIN = 0.95
"""Share of the time by which another layout than the usual one must do with to be taken."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A product of a model.

    Attributes:
        inputs, outputs: of the matrix.
        head: whether it gives the logits: its matrix may be the embedding's, and is never stored by input.
    """

    inputs: int
    outputs: int
    head: bool = False

    @property
    def usual(self) -> Layout:
        """The layout where nothing was timed."""
        return "linear" if self.head else "input"

    def __str__(self) -> str:
        return f"{self.inputs}x{self.outputs}{' head' if self.head else ''}"


@dataclass(frozen=True)
class Layouts:
    """The layouts of a model's products.

    Attributes:
        rows: how many rows its passes mostly have.
        chosen: by the name of the shape; the usual one for others.
        why_usual: why nothing could be timed; empty where it was.
    """

    rows: int = 1
    chosen: Mapping[str, Layout] = field(default_factory=dict)
    why_usual: str = ""

    def of(self, shape: Shape) -> Layout:
        """The layout of a product."""
        return self.chosen.get(str(shape), shape.usual)

    @property
    def rough(self) -> bool:
        """Whether products are in bfloat16, whatever the number type of the weights."""
        return "int8" in self.chosen.values()

    def facts(self) -> dict[str, object]:
        """For the record."""
        found: dict[str, object] = {"rows": self.rows, **self.chosen}
        return {**found, "usual_because": self.why_usual} if self.why_usual else found


def shapes_of(model: PreTrainedModel) -> list[Shape]:
    """The products of a Llama-like model, each shape once."""
    inner: Any = model.model
    layer = inner.layers[0]
    attention, mlp = layer.self_attn, layer.mlp
    joined = (
        (attention.q_proj, attention.k_proj, attention.v_proj),
        (attention.o_proj,),
        (mlp.gate_proj, mlp.up_proj),
        (mlp.down_proj,),
    )
    shapes = [Shape(parts[0].in_features, sum(part.out_features for part in parts)) for parts in joined]
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return list(dict.fromkeys([*shapes, Shape(head.in_features, head.out_features, head=True)]))


def int8_layouts(model: PreTrainedModel, rows: int) -> Layouts:
    """Layout `int8` for all products of a Llama-like model but the logits'."""
    return Layouts(rows, {str(shape): "int8" for shape in shapes_of(model) if not shape.head})


def layouts_for(model: PreTrainedModel, rows: int, cache: Path) -> Layouts:
    """The fastest layouts for passes of so many rows, from the cache or timed now.

    Args:
        model: a Llama-like one on a CPU; on other devices the usual layouts are kept.
        rows: of a pass: tokens of all requests that are read together.
        cache: folder shared between runs.

    Examples:
        >>> wrapped = cached_model(model, layouts=layouts_for(model, rows=5, cache=Path("cache")))  # doctest: +SKIP
    """
    if model.device.type != "cpu":
        return Layouts(rows, {}, f"layouts are timed on a CPU, not on {model.device.type}")
    weights = {weight.data_ptr(): weight for weight in model.parameters()}.values()
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    try:
        return kept_choice(shapes_of(model), rows, next(iter(weights)).dtype, size, cache)
    except OSError as error:
        return Layouts(rows, {}, f"the cache cannot be used: {type(error).__name__}: {error}")


def kept_choice(
    shapes: Sequence[Shape],
    rows: int,
    dtype: torch.dtype,
    size: int,
    cache: Path,
    timed: Callable[..., dict[Layout, float]] | None = None,
) -> Layouts:
    """The choice in the cache, completed by a timing where it lacks a shape.

    Args:
        shapes: of the products.
        rows: of a pass.
        dtype: of weights.
        size: bytes of the whole model: small ones stay in the processor's cache from pass to pass.
        cache: folder shared between runs.
        timed: seconds of each layout, called as `time_layouts`, which it is by default.

    Raises:
        OSError: the folder cannot be written.
    """
    machine = this_machine(dtype)
    among = min(MOST_BYTES, max(MIB, 1 << (size - 1).bit_length()))
    keys = {shape: f"{shape}, {rows} rows, {among // MIB} MiB" for shape in shapes}
    folder = cache / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{hashlib.sha256(json.dumps(machine).encode()).hexdigest()[:16]}.json"
    with FileLock(f"{file}.lock"):
        kept = _read(file)
        missing = [shape for shape in shapes if keys[shape] not in kept]
        for shape in missing:
            packable = size <= PACKED_BELOW_BYTES
            times = (timed or time_layouts)(shape, rows, dtype, among, packable=packable)
            kept[keys[shape]] = {"layout": _fastest(shape, times), "seconds": times}
        if missing:
            draft = file.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps({"machine": machine, "products": kept}, indent=1), encoding="utf-8")
            draft.replace(file)
    return Layouts(rows, {str(shape): kept[keys[shape]]["layout"] for shape in shapes})


def this_machine(dtype: torch.dtype) -> dict[str, object]:
    """What a timing depends on beside the shape."""
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "dtype": str(dtype),
    }


def _processor(file: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _read(file: Path) -> dict[str, Any]:
    """What the file holds of products, without entries that are not what was written here."""
    try:
        products = dict(json.loads(file.read_text(encoding="utf-8"))["products"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {key: value for key, value in products.items() if isinstance(value, dict) and value.get("layout") in LAYOUTS}


def _fastest(shape: Shape, times: Mapping[Layout, float]) -> Layout:
    """The fastest layout, the usual one unless another is faster by more than a timing's noise."""
    best = min(times, key=lambda layout: times[layout])
    return best if times[best] < GAIN * times[shape.usual] else shape.usual


@torch.inference_mode()
def time_layouts(
    shape: Shape, rows: int, dtype: torch.dtype, among: int, *, packable: bool = True
) -> dict[Layout, float]:
    """Seconds of one product in each layout that gives the right numbers here.

    Args:
        shape: of the matrix.
        rows: multiplied with it.
        dtype: of both.
        among: bytes of matrices that each timing goes through, so that weights come from where they will come from.
        packable: whether a packed copy may be had.
    """
    one = shape.inputs * shape.outputs * torch.empty((), dtype=dtype).element_size()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape.outputs, shape.inputs, generator=generator).to(dtype)
    given = torch.randn(rows, shape.inputs, generator=generator).to(dtype)
    right = functional.linear(given, weight)
    copies = max(1, among // one)
    spent: dict[Layout, list[float]] = {}
    products: dict[Layout, list[Multiply]] = {}
    for layout in LAYOUTS:
        if (shape.head and layout == "input") or (layout == "packed" and not packable):
            continue
        try:
            products[layout] = [multiplier(layout, _stored(weight, layout), None, rows) for _ in range(copies)]
            same = torch.allclose(products[layout][0](given), right, rtol=1e-2, atol=1e-2 * float(right.abs().max()))
        except RuntimeError:
            same = False
        if same:
            spent[layout] = []
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    laps = -(-FEWEST_CALLS // copies)
    for _ in range(ROUNDS):
        for layout, times in spent.items():
            if among < MOST_BYTES:  # small models stay in the processor's caches, which the last layout has filled
                _multiplied(products[layout], given)
            began = clock()
            for _ in range(laps):
                _multiplied(products[layout], given)
            times.append((clock() - began) / (laps * copies))
    return {layout: statistics.median(times) for layout, times in spent.items()}


def _multiplied(products: Sequence[Multiply], rows: Tensor) -> None:
    for multiply in products:
        multiply(rows)


def _stored(weight: Tensor, layout: Layout) -> Tensor:
    """A copy of weights (outputs, inputs) in a layout."""
    return weight.t().contiguous() if layout == "input" else weight.clone()
