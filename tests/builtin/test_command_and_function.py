"""Workloads `command` and `function`: anybody's code as a suite's work."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness import UsageError
from harness.builtin import command, function
from harness.builtin.command import CommandOptions, CommandRuns, FromOutput
from harness.builtin.function import FunctionCalls, FunctionOptions
from harness.builtin.host import HostBackend, HostOptions, probe
from harness.discovery.registry import load_plugins
from harness.errors import MeasurementError
from harness.machine.command_process import Command, run
from harness.planning.planner import expand
from harness.planning.suite import load, loads
from harness.testing import RecordingWindow, check_workload, trial_context
from harness.workload import TrialContext

PYTHON = sys.executable


def runs(tmp_path: Path, iterations: int = 1, **options: object) -> list[dict[str, object]]:
    workload = CommandRuns(CommandOptions.model_validate(options))
    workload.prepare(context(tmp_path))
    window = RecordingWindow(iterations=iterations)
    workload.run(window)
    workload.after_window(window)
    return window.rows


def context(folder: Path) -> TrialContext:
    made = trial_context(folder, HostBackend(HostOptions()))
    return TrialContext(**{**{name: getattr(made, name) for name in made.__slots__}, "suite_folder": folder})


def test_each_run_is_an_item_with_its_processor_time_and_memory(tmp_path):
    burn = "import time\nend = time.process_time() + 0.05\nwhile time.process_time() < end: pass"
    rows = runs(tmp_path, 2, run=[PYTHON, "-c", burn])
    assert [row["exit_code"] for row in rows] == [0.0, 0.0]
    for row in rows:
        assert row["cpu_s"] >= 0.05
        assert row["latency_s"] >= 0.05
        assert row["units"] is None


def test_peak_memory_is_never_that_of_the_harness(tmp_path):
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    wanted = own + 50_000_000
    (small,) = runs(tmp_path, run="true")
    (large,) = runs(tmp_path, run=[PYTHON, "-c", f"x = b'1' * {wanted}"])
    assert small["peak_memory_bytes"] is None
    assert wanted <= large["peak_memory_bytes"] < 2 * wanted


def test_processor_time_holds_that_of_children(tmp_path):
    burn = "import time\nend = time.process_time() + 0.1\nwhile time.process_time() < end: pass"
    (row,) = runs(tmp_path, run=f"{PYTHON} -c '{burn}'; true", shell=True)
    assert row["cpu_s"] >= 0.1


def test_a_command_runs_beside_its_suite(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/said").write_text("7")
    (row,) = runs(tmp_path, run="cat said", cwd="inner", units={"regex": r"(\d+)"})
    assert row["units"] == 7.0


def test_variables_reach_the_command(tmp_path):
    (row,) = runs(tmp_path, run='echo "did $N"', shell=True, environment={"N": "12"}, units={"regex": "did (.*)"})
    assert row["units"] == 12.0


@pytest.mark.parametrize(
    ("path", "printed"),
    [
        ("images", '{"images": 3}'),
        ("runs.1.n", 'log line\n{"runs": [{"n": 1}, {"n": 3}]}\n'),
        ("images", 'log line\n{"text": "a\u2028b\u0085c", "images": 3}\n'),  # JSON that no line ends in
    ],
)
def test_units_from_json(path, printed):
    assert FromOutput.model_validate({"json": path}).number(printed) == 3.0


def test_the_last_match_counts():
    assert FromOutput(regex=r"^done (\S+)").number("done 1\ndone 1_000\n") == 1000.0


@pytest.mark.parametrize(
    ("where", "printed", "says"),
    [
        ({"regex": "did (x+)"}, "nothing", "does not match"),
        ({"regex": "did (.*)"}, "did much", "not a number of units"),
        ({"regex": "did (.*)"}, "did -4", "not a number of units"),
        ({"regex": "did (.*)"}, "did nan", "not a number of units"),
        ({"regex": "did(x)?"}, "did", "does not match"),
        ({"json": "a.b"}, '{"a": {}}', "no 'b'"),
        ({"json": "a"}, "", "it is empty"),
        ({"json": "a"}, '{"a": true}', "not a number of units"),
    ],
)
def test_output_without_a_number_is_an_error(where, printed, says):
    with pytest.raises(MeasurementError, match=says):
        FromOutput.model_validate(where).number(printed)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"run": ""}, "there is no command"),
        ({"run": []}, "there is no command"),
        ({"run": "a 'b"}, "No closing quotation"),
        ({"run": "a", "units": {"regex": "(a"}}, "not a regular expression"),
        ({"run": "a", "units": {"regex": "a"}}, "0 groups"),
        ({"run": "a", "units": {}}, "one of regex and json"),
        ({"run": "a", "units": -1}, "at least 0"),
        ({"run": "a", "nots": 1}, "Extra inputs"),
    ],
)
def test_wrong_options_of_a_command(options, says):
    with pytest.raises(ValueError, match=says):
        CommandOptions.model_validate(options)


def test_a_command_that_fails_ends_the_trial_with_its_last_words(tmp_path):
    with pytest.raises(MeasurementError, match=r"exit code 3.*accepted: 0.*no luck"):
        runs(tmp_path, run="echo no luck >&2; exit 3", shell=True)
    (row,) = runs(tmp_path, run="exit 3", shell=True, exit_codes=[0, 3])
    assert row["exit_code"] == 3.0
    (row,) = runs(tmp_path, run="kill -9 $$", shell=True, exit_codes=None)
    assert row["exit_code"] == 137.0


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_time_limit_ends_the_tree(tmp_path):
    pids = tmp_path / "pid"
    with pytest.raises(MeasurementError, match=r"longer than 0.5 s"):
        runs(tmp_path, run=f"sleep 60 & echo $! > {pids}; wait", shell=True, timeout="500ms")
    deadline = time.monotonic() + 10
    while _lives(int(pids.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(int(pids.read_text()))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"run": "no-such-command-here"}, "no command 'no-such-command-here'"),
        ({"run": "./no-such-file"}, "there is no program"),
        ({"run": "./plain"}, "is not executable"),
        ({"run": "true", "cwd": "nowhere"}, "there is no folder"),
        ({"run": "true"}, ""),
        ({"run": "whatever | it is", "shell": True}, ""),
    ],
)
def test_planning_looks_for_the_command(tmp_path, options, says):
    (tmp_path / "plain").write_text("")
    found = command.check(CommandOptions.model_validate(options), tmp_path)
    assert [says in each for each in found] == ([True] if says else [])


def test_a_command_that_the_system_refuses(tmp_path):
    (tmp_path / "odd").write_bytes(b"\x00\x01")
    (tmp_path / "odd").chmod(0o755)
    with pytest.raises(MeasurementError, match="cannot be started"):
        run(Command.of("./odd", tmp_path), subprocess.DEVNULL, subprocess.DEVNULL)


MODULE = """
from dataclasses import dataclass
LOADED = []
def load():
    LOADED.append(1)
    return {"weights": 2}
