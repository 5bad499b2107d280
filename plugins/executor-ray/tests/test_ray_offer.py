"""The offer, its options, and what is said where there is no cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from harness_executor_ray import RayOptions, harness_executors
from harness_executor_ray.executor import RayExecutor, _said
from pydantic import ValidationError

from harness import MeasurementError
from harness.discovery.registry import load_plugins
from harness.errors import UsageError
from harness.planning.suite import loads
from harness.running.executor_choice import Wish, choose
from harness.testing import check_offers


def test_the_offer_is_inert_and_its_trials_run_elsewhere():
    assert check_offers("harness_executor_ray") == ["executors:ray"]
    (spec,) = harness_executors()
    assert spec.remote


@pytest.mark.parametrize(
    "address", ["auto", "10.0.0.1:6379", "head.example.org:6379", "ray://head:10001", "[::1]:6379", "ray://[fe80::1]:1"]
)
def test_addresses(address: str):
    assert RayOptions(address=address).address == address


@pytest.mark.parametrize("address", ["", "local", "head", "http://head:8265", "ray://head", "a b:1"])
def test_what_is_no_address_of_a_cluster(address: str):
    """`local` would start one."""
    with pytest.raises(ValidationError, match="accepted: auto, HOST:PORT or ray://HOST:PORT"):
        RayOptions(address=address)


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"at_most": 0}, {"environment": "copy"}, {"adress": "auto"}])
def test_options_that_are_refused(options: dict[str, object]):
    with pytest.raises(ValidationError):
        RayOptions.model_validate(options)


def test_a_suite_names_its_cluster():
    text = """
suite: named
executor: {name: ray, address: "127.0.0.1:6379", timeout_s: 2min, environment: ship}
cases: [{workload: spin}]
"""
    registry = load_plugins()
    chosen = choose([loads(text)], registry)["named"]
    assert (chosen.name, chosen.options["timeout_s"], chosen.options["environment"]) == ("ray", 120.0, "ship")
    with pytest.raises(UsageError, match=r"there is no option ray\.adress"):
        choose([loads(text)], registry, Wish("ray", ("adress=auto",)))


def test_where_nothing_listens_the_run_ends_at_once():
    """Ray itself would try for twenty minutes."""
    executor = RayExecutor(RayOptions(address="127.0.0.1:1"))
    with pytest.raises(MeasurementError, match=r"no Ray cluster answers at 127\.0\.0\.1:1.*`ray start --head`"):
        executor.begin(())
    executor.close()
    executor.close()


AMDSMI = """
import sys
from harness_executor_ray.cluster import import_ray
assert import_ray().__name__ == "ray"
assert "amdsmi" not in sys.modules
"""


def test_ray_is_imported_beside_an_amdsmi_without_its_driver(tmp_path: Path):
    (tmp_path / "amdsmi.py").write_text("print('no driver')\nraise KeyError('libamd_smi.so')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{AMDSMI}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_what_ray_says_is_one_line_without_addresses():
    error = RuntimeError("The actor died.\n\tclass_name: Keeper\n\tip: 10.1.2.3\n\nIts node has died.")
    assert _said(error) == "the cluster lost the trial: RuntimeError: The actor died. Its node has died."
