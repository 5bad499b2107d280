"""A stranger's plugin, installed as a distribution of its own: found through its entry point alone, and run."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DISTRIBUTION = "harness-example-plugin"
OFFERS = {("backend", "example_desk"), ("workload", "example_sum"), ("meter", "example_lamp")}
SUITE = """
suite: example
backend: {name: example_desk}
meters: [example_lamp: {watts: 5}]
trials: 2
windows: {count: 2, min_seconds: 0.05}
cases:
  - workload: example_sum
    matrix: {terms: [1000, 2000]}
    functional_units:
      addition: {sum: additions}
"""


@pytest.fixture(autouse=True, scope="module")
def installed() -> None:
    try:
        importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        pytest.fail(f"{DISTRIBUTION} is not installed here; `make setup` installs it")


def harness(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user does, in an empty folder."""
    code = "import sys; from harness.cli import main; sys.exit(main())"
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        cwd=folder,
        env=environment,
    )


def test_plugins_lists_its_offers(tmp_path: Path) -> None:
    done = harness("plugins", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    mine = [offer for offer in listed if offer["distribution"] == DISTRIBUTION]
    assert {(offer["kind"], offer["name"]) for offer in mine} == OFFERS
    assert {offer["plugin"] for offer in mine} == {"example"}
    assert {offer["version"] for offer in mine} == {importlib.metadata.version(DISTRIBUTION)}
    probes = {(offer["kind"], offer["name"]): offer["probe"] for offer in listed}
    assert probes["meter", "example_lamp"] == probes["backend", "host"] == "reads"
    assert probes["meter", "replay"] == "needs options: file"
    assert probes["meter", "simulated"].startswith("unavailable: ")


def test_a_suite_runs_on_it(tmp_path: Path) -> None:
    suite = tmp_path / "example.yaml"
    suite.write_text(SUITE, encoding="utf-8")
    store = tmp_path / "store"
    done = harness("run", str(suite), "--store", str(store), folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    records = sorted(store.rglob("record.json"))
    assert len(records) == 2 * 2, "one record a trial: two points, two trials"
    for record in records:
        text = "".join(path.read_text(encoding="utf-8") for path in (record, record.with_name("measurement.json")))
        assert isinstance(json.loads(record.read_text(encoding="utf-8")), dict)
        assert "example_lamp" in text
        assert "estimated" in text


def test_a_wrong_option_is_the_users_mistake(tmp_path: Path) -> None:
    suite = tmp_path / "wrong.yaml"
    suite.write_text(SUITE.replace("watts", "wats"), encoding="utf-8")
    done = harness("run", str(suite), "--store", str(tmp_path / "store"), folder=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "wats" in said
    assert "watts" in said, "the message says what would have been accepted"
    assert "wrong.yaml:4" in said, "the message says where"
    assert "Traceback" not in said
