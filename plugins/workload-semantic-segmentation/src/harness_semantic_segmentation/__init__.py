"""Semantic segmentation: BiAlignNet, DDSM, the FPN it extends, and peers. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from harness import CommandSpec, hookimpl


def _list_models() -> Callable[..., None]:
    from harness_semantic_segmentation.listing import list_models

    return list_models


@hookimpl
def harness_commands() -> Iterable[CommandSpec]:
    """The command `harness segmentation-models`."""
    yield CommandSpec(
        name="segmentation-models",
        summary="List segmentation networks with parameters and MACs, counted here",
        load=_list_models,
    )
