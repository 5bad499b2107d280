"""Product names as drivers and kernels print them, held against the names that a table has."""

from __future__ import annotations

import re
from typing import Final

_MARKS: Final = re.compile(r"\((?:R|TM|C)\)|\b\d+-CORE PROCESSOR\b|\bCPU\b")
_TOKEN: Final = re.compile(r"[A-Z0-9.]+\+?")
_DECORATION: Final = re.compile(r"NVIDIA|TESLA|INTEL|AMD|SXM\d?|HBM\d?[A-Z]?|\d+GB|PROCESSOR|\d+\.\d+GHZ")
"""Words that a driver adds to a product name without changing the product. PCIE is none: those are other boards."""
_PCIE_TOO: Final = frozenset({"A100", "V100", "T4", "L40"})
"""Rows that do not name a board form, so that the PCIe form matches them too."""


def _tokens(name: str) -> list[str]:
    return _TOKEN.findall(_MARKS.sub(" ", name.upper()))


def same_product(row_name: str, product: str) -> bool:
    """Whether a product name is the row's, once the driver's decoration is taken off.

    `NVIDIA H100 80GB HBM3` is `H100`; `L40S`, `H100 NVL`, `H100 PCIe`, a MIG slice and `EPYC 7443P` are not in their
    neighbours' rows. A row's own words must stand together and in order.
    """
    wanted, given = _tokens(row_name), _tokens(product)
    for start in range(len(given) - len(wanted) + 1):
        if given[start : start + len(wanted)] == wanted:
            rest = given[:start] + given[start + len(wanted) :]
            return all(_DECORATION.fullmatch(word) or (word == "PCIE" and row_name in _PCIE_TOO) for word in rest)
    return False
