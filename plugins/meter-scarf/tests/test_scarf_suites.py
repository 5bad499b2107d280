"""The suites of the case studies: their options are valid, and their directions hold on one measured energy."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from harness_meter_scarf.meter import ScarfMeter
from harness_meter_scarf.options import ScarfOptions

from harness.impact import Costed, Impact
from harness.quantity import Amount, Method

SUITES = Path(__file__).parents[3] / "suites"
ENERGY = Amount.exact(3.6e6, "J", Method.COUNTER)


def costed(suite: str) -> dict[str, Impact]:
    """Case -> what scarf makes of one kWh; cases that ask for environment variables are left out."""
    content = yaml.safe_load((SUITES / suite).read_text(encoding="utf-8"))
    found = {}
    for case in content["cases"]:
        options: dict[str, Any] = next(meter["scarf"] for meter in case["meters"] if "scarf" in meter)
        if "${env:" in str(options):
            continue
        window = Costed(duration_s=1.0, start_utc_s=1.75e9, energy={"n0/host": ENERGY}, readings={"energy_j": ENERGY})
        found[case["name"]] = ScarfMeter(ScarfOptions.model_validate(options)).apply(window)
    return found


def awi(impact: Impact) -> Amount:
    value = impact.readings["awi_adjusted_l"]
    assert isinstance(value, Amount), value
    return value


def test_llm_sites() -> None:
    found = costed("scarf-llm-sites.yaml")
    for impact in found.values():
        onsite, offsite = (impact.readings[name] for name in ("water_onsite_l", "water_offsite_l"))
        assert isinstance(onsite, Amount)
        assert isinstance(offsite, Amount)
        assert offsite.value > 2 * onsite.value
    made_up = {name: awi(impact).value for name, impact in found.items() if "made-up" in name}
    assert made_up["Washington, made-up basin"] / made_up["Illinois, made-up basin"] == pytest.approx(1000, rel=0.01)
    assert made_up["Washington, made-up basin, July"] > 4 * made_up["Washington, made-up basin, January"]
    of_states = [awi(impact) for name, impact in found.items() if "category" in name]
    assert all(each.low is not None and each.high is not None and each.low < each.high for each in of_states)


def test_datacenters_change_places_with_gamma() -> None:
    found = costed("scarf-datacenters.yaml")
    orders = {
        gamma: awi(found[f"Nevada, gamma {gamma}"]).value < awi(found[f"Virginia, gamma {gamma}"]).value
        for gamma in ("0", "0.01", "0.03", "0.1")
    }
    assert orders == {"0": True, "0.01": False, "0.03": False, "0.1": False}


def test_fabs_of_high_stress_dominate() -> None:
    found = {name: awi(impact) for name, impact in costed("scarf-fabs.yaml").items()}
    assert max(found, key=lambda name: found[name].value).startswith("fab in the desert")
    assert {each.label for each in found.values()} == {Method.SIMULATED}


def test_only_made_up_basins_run_without_a_download() -> None:
    for suite in ("scarf-llm-sites.yaml", "scarf-datacenters.yaml", "scarf-fabs.yaml"):
        for name, impact in costed(suite).items():
            assert awi(impact).label is Method.SIMULATED or "category" in name