def use(model, times, extra=0):
    return model["weights"] * times + extra
def listed(): return [1, 2, 3]
def nothing(): return None
def broken(): raise RuntimeError("no luck")
class Model:
    @staticmethod
    def go(): return 1
if True:
    def inner(): return 1
plain = 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine_for_tests.py").write_text(MODULE)
    (tmp_path / "pack_for_tests").mkdir()
    (tmp_path / "pack_for_tests/__init__.py").write_text("raise SystemExit('planning runs nothing')")
    (tmp_path / "pack_for_tests/parts.py").write_text("def go(): return 1\n")
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("mine_for_tests", None)


def calls(folder: Path, iterations: int = 2, **options: object) -> list[dict[str, object]]:
    workload = FunctionCalls(FunctionOptions.model_validate(options))
    workload.prepare(context(folder))
    window = RecordingWindow(iterations=iterations)
    workload.run(window)
    return window.rows


@pytest.mark.parametrize("module", ["mine_for_tests.py", "mine_for_tests"])
def test_each_call_is_an_item(folder, module):
    rows = calls(
        folder,
        call=f"{module}:use",
        setup=f"{module}:load",
        args=[5],
        kwargs={"extra": 1},
        counts="returned",
    )
    assert [row["units"] for row in rows] == [11.0, 11.0]
    assert all(row["latency_s"] >= 0 for row in rows)
    assert sys.modules["mine_for_tests"].LOADED == [1], "the set-up is called once"


