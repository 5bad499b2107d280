"""The command `harness embodied`: what the tables know of this machine's devices, or of others by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from harness.errors import UsageError, did_you_mean
from harness_meter_fuel.embodied import ESTIMATE, EmbodiedRow, find, missing, products, tables
from harness_meter_fuel.hardware import devices, estimator, machine
from harness_meter_fuel.hardware.estimator import Estimate
from harness_meter_fuel.hardware.machine import Found


def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Product names as the driver prints them, such as 'NVIDIA L4'; without one, this machine's devices.",
            show_default=False,
        ),
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="List every device that can be estimated.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Hold the estimate against each published board that it was not told of.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, with sources.")] = False,
) -> None:
    """Shows the embodied carbon of devices under each table, with sources."""
    if check:
        typer.echo("\n".join(checked()))
        return
    if every:
        typer.echo("\n".join(listing()))
        return
    found = [named(name) for name in names] if names else machine.read()
    if not found:
        raise UsageError("no device of this machine can be read", accepted="product names, such as 'NVIDIA L4'")
    if as_json:
        typer.echo(json.dumps([to_json(each) for each in found], indent=1, ensure_ascii=False))
        return
    for each in found:
        typer.echo("\n".join(details(each)))


def named(name: str) -> Found:
    """A device by its product name; raises UsageError for one that no table has."""
    for kind in ("gpu", "cpu"):
        if devices.find(kind, name) or any(_row(table, kind, name) for table in tables()):
            return Found(kind, name)
    raise UsageError(
        f"no embodied figure for {name!r}",
        accepted="a product name as the driver prints it; `harness embodied --all` lists them",
        hint=did_you_mean(name, products(ESTIMATE)),
    )


def _row(table: str, kind: str, name: str) -> EmbodiedRow | None:
    """A table's row of this very product: one that stands for every processor says nothing of it."""
    row = find(table, kind, name)
    return None if row is None or row.device.startswith("any ") else row


def _figure(row: EmbodiedRow) -> str:
    per = {"GB": " kg/GB", "device with host": " kg with its host"}.get(row.per, " kg")
    if row.low_kg is None or row.high_kg is None:
        return f"{row.kg:.4g}{per}"
    return f"{row.kg:.3g} ({row.low_kg:.3g} to {row.high_kg:.3g}){per}"


def details(found: Found) -> list[str]:
    """One device under every table, as lines."""
    size = "" if found.gb is None else f", {found.gb:.0f} GB"
    lines = [f"{found.kind}: {found.name}{size}"]
    for table in tables():
        row = _row(table, found.kind, found.name)
        if row is not None:
            lines.append(f"  {table:<20}  {_figure(row)}: {row.source}")
            lines += [f"  {'':<20}  {row.confidence}"] if row.confidence else []
        elif table == ESTIMATE:
            lines.append(f"  {table:<20}  {missing(table, found.kind, found.name)}")
    return lines


def to_json(found: Found) -> dict[str, Any]:
    """One device under every table, as JSON values; kg CO2e per `per`."""
    rows = {table: _row(table, found.kind, found.name) for table in tables()}
    fields = ("kg", "low_kg", "high_kg", "per", "lifetime_s", "estimated", "source", "confidence")
    known = {table: {key: getattr(row, key) for key in fields} for table, row in rows.items() if row is not None}
    return {"kind": found.kind, "name": found.name, "gb": found.gb, "tables": known}


def _lines(rows: Iterable[Sequence[str]]) -> list[str]:
    listed = list(rows)
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in listed]


def listing() -> list[str]:
    """Every device with its published figure or its estimate, as lines."""
    rows = [("device", "kg", "interval", "from")]
    for facts in devices.known():
        kind = "cpu" if facts.form == "package" else "gpu"
        found = estimator.figure(kind, facts.name)
        cells = ("", "", "unavailable: interval wider than a factor of 3")
        if isinstance(found, Estimate):
            interval = f"{found.low_kg:.3g} to {found.high_kg:.3g}"
            cells = (f"{found.kg:.3g}", interval, "estimate" if found.estimated else "published")
        alike = facts.names[1:] if kind == "cpu" and len(facts.names) > 1 else facts.names[:1]
        rows += [(name, *cells) for name in alike]
    return _lines(rows)


def checked() -> list[str]:
    """Each published board against the estimate that the others alone give, as lines."""
    boards = estimator.leave_one_out()
    rows = [("board", "published kg", "estimate without it", "held")]
    for board in boards:
        found = board.estimate
        interval = f"{found.low_kg:.3g} to {found.high_kg:.3g}" if isinstance(found, Estimate) else "unavailable"
        rows.append((board.device, f"{board.published_kg:.4g}", interval, "yes" if board.held else "NO"))
    held = sum(board.held for board in boards)
    return [*_lines(rows), f"{held} of {len(boards)} published figures lie within the estimate of the others"]
