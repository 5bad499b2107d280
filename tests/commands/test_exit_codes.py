"""What a shell sees of the command: exit codes with a closed pipe, a full disk, few letters, wrong places."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli
from harness.commands import streams
from harness.commands.console import SHOWN, echo
from harness.errors import ExitCode, MeasurementError

HARNESS = f"{sys.executable} -m harness"
VERDICT = """
import sys
import typer
from harness import cli
from harness.commands.console import echo

@cli.app.command()
def verdict(code: int, lines: int = 10000) -> None:
    for number in range(lines):
        echo(f"line {number} \N{MICRO SIGN}")
    raise typer.Exit(code)

sys.argv[0] = "harness"
cli.main()
"""


def shell(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of bash with `pipefail`; `harness` is the command, `verdict` one that prints much."""
    (folder / "verdict.py").write_text(VERDICT, encoding="utf-8")
    ours = f'harness() {{ {HARNESS} "$@"; }}; verdict() {{ {sys.executable} {folder}/verdict.py verdict "$@"; }}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{ours}; {script}"],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("verdict 0 | head -1", 0, ""),
        ("verdict 1 | head -1", 1, ""),
        ("verdict 4 | head -1", 4, ""),
        ("verdict 0 >&-", 0, ""),
        ("verdict 0 > /dev/full", 3, "the standard output cannot be written: No space left"),
        ("verdict 0 --lines 1 > /dev/full", 3, "the standard output cannot be written: No space left"),
        ("verdict 1 > /dev/full", 1, "the standard output cannot be written: No space left"),
        ("verdict 0 --lines 1 2> /dev/full", 0, ""),
        ("PYTHONIOENCODING=ascii verdict 0 --lines 1", 0, ""),
    ],
)
def test_a_verdict_outlives_its_output(tmp_path: Path, script: str, code: int, said: str) -> None:
    done = shell(script, tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stderr) == bool(said)


def test_few_letters_are_enough(tmp_path: Path) -> None:
    done = shell("verdict 0 --lines 1", tmp_path, PYTHONIOENCODING="ascii")
    assert done.stdout == "line 0 \\xb5\n"


def test_an_installation_that_does_not_import_is_no_regression(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ImportError('broken')", encoding="utf-8")
    done = shell("harness plan", tmp_path, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert done.returncode == ExitCode.INTERNAL


# In this process: what ends with which code


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli._code([*arguments])
    return code, capsys.readouterr().err


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "good.yaml").write_text("suite: a\nbackend: {name: host}\nmeters: []\ncases: [{workload: spin}]\n")
    return tmp_path


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("plan .", 2, "Is a directory"),
        ("plan binary.yaml", 2, "not UTF-8"),
        ("plan nothing.yaml", 2, "No such file"),
        ("plan good.yaml/below", 2, "Not a directory"),
        ("run good.yaml --store file", 2, "no store but a file"),
        ("run good.yaml --store file/below", 3, "Not a directory"),
        ("run good.yaml --store /proc/here", 3, "/proc/here: No such file"),
        ("query SELECT --store file", 2, "no store but a file"),
        ("query SELECT --store nothing", 2, "no such store"),
        ("history energy_j --store file", 2, "no store but a file"),
        ("store list --store nothing", 2, "no such store"),
        ("report file", 2, "no such run folder"),
        ("export file target --to openmetrics", 2, "no such run folder"),
        ("nothing", 2, "No such command"),
        ("plan --nothing", 2, "No such option"),
        ("run", 2, "nothing to run"),
        ("", 2, "Usage"),
    ],
)
def test_a_wrong_place_is_named(capsys: pytest.CaptureFixture[str], command: str, code: int, said: str) -> None:
    found, error = ended(capsys, *command.split())
    assert (found, said in error) == (code, True), error


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize("command", [["run", "good.yaml"], ["query", "SELECT 1"], ["store", "list"]])
def test_an_empty_name_is_not_the_present_folder(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    code, error = ended(capsys, *command, "--store", "")
    assert (code, "no store is named" in error) == (2, True), error


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (MeasurementError("no"), 3),
        (PermissionError(13, "Permission denied", "/data"), 3),
        (OSError(28, "No space left on device"), 3),
        (BrokenPipeError(32, "Broken pipe"), 70),
        (MemoryError(), 3),
        (KeyboardInterrupt(), 130),
        (EOFError(), 130),
        (ValueError("no"), 70),
        (RecursionError(), 70),
        (SystemExit("no"), 3),
        (SystemExit(1), 3),
        (SystemExit(None), 0),
        (SystemExit(4), 4),
    ],
)
@pytest.mark.parametrize("traceback", [False, True])
def test_no_end_but_a_regression_is_1(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    code: int,
    *,
    traceback: bool,
) -> None:
    def fails(*_: object) -> None:
        raise raised

    monkeypatch.setattr("harness.planning.probe.loaded", fails)
    options = ["--traceback"] if traceback else []
    found, error = ended(capsys, *options, "plan", "any.yaml")
    assert found == code
    assert ("Traceback" in error) == (traceback and code in {3, 70} and not isinstance(raised, SystemExit))


def test_what_is_printed_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    echo("a\x1b[2Jb\x07\nc\N{RIGHT-TO-LEFT OVERRIDE}")
    assert capsys.readouterr().out == "a\\x1b[2Jb\\x07\nc\\u202e\n"


def test_streams_that_a_test_captures_stay(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    streams.make_lasting()
    assert sys.stdout is before
    assert streams.unwritten() is None
    del capsys


@pytest.mark.parametrize("traceback", [False, True])
def test_what_libraries_print_is_shown_on_demand(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, traceback: bool
) -> None:
    monkeypatch.setitem(SHOWN, "traceback", traceback)
    with streams.captured():
        os.write(2, b"from a library\n")
        os.write(1, b"from a driver\n")
    echo("a report")
    out, error = capfd.readouterr()
    assert out == "a report\n"
    assert ("from a library" in error, "from a driver" in error) == (traceback, traceback)
