"""Weights in files: the checkpoint format of BiAlignNet's authors, and this project's own state dicts.

The authors' keys name other modules in other words, and cross the names of the two alignment modules. Tensors are the
same in number and shape, so translation is a matter of prefixes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from harness_semantic_segmentation.networks.bialignnet import BiAlignNet
from harness_semantic_segmentation.networks.dfnet import DFNet
from harness_semantic_segmentation.networks.errors import NetworkError
from harness_semantic_segmentation.networks.safe_files import read_file

PREFIXES = {
    "backbone.stem": "backbone.stage1",
    "backbone.stages": "backbone",
    "pyramid.branches": "ppm.stages",
    "pyramid.bottleneck": "ppm.bottleneck",
    "spatial_path": "sp",
    "head": "conv_out",
    "edge_head": "spatial_out",
    "aux16": "cxt16_aux.conv_out",
    "aux8": "cxt8_aux.conv_out",
    "align_context.project_context": "spatial2Context.down_h",
    "align_context.project_spatial": "spatial2Context.down_l",
    "align_context.to_flow": "spatial2Context.flow_make",
    "align_context.gate.conv": "spatial2Context.gate.gate.0",
    "align_spatial.project_context": "context2Spatial.down_h",
    "align_spatial.project_spatial": "context2Spatial.down_l",
    "align_spatial.to_flow": "context2Spatial.flow_make",
    "align_spatial.gate.conv": "context2Spatial.gate.gate.0",
}
"""Our prefix of a key, and the authors'."""
SHOWN = 3


@dataclass(frozen=True)
class Loaded:
    """What loading left out; all empty unless it was allowed to be partial.

    Attributes:
        missing: keys of the model that the file lacks.
        unexpected: keys of the file that the model lacks.
        mismatched: keys of both, with shapes that differ.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    @property
    def skipped(self) -> tuple[str, ...]:
        """All of them, each with its reason."""
        return (
            *(f"{key}: missing in the file" for key in self.missing),
            *(f"{key}: unexpected" for key in self.unexpected),
            *self.mismatched,
        )


def authors_key(key: str) -> str:
    """The authors' name of one of our keys; KeyError where their format has none, as for `gated_conv`."""
    for ours, theirs in PREFIXES.items():
        if key.startswith(f"{ours}."):
            return theirs + key[len(ours) :]
    raise KeyError(key)


def authors_keys(model: BiAlignNet) -> dict[str, str]:
    """Our key by the authors' key, in the order of our state dict.

    Raises:
        NetworkError: the model's gate has no counterpart in the authors' format.
    """
    if model.switches.gate == "gated_conv":
        raise NetworkError(
            "the authors released no model with gate gated_conv, so no checkpoint format of it is known; "
            "accepted: gate: simple or none"
        )
    return {authors_key(key): key for key in model.state_dict()}


def authors_state_dict(model: BiAlignNet) -> dict[str, Tensor]:
    """The model's tensors under the authors' keys; they share memory with the model."""
    state = model.state_dict()
    return {theirs: state[ours] for theirs, ours in authors_keys(model).items()}


def load_authors_state(model: BiAlignNet, state: Mapping[str, Tensor], *, where: str, partial: bool = False) -> Loaded:
    """Copies tensors under the authors' keys (wrapper prefix stripped) into the model; see `load_checkpoint`."""
    ours = authors_keys(model)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return _copy(
        model, {theirs: model.state_dict()[key] for theirs, key in ours.items()}, state, where, partial=partial
    )


def load_checkpoint(model: nn.Module, path: str | Path, *, partial: bool = False) -> Loaded:
    """Loads weights from a file of `torch.save`: the authors' format for BiAlignNet, or any model's own state dict.

    Args:
        model: is changed in place; not at all when an error is raised.
        path: `{"state_dict": ...}` or a plain state dict; a prefix `module.` is stripped.
        partial: skip what does not match in name or shape instead of raising, and say what was skipped.

    Raises:
        NetworkError: no such file, not such a file, or tensors that do not match.
    """
    state = read_state(path)
    if isinstance(model, BiAlignNet) and not state.keys() & model.state_dict().keys():
        return load_authors_state(model, state, where=str(path), partial=partial)
    return _copy(model, model.state_dict(), state, str(path), partial=partial)


def load_backbone(backbone: DFNet, path: str | Path, *, partial: bool = False) -> Loaded:
    """Loads a DFNet: the `backbone.` part of an authors' checkpoint, or the same keys without that prefix.

    Keys of a classifier (`fc.`) and the backbone's own average pool have no counterpart and are left out.

    Raises:
        NetworkError: as `load_checkpoint`.
    """
    state = read_state(path)
    inside = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    state = inside or {key: value for key, value in state.items() if not key.startswith("fc.")}
    wanted = {
        authors_key(f"backbone.{key}").removeprefix("backbone."): value for key, value in backbone.state_dict().items()
    }
    return _copy(backbone, wanted, state, str(path), partial=partial)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, by key without `module.`; nothing in the file is run as code.

    Raises:
        NetworkError: names the file.
    """
    found = read_file(path)
    state = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        accepted = '{"state_dict": {name: tensor, ...}} or {name: tensor, ...}'
        raise NetworkError(f"{path}: this file holds no state dict; accepted: {accepted}")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _copy(
    model: nn.Module, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str, *, partial: bool
) -> Loaded:
    """Copies by name; `wanted` is the model's tensors under the file's names."""
    both = [key for key in wanted if key in state]
    differing = {key for key in both if wanted[key].shape != state[key].shape}
    loaded = Loaded(
        missing=tuple(key for key in wanted if key not in state),
        unexpected=tuple(key for key in state if key not in wanted),
        mismatched=tuple(
            f"{key}: {tuple(state[key].shape)} in the file, {tuple(wanted[key].shape)} in the model"
            for key in both
            if key in differing
        ),
    )
    if loaded.skipped and not partial:
        raise NetworkError(f"{where}: the weights do not fit {type(model).__name__}: {_summary(loaded)}")
    if len(differing) == len(both):
        raise NetworkError(f"{where}: no tensor of the file fits {type(model).__name__}: {_summary(loaded)}")
    with torch.no_grad():
        for key in both:
            if key not in differing:
                wanted[key].copy_(state[key])
    return loaded


def _summary(loaded: Loaded) -> str:
    kinds = (("missing", loaded.missing), ("unexpected", loaded.unexpected), ("of another shape", loaded.mismatched))
    return "; ".join(f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in kinds if keys)


def _first(keys: Iterable[str]) -> str:
    listed = list(keys)
    return ", ".join(listed[:SHOWN]) + (", ..." if len(listed) > SHOWN else "")
