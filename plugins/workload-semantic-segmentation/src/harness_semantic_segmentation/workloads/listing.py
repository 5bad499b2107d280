"""The command `harness segmentation-models`: every network with its parameters and MACs, counted here."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from harness.errors import UsageError


def list_models(
    height: Annotated[int, typer.Option(min=32, max=16384, help="height of the image, in pixels")] = 512,
    width: Annotated[int, typer.Option(min=32, max=16384, help="width of the image, in pixels")] = 1024,
    classes: Annotated[int, typer.Option(help="classes that the networks tell apart, 2 to 255")] = 19,
) -> None:
    """Lists segmentation networks with parameters (all heads) and MACs of an evaluation at batch 1."""
    from harness_semantic_segmentation.networks.catalogue import CATALOGUE, CLASSES, build_model
    from harness_semantic_segmentation.networks.counting import count_macs, parameter_count

    if not CLASSES[0] <= classes <= CLASSES[1]:
        raise UsageError(f"{classes} classes", accepted=f"{CLASSES[0]} to {CLASSES[1]} classes")
    table = Table("model", "parameters", f"GMACs at {height}x{width}", "origin")
    for name, found in CATALOGUE.items():
        macs = count_macs(lambda name=name: build_model(name, classes), height, width)  # type: ignore[misc]
        parameters = parameter_count(build_model(name, classes))
        table.add_row(name, f"{parameters:,}", f"{macs / 1e9:.3f}", found.origin)
    Console().print(table)
