"""Which known name is suggested for one that is not known."""

from __future__ import annotations

from enum import StrEnum

import pytest

from harness.errors import did_you_mean


class Kind(StrEnum):
    DSD = "dsd"
    DPD = "dpd"


@pytest.mark.parametrize(
    ("typed", "known", "meant"),
    [
        ("duratoin_s", ["duration_s", "duration"], "duration_s"),  # a slip of the hand goes before all else
        ("slo", ["sla", "slo_ttft"], "slo_ttft"),
        ("wue", ["pue", "wue_onsite"], "wue_onsite"),
        ("ttft", ["tpot", "itl", "slo_ttft_s"], "slo_ttft_s"),  # inside, and hardly alike by letters
        ("intensity", ["density", "grid_intensity_g_per_kwh"], "grid_intensity_g_per_kwh"),
        ("energy", ["idle_energy_j", "energy_j"], "energy_j"),  # what begins with it before what holds it
        ("energy", ["energy_above_idle_j", "energy_j"], "energy_j"),  # the closest of those
        ("A100", ["T4", "A10", "A100-40GB"], "A10"),  # one letter less is a slip
        ("a100", ["T4", "V100-16GB", "A100-40GB"], "A100-40GB"),
        ("t4", ["T4", "L4"], "T4"),
        ("art", ["departments", "cartesian"], ""),  # part of a word is no word
        ("colour", ["energy_j", "duration_s"], ""),
        ("", ["energy_j"], ""),
        ("__", ["energy_j"], ""),
        ("dsdd", list(Kind), "dsd"),
    ],
)
def test_the_name_that_was_meant_is_suggested(typed: str, known: list[str], meant: str) -> None:
    assert did_you_mean(typed, known) == (f"did you mean {meant!r}?" if meant else "")
