"""Embodied carbon of a device from its dies and memory, after ACT (Gupta et al., ISCA 2022).

The figures are data (`data/act.csv`), read in ACT's repository (github.com/facebookresearch/ACT, MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from harness.errors import UsageError
from harness_meter_fuel.carbon import GRAMS_PER_KG, checked_not_negative
from harness_meter_fuel.packaged import packaged


@cache
def _figures() -> Mapping[tuple[str, str], float]:
    return {(row["quantity"], row["technology"]): float(row["value"]) for row in packaged("act")}


def _of(quantity: str, technology: str = "any") -> float:
    found = _figures().get((quantity, technology))
    if found is None:
        known = ", ".join(name for kind, name in _figures() if kind == quantity)
        what = "memory" if quantity == "cps" else "process node"
        raise UsageError(f"ACT has no {what} {technology!r}", accepted=known)
    return found


def logic_g_per_cm2(node_nm: int, fab_g_per_kwh: float | None = None, fab_yield: float | None = None) -> float:
    """Embodied carbon of good logic: `(CI_fab * EPA + GPA + MPA) / Y` in g/cm2, at 97 % abatement of the gases.

    Abatement of 97 % is the mean of ACT's columns for 95 % and 99 %. Raises UsageError for a node without a row.
    """
    node = str(node_nm)
    energy_kwh = _of("epa", node)
    gases = (_of("gpa_95", node) + _of("gpa_99", node)) / 2
    intensity = _of("fab_intensity") if fab_g_per_kwh is None else fab_g_per_kwh
    share = _of("fab_yield") if fab_yield is None else fab_yield
    if not 0 < share <= 1:
        raise UsageError(f"fab_yield is {share}", accepted="a share above 0, up to 1")
    return (checked_not_negative(intensity, "fab_g_per_kwh", "g/kWh") * energy_kwh + gases + _of("mpa")) / share


def package_g() -> float:
    """Embodied carbon of the package of one integrated circuit, in g."""
    return _of("package")


def device_kg(
    area_cm2: float = 0.0,
    node_nm: int | None = None,
    *,
    packages: int = 1,
    memory: Mapping[str, float] | None = None,
    fab_g_per_kwh: float | None = None,
    fab_yield: float | None = None,
) -> float:
    """Embodied carbon of a device in kg: logic, memory and storage (GB by technology), packages.

    Memory is capacity times carbon per size, as the paper has it; ACT's code divides that by the yield as well.
    Raises UsageError for a node or a memory without a row, and for a die without a node.
    """
    logic = 0.0
    if checked_not_negative(area_cm2, "area_cm2", "cm2"):
        if node_nm is None:
            raise UsageError("a die needs its process node: node_nm")
        logic = area_cm2 * logic_g_per_cm2(node_nm, fab_g_per_kwh, fab_yield)
    stored = sum(checked_not_negative(size, name, "GB") * _of("cps", name) for name, size in (memory or {}).items())
    return (logic + stored + packages * package_g()) / GRAMS_PER_KG
