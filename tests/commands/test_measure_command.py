"""`harness measure`: a command, measured and kept; its own failure is told apart from ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import harness
from harness import Amount
from harness.discovery.registry import load_plugins
from harness.errors import UsageError
from harness.quantity import Method
from harness.session import answers
from harness.session.commands import Asked, measure_commands

TREE = "cpu_time: {watts_per_core: 5}"


def measure(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", "measure", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def kept(folder: Path, *, latest: bool = False) -> Path:
    *others, run = sorted((folder / "reports").iterdir(), key=lambda each: each.stat().st_mtime)
    assert latest or not others
    return run


def test_a_single_run_shows_the_commands_output_and_keeps_a_record(tmp_path):
    done = measure(tmp_path, "--meter", TREE, "--unit", "images=10", "--", "sh", "-c", "echo mine; echo yours >&2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "mine\n", "the command's output can be piped on"
    assert "yours" in done.stderr
    for text in ("CPU time", "peak memory", "energy", "per images", "records: reports/"):
        assert text in done.stderr
    run = harness.load(kept(tmp_path))
    assert run.report.run["status"] == "ok"
    (trial,) = run.trials
    assert trial.units["images"].count.achieved == 10.0
    report = subprocess.run(
        [sys.executable, "-m", "harness", "report", str(run.folder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.returncode == 0
    assert "per images" in report.stdout


def test_several_runs_keep_their_output(tmp_path):
    done = measure(tmp_path, "--repeat", "3", "--warm-up", "1", "--json", "out.json", "--", "sh", "-c", "echo mine")
    assert done.returncode == 0, done.stderr
    assert "mine\n" not in done.stdout.replace("echo mine\n", "")
    assert "median of 3 runs" in done.stdout
    logs = list(kept(tmp_path).glob("*/worker.log"))
    assert [log.read_text() for log in logs] == ["mine\n"] * 3
    (command,) = json.loads((tmp_path / "out.json").read_text())["commands"]
    assert command["exit_codes"] == [0, 0, 0, 0]
    assert len(command["runs"]) == 3
    assert command["readings"]["duration_s"]["method"] == "measured"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--", "sh", "-c", "exit 7"], 7, "the run failed with exit code 7: the"),
        (["--repeat", "5", "--", "sh", "-c", "exit 7"], 7, "the run failed with exit code 7: the"),
        (["--ignore-failure", "--repeat", "2", "--", "sh", "-c", "exit 7"], 0, "2 of 2 runs failed"),
        (["--warm-up", "1", "--", "sh", "-c", "exit 9"], 9, "not measured: exit code 9 while warming up"),
        (["--", "sh", "-c", "kill -9 $$"], 137, "exit code 137"),
        (["--", "no-such-command"], 2, "there is no command 'no-such-command'"),
        ([], 2, "nothing to measure"),
        (["--command", "true", "--", "true"], 2, "given twice"),
        (["--command", "true", "--command", "true"], 2, "given twice"),
        (["--shell", "--", "true"], 2, "--shell reads a text"),
        (["--command", "a 'b"], 2, "No closing quotation"),
        (["--unit", "images", "--", "true"], 2, "is no unit"),
        (["--unit", "images=many", "--", "true"], 2, "is no amount"),
        (["--unit", "images=/a/", "--", "true"], 2, "0 groups"),
        (["--unit", "images=-1", "--", "true"], 2, "at least 0"),
        (["--meter", "lamp", "--", "true"], 2, "there is no meter 'lamp'"),
        (["--backend", "quantum", "--", "true"], 2, "there is no backend 'quantum'"),
        (["--idle", "soon", "--", "true"], 2, "is not a duration"),
        (["--unit", "images=/did (.*)/", "--", "echo", "none"], 3, "does not match"),
        (["--unit", "images=json:a", "--", "echo", "{}"], 3, "has no 'a'"),
    ],
)
def test_exit_codes(tmp_path, arguments, code, says):
    done = measure(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_single_run_reads_what_is_piped_in(tmp_path):
    arguments = [sys.executable, "-m", "harness", "measure", "--", "cat"]
    pipe = {"input": "a\nb\n", "capture_output": True, "text": True, "timeout": 120, "cwd": tmp_path}
    done = subprocess.run(arguments, **pipe, check=True)
    assert (done.returncode, done.stdout) == (0, "a\nb\n")
    arguments[4:4] = ["--repeat", "2"]
    done = subprocess.run(arguments, **pipe, check=True)
    assert done.returncode == 0
    logs = [log.read_text() for log in kept(tmp_path, latest=True).glob("*/worker.log")]
    assert logs == ["", ""], "all runs read the same"


def test_a_signal_that_ended_the_command_is_named(tmp_path):
    done = measure(tmp_path, "--", "sh", "-c", "kill -SEGV $$")
    assert done.returncode == 139
    assert "the run failed with exit code 139, which is SIGSEGV: the numbers are no result" in done.stderr


def test_words_and_output_that_are_no_utf8(tmp_path):
    arguments = [sys.executable, "-m", "harness", "measure", "--json", "out.json", "--", "printf", "%s", b"\xff\xe9"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, b"\xff\xe9"), "the command got the bytes, and so did its reader"
    (command,) = json.loads((tmp_path / "out.json").read_text())["commands"]
    assert command["command"] == r"printf %s '\xff\xe9'"
    (point,) = harness.load(kept(tmp_path)).points
    assert point.label == command["command"]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_tables_on_any_output(tmp_path, encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "80", "LC_ALL": "C"}
    arguments = [sys.executable, "-m", "harness", "measure", "--repeat", "2", "--", "printf", "\u00e9"]
    done = subprocess.run(
        arguments, cwd=tmp_path, env=environment, capture_output=True, timeout=120, start_new_session=True, check=False
    )
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.decode(encoding).splitlines() if not line.startswith("  note")]
    assert max(map(len, table)) <= 80


def test_json_alone_goes_to_standard_output(tmp_path):
    done = measure(tmp_path, "--json", "-", "--", "echo", "hi")
    assert json.loads(done.stdout)["commands"][0]["exit_codes"] == [0]
    refused = measure(tmp_path, "--json", "-", "--show-output", "--", "echo", "hi")
    assert refused.returncode == 2
    assert "--json FILE" in refused.stderr


def test_a_file_that_cannot_be_written_is_told_before_anything_runs(tmp_path):
    done = measure(tmp_path, "--json", "gone/out.json", "--", "touch", "ran")
    assert done.returncode == 2
    assert not (tmp_path / "ran").exists()


def test_much_output_is_passed_on_or_kept(tmp_path):
    long = "import sys\nfor _ in range(1000): sys.stdout.write('x' * 100_000)"
    arguments = [sys.executable, "-m", "harness", "measure", "--", sys.executable, "-c", long]
    with (tmp_path / "shown").open("wb") as shown:
        subprocess.run(arguments, cwd=tmp_path, stdout=shown, stderr=subprocess.DEVNULL, check=True, timeout=120)
    assert (tmp_path / "shown").stat().st_size == 100_000_000
    done = measure(tmp_path, "--unit", "n=/(1)/", "--", sys.executable, "-c", long)
    assert done.returncode == 3
    assert "printed 100000000 bytes" in done.stderr


def test_units_read_from_output_that_is_shown(tmp_path):
    done = measure(tmp_path, "--unit", "images=/did (.*)/", "--", "echo", "did 4")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "did 4\n"
    (trial,) = harness.load(kept(tmp_path)).trials
    assert trial.units["images"].count.achieved == 4.0


def test_the_time_of_a_unit_is_the_commands_own(tmp_path):
    done = measure(tmp_path, "--unit", "images=4", "--json", "out.json", "--", "true")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((tmp_path / "out.json").read_text())["commands"][0]["runs"]
    duration_s = run["readings"]["duration_s"]["value"]
    assert run["per_unit"]["images"]["duration_s"]["value"] == pytest.approx(duration_s / 4)
    assert run["per_unit"]["images"]["rate"]["value"] == pytest.approx(4 / duration_s)


def test_no_unit_is_done(tmp_path):
    done = measure(tmp_path, "--unit", "images=0", "--", "true")
    assert done.returncode == 0
    assert "no images: the 1 item that met every condition sums to 0" in done.stderr


def test_without_a_meter_time_is_measured_and_the_reason_told(tmp_path):
    done = measure(tmp_path, "--meter", "rapl: {root: /nowhere}", "--", "true")
    assert done.returncode == 0
    assert "meter rapl: no RAPL" in done.stderr
    (trial,) = harness.load(kept(tmp_path)).trials
    assert isinstance(trial.readings["duration_s"], Amount)
    assert not isinstance(trial.readings["energy_j"], Amount)


def test_what_a_shell_reads(tmp_path):
    done = measure(tmp_path, "--shell", "--command", "echo $((20 + 1)) | cat")
    assert (done.returncode, done.stdout) == (0, "21\n")


def test_secrets_in_the_words_are_not_kept(tmp_path):
    done = measure(tmp_path, "--", "echo", "--token=hf_abcdefghijklmnopqrstuvwxyz0123")
    assert done.stdout == "--token=hf_abcdefghijklmnopqrstuvwxyz0123\n", "the command itself gets it"
    for file in kept(tmp_path).rglob("*.json"):
        assert "hf_abc" not in file.read_text(), file


def test_a_daemon_that_is_left_is_told_and_lives_on(tmp_path):
    done = measure(tmp_path, "--hide-output", "--", "sh", "-c", "sleep 30 & echo $! > pid")
    pid = int((tmp_path / "pid").read_text())
    try:
        assert f"left 'sleep' (process {pid}) running" in done.stdout
        assert psutil.pid_exists(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_daemon_of_an_earlier_run_is_told_in_the_next(tmp_path):
    done = measure(tmp_path, "--repeat", "2", "--", "sh", "-c", "[ -e pid ] || { sleep 60 & echo $! > pid; }")
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    assert f"left 'sleep' (process {pid}) running" in done.stdout
    assert f"'sleep' (process {pid}) was left running by an earlier run" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_commands_tree(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "measure", "--", "sh", "-c", "sleep 60 & echo $! > pid; wait"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    child = int((tmp_path / "pid").read_text())
    while psutil.pid_exists(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(child)
    assert json.loads((kept(tmp_path) / "run.json").read_text())["status"] == "interrupted"


def test_commands_are_compared_by_pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = Asked(commands=["true", "sleep 0.05"], repeat=6, meters=[])
    answer = measure_commands(asked, tmp_path / "store", load_plugins(), print)
    first, other = answer.points
    change = answers.compared(answer, first, other)["duration_s"]
    assert change["pairs"] == 6
    assert 0 < change["low"] <= change["change"] <= change["high"]
    two = Asked(commands=["true", "false"], repeat=2, meters=[], goes_on=True)
    answer = measure_commands(two, tmp_path / "store", load_plugins(), print)
    text = "\n".join(answers.comparison(answer))
    assert "or more gives an interval" in text
    assert answer.failed == 1


def test_the_energy_of_the_tree_is_charged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    burn = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    asked = Asked(commands=[[sys.executable, "-c", burn]], meters=[("cpu_time", {"watts_per_core": 10})])
    answer = measure_commands(asked, tmp_path / "store", load_plugins(), print)
    (record,) = answer.records[answer.points[0].id]
    energy = record.totals["energy_j"]
    assert isinstance(energy, Amount)
    assert energy.label is Method.ESTIMATED
    assert energy.value >= 0.45 * 10
    readings = answers.readings_of(record)
    cpu = readings["cpu_s"]
    assert isinstance(cpu, Amount)
    assert cpu.value >= 0.5


def test_a_command_that_is_no_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="there is no command"):
        measure_commands(Asked(commands=["gone-for-tests"]), tmp_path / "store", load_plugins(), print)
    assert not (tmp_path / "store").exists(), "nothing was begun"


def test_idle_power_is_taken_off(tmp_path):
    done = measure(tmp_path, "--meter", TREE, "--idle", "200ms", "--", "sleep", "0.2")
    assert done.returncode == 0, done.stderr
    assert "energy above idle" in done.stderr
