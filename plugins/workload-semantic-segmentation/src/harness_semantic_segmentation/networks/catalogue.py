"""Networks by name: what a suite may write as its model, and how it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from harness_semantic_segmentation.networks.bialignnet import BiAlignNet, Switches
from harness_semantic_segmentation.networks.errors import NetworkError, closest
from harness_semantic_segmentation.networks.fpn import FPN, Sampling
from harness_semantic_segmentation.networks.peers import CONFIGURATIONS, peer

CLASSES = (2, 255)
"""Fewest and most classes: labels are bytes, and 255 means ignored."""


@dataclass(frozen=True)
class Entry:
    """A network that can be built by name.

    Attributes:
        summary: one line for people.
        origin: what it is made after, as a report says it.
        build: takes the number of classes, the width multiplier and the choices.
        defaults: choices by name, with their default values.
    """

    summary: str
    origin: str
    build: Callable[[int, float, Mapping[str, Any]], nn.Module]
    defaults: Mapping[str, Any]


def _bialignnet(backbone: str) -> Entry:
    def build(classes: int, width: float, choices: Mapping[str, Any]) -> nn.Module:
        return BiAlignNet(classes, width, Switches(**{"backbone": backbone, **choices}))

    defaults = {field.name: field.default for field in fields(Switches) if field.name != "backbone"}
    return Entry(f"BiAlignNet with DFNet-{backbone[-2:]}", "after the released code", build, defaults)


def _fpn(*, dynamic: bool) -> Entry:
    host = {"backbone": "resnet50", "channels": 256}
    own = {field.name: field.default for field in fields(Sampling)} if dynamic else {}

    def build(classes: int, width: float, choices: Mapping[str, Any]) -> nn.Module:
        chosen = {**host, **{name: value for name, value in choices.items() if name in host}}
        sampling = Sampling(**{name: value for name, value in choices.items() if name in own}) if dynamic else None
        return FPN(classes, width=width, sampling=sampling, **chosen)

    if dynamic:
        return Entry(
            "FPN with dynamic dual sampling at two merges", "our reading of the figure", build, {**host, **own}
        )
    return Entry("the plain FPN that DDSM extends", "our reading of the figure's host", build, host)


def _peer(name: str) -> Entry:
    def build(classes: int, width: float, choices: Mapping[str, Any]) -> nn.Module:  # noqa: ARG001 - it has none
        if width != 1:
            raise NetworkError(f"model {name} has no width multiplier; accepted: width: 1")
        return peer(name, classes)

    return Entry(f"{name}, logits resized to the image", "transformers", build, {})


CATALOGUE: dict[str, Entry] = {
    "bialignnet-dfnet2": _bialignnet("dfnet_v2"),
    "bialignnet-dfnet1": _bialignnet("dfnet_v1"),
    "ddsm": _fpn(dynamic=True),
    "fpn": _fpn(dynamic=False),
    **{name: _peer(name) for name in CONFIGURATIONS},
}
"""Every network, by the name that a suite uses."""


def entry(name: str) -> Entry:
    """The network of that name; raises NetworkError."""
    if name not in CATALOGUE:
        raise NetworkError(f"no model is called {name!r}; accepted: {', '.join(CATALOGUE)}{closest(name, CATALOGUE)}")
    return CATALOGUE[name]


def build_model(name: str, classes: int = 19, width: float = 1.0, **choices: object) -> nn.Module:
    """A network with random weights, in training mode.

    Args:
        name: in `CATALOGUE`.
        classes: 2 to 255.
        width: multiplies channel counts, where the network has such an option.
        choices: of the network's `defaults`.

    Raises:
        NetworkError: an unknown name or choice, or a value that the network refuses.
    """
    found = entry(name)
    fewest, most = CLASSES
    if not fewest <= classes <= most:
        raise NetworkError(f"{classes} classes; accepted: {fewest} to {most} classes")
    if not width > 0:
        raise NetworkError(f"width {width}; accepted: a positive number")
    for choice in choices:
        if choice not in found.defaults:
            accepted = ", ".join(found.defaults) or "no options"
            raise NetworkError(
                f"model {name} has no option {choice!r}; accepted: {accepted}{closest(choice, found.defaults)}"
            )
    try:
        return found.build(classes, width, choices)
    except NetworkError:
        raise
    except ValueError as error:
        raise NetworkError(f"model {name}: {error}") from error


def variant(name: str, **choices: object) -> dict[str, object]:
    """The choices that differ from the network's defaults: empty means as published."""
    defaults = entry(name).defaults
    return {choice: value for choice, value in choices.items() if value != defaults[choice]}
