"""`harness new` writes packages that lint, test, install and load as they are."""

from __future__ import annotations

import ast
import json
import keyword
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.commands.new import KINDS, LONGEST, content, made, names, write
from harness.discovery.registry import Registry, load_plugins
from harness.errors import UsageError

ROOT = Path(__file__).parents[2]
LONG = "abcdefghij.abcdefghij_abcdef"
HARNESS = "import sys; from harness.cli import main; sys.exit(main())"


def run(*words, folder, path=(), **environment):
    """Runs Python in a folder with more on its path."""
    inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), *inherited]), **environment},
    )


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A package of each kind, with the shortest and the longest name."""
    folder = tmp_path_factory.mktemp("new")
    for kind in KINDS:
        for name in ("a", LONG):
            write(names(kind, name), folder)
    return folder


def test_lint_passes_with_the_settings_of_this_project(everything):
    packages = sorted(everything.iterdir())
    assert len(packages) == 2 * len(KINDS)
    for package in packages:
        for words in (["check"], ["format", "--check", "--diff"]):
            for chosen in ([], ["--config", str(ROOT / "pyproject.toml")]):
                done = run("-m", "ruff", *words, "--no-cache", *chosen, ".", folder=package)
                assert done.returncode == 0, done.stdout + done.stderr


def test_types_are_right(everything, tmp_path):
    sources = [str(path) for path in sorted(everything.glob("harness-*-a/src/*/__init__.py"))]
    assert len(sources) == len(KINDS)
    chosen = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path)]
    done = run("-m", "mypy", *chosen, *sources, folder=ROOT, MYPYPATH=str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr


def code_lines(text):
    """Lines that hold code: neither blank nor of a docstring."""
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return [line for number, line in enumerate(text.splitlines(), 1) if line.strip() and number not in docstrings]


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_is_short_and_complete(kind):
    files = content(names(kind, "my.first_one"))
    assert set(files) == {
        "pyproject.toml",
        "README.md",
        f"src/harness_{kind}_my_first_one/__init__.py",
        f"src/harness_{kind}_my_first_one/py.typed",
        f"tests/test_{kind}_my_first_one.py",
    }
    assert 0 < len(code_lines(files[f"src/harness_{kind}_my_first_one/__init__.py"])) < 30
    assert not [path for path, text in files.items() if "$" in text]
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["name"] == f"harness-{kind}-my-first-one"
    assert project["entry-points"] == {"harness": {"my-first-one": f"harness_{kind}_my_first_one"}}


def run_tests(packages):
    """Runs the tests of packages in one process; returns those of each package that failed, by kind."""
    words = ["-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--import-mode=importlib"]
    done = run(*words, *map(str, packages), folder=packages[0].parent, path=[each / "src" for each in packages])
    ended = re.findall(r"^(PASSED|FAILED) \S*/test_(\w+?)_a\.py::", done.stdout, re.MULTILINE)
    assert {kind for _, kind in ended} == set(KINDS), done.stdout + done.stderr
    return {kind for state, kind in ended if state == "FAILED"}, done


def test_its_own_tests_pass(everything):
    failed, done = run_tests(sorted(everything.glob("harness-*-a")))
    assert not failed, done.stdout
    assert done.returncode == 0, done.stdout


FAULTS = {
    "meter": ("self.watts * (now", "2 * self.watts * (now"),
    "workload": ("sum(range(self.terms))", "sum(range(self.terms + 1))"),
    "backend": ("return (DEVICE,)\n\n    def sync", "return ()\n\n    def sync"),
    "executor": ("ok=code == 0", "ok=True"),
}


def test_a_fault_in_a_plugin_fails_its_test(tmp_path):
    """The written tests are ones that can fail."""
    packages = []
    for kind, (right, wrong) in FAULTS.items():
        packages.append(write(names(kind, "a"), tmp_path))
        file = packages[-1] / f"src/harness_{kind}_a/__init__.py"
        text = file.read_text(encoding="utf-8")
        assert right in text
        file.write_text(text.replace(right, wrong), encoding="utf-8")
    failed, done = run_tests(packages)
    assert failed == set(KINDS), done.stdout


@pytest.mark.skipif(find_spec("hatchling") is None, reason="needs hatchling to build without a network")
def test_installed_it_is_listed_and_keeps_its_contract(everything, tmp_path):
    packages = [str(path) for path in sorted(everything.glob("harness-*-a"))]
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    done = run(*pip, str(tmp_path / "site"), *packages, folder=tmp_path, PIP_DISABLE_PIP_VERSION_CHECK="1")
    assert done.returncode == 0, done.stderr
    done = run("-c", HARNESS, "plugins", "--json", "--no-probe", folder=tmp_path, path=[tmp_path / "site"])
    rows = {(row["kind"], row["name"]): row["distribution"] for row in json.loads(done.stdout)}
    for kind in KINDS:
        assert rows[kind, "a"] == f"harness-{kind}-a"
    done = run("-c", HARNESS, "plugins", "--check", "harness-backend-a", folder=tmp_path, path=[tmp_path / "site"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    assert done.stdout.count("passed") >= 5


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "harness-meter-a").mkdir()
    with pytest.raises(UsageError, match="already exists"):
        write(names("meter", "A"), tmp_path)
    assert list(tmp_path.rglob("*")) == [tmp_path / "harness-meter-a"]
    (tmp_path / "harness-meter-b").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="already exists"):
        write(names("meter", "b"), tmp_path)


def test_a_parent_that_is_a_file_is_the_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write(names("meter", "a"), tmp_path / "file")


def test_parents_are_made_and_no_draft_is_left(tmp_path):
    made = write(names("meter", "a"), tmp_path / "one" / "two")
    assert made.parent.is_dir()
    assert [path.name for path in made.parent.iterdir()] == ["harness-meter-a"]
    assert made.stat().st_mode & 0o777 == 0o755


def test_a_name_that_is_taken_is_refused(tmp_path):
    registry = load_plugins()
    with pytest.raises(UsageError, match="the meter 'rapl' already exists, in plugin builtin"):
        made("meter", "RAPL", tmp_path, registry)
    assert not list(tmp_path.iterdir())
    assert made("meter", "a", tmp_path, Registry())[0] == f"written: {tmp_path / 'harness-meter-a'}"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1st",
        "-a",
        "a-",
        ".",
        "..",
        "../a",
        "a/b",
        "a b",
        "a\n",
        "é",
        "$a",
        "{a}",
        "a" * (LONGEST + 1),
        "a\x00b",
        '"',
    ],
)
def test_names_that_cannot_be_borne(name):
    with pytest.raises(UsageError, match="is not a valid plugin name"):
        names("meter", name)


def test_an_unknown_kind_says_which_there_are():
    with pytest.raises(UsageError, match=r"accepted: workload, backend, meter, executor.*'meter'"):
        names("metre", "a")


@settings(max_examples=40, deadline=None)
@given(st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,26}[A-Za-z0-9]", fullmatch=True), st.sampled_from(KINDS))
def test_every_accepted_name_gives_names_that_python_and_pip_take(name, kind):
    plugin = names(kind, name)
    assert plugin.package.isidentifier()
    assert plugin.type.isidentifier()
    assert not keyword.iskeyword(plugin.type)
    assert plugin.type.lower().endswith(kind)
    assert plugin.type.lower() != kind
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", plugin.distribution)
    assert names(kind, plugin.offer) == plugin, "a normalised name stays as it is"