def test_what_is_counted(folder):
    assert calls(folder, 1, call="mine_for_tests.py:listed", counts="returned")[0]["units"] == 3.0
    assert calls(folder, 1, call="mine_for_tests.py:listed")[0]["units"] == 1.0
    with pytest.raises(MeasurementError, match=r"returned None.*counts: calls"):
        calls(folder, 1, call="mine_for_tests.py:nothing", counts="returned")
    with pytest.raises(RuntimeError, match="no luck"):
        calls(folder, 1, call="mine_for_tests.py:broken")
    with pytest.raises(MeasurementError, match="is a int, no function"):
        calls(folder, 1, call="mine_for_tests.py:plain")


@pytest.mark.parametrize("name", ["inner", "Model.go", "use"])
def test_planning_finds_functions(folder, name):
    assert function.check(FunctionOptions(call=f"mine_for_tests.py:{name}"), folder) == []


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("mine_for_tests.py:gone", "defines no 'gone'"),
        ("mine_for_tests.py:print", "defines no 'print'"),
        ("gone.py:use", "there is no file"),
        ("gone_for_tests.parts:use", "there is no module"),
        ("pack_for_tests.gone:use", "there is no module"),
        ("pack_for_tests.parts:gone", "defines no 'gone'"),
    ],
)
def test_planning_misses_functions_without_running_anything(folder, call, says):
    (found,) = function.check(FunctionOptions(call=call), folder)
    assert says in found
    assert function.check(FunctionOptions(call="pack_for_tests.parts:go"), folder) == []
    assert function.check(FunctionOptions(call="math:sqrt"), folder) == []
    assert function.check(FunctionOptions(call="json:dumps"), folder) == []


@pytest.mark.parametrize("call", ["use", "a b:c", ":use", "mine.py:", "mine.py:a-b", "a..b:c"])
def test_a_name_that_names_no_function(call):
    with pytest.raises(ValueError, match="names no function"):
        FunctionOptions(call=call)


def test_offers(tmp_path, folder):
    host = HostBackend(HostOptions())
    check_workload(function.WORKLOAD, {"call": "math:sqrt", "args": [2]}, host, tmp_path / "f")


SUITE = """
suite: mine
windows: {count: 1, min_seconds: 0}
warm_up: {max_iterations: 0}
cases:
  - workload: command
    options: {run: no-such-command-here}
  - workload: function
    options: {call: "gone.py:use"}
"""


def test_plan_refuses_what_is_not_there_with_its_place(tmp_path):
    file = tmp_path / "suite.yaml"
    file.write_text(SUITE)
    registry = load_plugins()
    with pytest.raises(UsageError) as caught:
        expand([load(file)], registry, lambda _choice: probe(HostOptions()))
    assert "no-such-command-here" in str(caught.value)
    assert "gone.py" in str(caught.value)
    assert str(file) in str(caught.value)
    assert len(expand([load(file)], registry).points) == 2, "without a machine to ask nothing is looked for"


def test_a_run_of_both(tmp_path, folder):
    file = folder / "suite.yaml"
    file.write_text("""
suite: mine
meters: [cpu_time: {watts_per_core: 5}]
trials: 1
windows: {count: 1, min_seconds: 0, min_iterations: 2}
warm_up: {max_iterations: 0}
cases:
  - workload: command
    options: {run: "echo did 4", units: {regex: "did (.*)"}}
    functional_units: {image: {sum: units}}
  - workload: function
    options: {call: "mine_for_tests.py:listed", counts: returned}
""")
    done = subprocess.run(
        [PYTHON, "-m", "harness", "run", str(file), "--store", str(tmp_path / "store")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(each.read_text()) for each in (tmp_path / "store").glob("*/*/record.json")]
    achieved = {name: unit["count"]["achieved"] for record in records for name, unit in record["units"].items()}
    assert achieved == {"image": 8.0, "call": 2.0, "unit": 6.0}


@pytest.mark.parametrize(("told", "units"), [("", ["run"]), (", units: {regex: 'did (.*)'}", ["run", "unit"])])
def test_a_command_has_the_unit_that_it_tells(told, units):
    text = f"suite: mine\ncases: [{{workload: command, options: {{run: [echo, did 4]{told}}}}}]\n"
    (point,) = expand([loads(text)], load_plugins()).points
    assert list(point.functional_units) == units
