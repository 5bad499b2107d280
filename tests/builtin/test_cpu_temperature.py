"""Which of the sensors that Linux shows is the temperature of which CPU package."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from harness.builtin.cpu_temperature import package_temperatures


def chip(**celsius: float) -> list[SimpleNamespace]:
    """Sensors by label, `_` for a blank."""
    return [SimpleNamespace(label=label.replace("_", " ").strip(), current=each) for label, each in celsius.items()]


@pytest.mark.parametrize(
    ("sensors", "expected"),
    [
        ({"coretemp": chip(Package_id_0=51.0, Core_0=60.0, Package_id_1=48.5)}, {"0": 51.0, "1": 48.5}),
        ({"k10temp": chip(Tctl=77.0, Tdie=50.0, Tccd1=49.0)}, {"0": 50.0}),
        ({"k10temp": [*chip(Tctl=61.0, Tccd1=49.0), *chip(Tctl=63.0)]}, {"0": 61.0, "1": 63.0}),
        ({"cpu_thermal": chip(_=44.0)}, {"0": 44.0}),
        ({"coretemp": chip(Package_id_0=51.0), "k10temp": chip(Tctl=1.0)}, {"0": 51.0}),
        ({"nvme": chip(Composite=35.0), "acpitz": chip(_=27.8)}, {}),
        ({}, {}),
    ],
)
def test_packages_by_their_sensors(sensors: dict[str, list[SimpleNamespace]], expected: dict[str, float]) -> None:
    found = package_temperatures("n1", lambda: sensors)
    assert found == {f"n1/cpu-package:{package}": celsius for package, celsius in expected.items()}


def test_a_system_without_sensors_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(psutil, "sensors_temperatures", raising=False)
    assert package_temperatures("n0") == {}
