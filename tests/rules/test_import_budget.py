"""Start-up imports nothing heavy; a plugin is found and asked for its offers without its framework or driver."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness.discovery.registry import load_plugins
from harness.planning.named_offers import offers_of
from harness.planning.planner import expand
from harness.planning.suite import loads
from harness.running.order import Scheduled
from harness.running.run_folder import prepare

ROOT = Path(__file__).parents[2]
FRAMEWORKS_AND_DRIVERS = (
    *("torch", "numpy", "pynvml", "transformers", "lightning", "pytorch_lightning", "codecarbon"),
    *("mlflow", "opentelemetry", "wandb"),
)
NOT_FOR_HELP = (*FRAMEWORKS_AND_DRIVERS, "pydantic", "yaml", "scipy", "pyarrow", "tokenizers")

HELP = """
import contextlib, io, json, sys
from harness.cli import main
sys.argv = ["harness", "--help"]
shown = io.StringIO()
code = None
with contextlib.redirect_stdout(shown):
    try:
        code = main()
    except SystemExit as stop:
        code = stop.code
print(json.dumps({"code": code or 0, "shown": shown.getvalue(), "modules": sorted(sys.modules)}))
"""

OFFERS = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
offers = ("workloads", "backends", "meters", "executors", "scorers", "commands", "exports")
found = [spec.name for kind in offers if (offer := getattr(module, f"harness_{kind}", None)) for spec in offer()]
print(json.dumps({"found": found, "modules": sorted(sys.modules)}))
"""

SPIN = """
suite: s
backend: host
meters: [tdp: {watts: 100}]
windows: {count: 1, min_seconds: 0}
warm_up: {max_iterations: 0, min_iterations: 0}
cases: [{workload: spin, options: {iterations: 1000}}]
"""
NOT_IN_A_WORKER = (*FRAMEWORKS_AND_DRIVERS, "asyncio", "duckdb", "filelock", "jsonschema", "rich", "typer", "yaml")
ROOMS_OF_A_WORKER = {"builtin", "discovery", "machine", "measuring", "planning", "records"}
PLANNING_OF_A_WORKER = {"named_offers", "point", "trial_rules"}

TRIAL = """
import json, sys
from pathlib import Path
from harness import worker
worker.watch_parent = lambda: None  # it would end this process group
code = worker.main(Path(sys.argv[1]))
print(json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""


def entry_points() -> list[tuple[Path, str]]:
    """Folder that holds the code and module, for each entry point in group `harness` of this repository."""
    found = []
    for file in [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]:
        points = tomllib.loads(file.read_text()).get("project", {}).get("entry-points", {}).get("harness", {})
        source = file.parent / "src"
        found += [(source if source.is_dir() else file.parent, module) for module in points.values()]
    return found


def in_new_process(code: str, *arguments: str, path: Path = ROOT) -> dict[str, object]:
    start = f"import sys; sys.path[:0] = [{str(path)!r}, {str(ROOT)!r}]\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def imported(answer: dict[str, object], forbidden: tuple[str, ...]) -> set[str]:
    modules = answer["modules"]
    assert isinstance(modules, list)
    return {name.partition(".")[0] for name in modules} & set(forbidden)


def test_help_imports_nothing_heavy() -> None:
    answer = in_new_process(HELP)
    assert answer["code"] == 0
    assert "run" in str(answer["shown"])
    assert imported(answer, NOT_FOR_HELP) == set()


@pytest.mark.parametrize(("path", "module"), entry_points(), ids=lambda value: str(value).rpartition("/")[2])
def test_offers_import_no_framework_and_no_driver(path: Path, module: str) -> None:
    answer = in_new_process(OFFERS, module, path=path)
    assert answer["found"], f"{module} offers nothing"
    assert imported(answer, FRAMEWORKS_AND_DRIVERS) == set()


def test_a_worker_imports_what_its_job_names(tmp_path: Path) -> None:
    registry = load_plugins()
    (point,) = expand([loads(SPIN)], registry).points
    job = prepare(tmp_path, Scheduled(point, 0), offers=offers_of(point, registry))
    answer = in_new_process(TRIAL, str(job.folder))
    assert answer["code"] == 0
    assert (job.folder / "measurement.json").exists()
    assert imported(answer, NOT_IN_A_WORKER) == set()
    modules = answer["modules"]
    assert isinstance(modules, list)
    assert [name for name in modules if name.startswith("harness_")] == []
    parts = [name.split(".") for name in modules if name.startswith("harness.")]
    rooms = {each[1] for each in parts if (ROOT / "harness" / each[1]).is_dir()}
    assert rooms <= ROOMS_OF_A_WORKER
    assert {each[2] for each in parts if each[1] == "planning" and len(each) > 2} <= PLANNING_OF_A_WORKER
    assert "harness.builtin.local" not in modules, "a worker asks for no executors"


def test_every_plugin_has_an_entry_point() -> None:
    folders = {path.parent for path, _ in entry_points()}
    for file in ROOT.glob("plugins/*/pyproject.toml"):  # a plugin of pytest offers the harness nothing
        if "pytest11" in tomllib.loads(file.read_text())["project"].get("entry-points", {}):
            folders.add(file.parent)
    assert {folder for folder in (ROOT / "plugins").iterdir() if (folder / "pyproject.toml").exists()} <= folders


def test_the_measurement_can_see_a_heavy_import() -> None:
    answer = in_new_process("import json, sys, yaml\nprint(json.dumps({'modules': sorted(sys.modules)}))")
    assert imported(answer, NOT_FOR_HELP) == {"yaml"}


def test_collecting_the_tests_imports_nothing_heavy() -> None:
    """Who asks for a few tests by name does not wait for frameworks: fixtures import them."""
    code = (
        "import sys, pytest\n"
        "pytest.main(['--collect-only', '-qq', '-m', ''])\n"
        "print('heavy:', sorted({'torch', 'transformers', 'ray', 'scipy', 'statsmodels'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"
