"""The functional units of a point that names none: those of its workload, with the targets that its options set."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from harness.functional_unit import FunctionalUnit
from harness.workload import WorkloadSpec


def written_unit(unit: FunctionalUnit) -> dict[str, Any]:
    """A unit as a point holds it."""
    found = {"sum": unit.sum, "where": {each.column: f"{each.comparison} {each.limit!r}" for each in unit.where}}
    return {**found, "span": unit.span} if unit.span else found


def default_units(units: Mapping[str, FunctionalUnit], columns: Collection[str]) -> dict[str, dict[str, Any]]:
    """The units whose columns are all filled."""
    written = {name: written_unit(unit) for name, unit in units.items()}
    return {name: unit for name, unit in written.items() if {unit["sum"], *unit["where"]} <= {*columns, "items"}}


def by_options(
    spec: WorkloadSpec, options: Mapping[str, Any], units: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Default units of a point, those that depend on options as these options have them.

    Args:
        spec: of the workload.
        options: validated ones of the point.
        units: the case's default units.
    """
    if spec.units_by is None:
        return dict(units)
    found = spec.units_by(spec.options.model_validate(dict(options)))
    return {name: written_unit(found[name]) if name in found else unit for name, unit in units.items()}
