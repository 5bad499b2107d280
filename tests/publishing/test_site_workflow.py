"""The workflow that publishes a site, and the gate's link to it: run as a runner would, without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.errors import UsageError
from harness.gating.outputs import checked_site, markdown
from harness.gating.result import Result
from harness.gating.verdict import Verdict
from harness.publishing.folder import files_below, own_files

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / ".github/workflow-examples/publish-site.yml"
PAGE = (ROOT / "docs/site.md").read_text(encoding="utf-8")
SUITE = """
suite: ci
meters: []
trials: 3
windows: {count: 1, min_seconds: 0.05}
warm_up: {max_seconds: 0.1}
cases:
  - workload: spin
    options: {iterations: 2000}
"""


def test_the_page_shows_the_workflow_as_it_is() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert EXAMPLE.read_text(encoding="utf-8") in blocks
    workflow = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "write"}
    (step,) = yaml.safe_load(blocks[-1])
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    assert set(step["with"]) <= set(action["inputs"])


@pytest.mark.slow
def test_every_merge_adds_a_run_to_the_published_site(tmp_path: Path) -> None:
    """Two merges by runners of their own, which share nothing but the branch."""
    for name in ("bin", "work", "cache"):
        (tmp_path / name).mkdir()
    ours = [path for path in sys.path if path and Path(path).is_dir()]
    program = tmp_path / "bin" / "harness"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:0] = {ours!r}\nfrom harness.cli import main\nmain()\n"
    )
    program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT", "PYTHON"))}
    identity = {f"GIT_{role}_{what}": "a" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {
        **kept, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GITHUB_REPOSITORY": "me/shop", "GITHUB_SHA": "0" * 40, "GIT_CONFIG_GLOBAL": "/dev/null",
    }  # fmt: skip

    def run(*command: str, where: Path, **more: str) -> str:
        done = subprocess.run(
            command, cwd=where, env={**environment, **more}, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("git", "init", "--quiet", "--bare", "--initial-branch=main", "origin", where=tmp_path)
    run("git", "clone", "--quiet", "origin", "work", where=tmp_path)
    (tmp_path / "work/gate.yaml").write_text(SUITE, encoding="utf-8")
    run("git", "add", ".", where=tmp_path / "work")
    run("git", "commit", "--quiet", "--message", "a suite", where=tmp_path / "work", **identity)
    run("git", "push", "--quiet", "origin", "HEAD:main", where=tmp_path / "work")
    (job,) = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["jobs"].values()
    steps = [step["run"] for step in job["steps"] if "run" in step and "pip install" not in step["run"]]
    assert len(steps) == 4
    for merge in ("first", "second"):
        run("git", "clone", "--quiet", "origin", merge, where=tmp_path)
        for step in steps:
            run("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step, where=tmp_path / merge)
    run("git", "clone", "--quiet", "--branch", "results", "origin", "pages", where=tmp_path)
    site = tmp_path / "pages/docs"
    assert sorted(own_files(site) or ()) == files_below(site)
    assert "2 runs, 6 trials, 1 device" in (site / "index.html").read_text(encoding="utf-8")
    assert "Results of me/shop" in (site / "index.html").read_text(encoding="utf-8")
    assert len(list((site / "runs").iterdir())) == len(list((tmp_path / "pages/records").iterdir())) == 2
    assert not (tmp_path / "pages/gate.yaml").exists()
    assert run("git", "log", "--format=%s", where=tmp_path / "pages").count("Results of 0000") == 2


RESULT = Result(verdict=Verdict.PASS, cells=[])


def test_the_gates_comment_links_the_site() -> None:
    assert markdown(RESULT, "https://me.github.io/shop/").splitlines()[-1] == (
        "[Results of earlier runs](https://me.github.io/shop/)"
    )
    assert "Results of earlier runs" not in markdown(RESULT)


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "https://a b", "https://a/)[x](http://b", "ftp://a", "//a", "https://", "https://a/\n# b"],
)
def test_what_is_no_address_of_a_site_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="--site"):
        checked_site(address)
    assert checked_site("http://localhost:8000/x?y=1#z") == "http://localhost:8000/x?y=1#z"
    assert checked_site("") is None


def test_the_action_hands_the_address_on() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    gate = action["runs"]["steps"][0]
    assert gate["env"]["SITE"] == "${{ inputs.site }}"
    fake = 'harness() { printf "%s\\n" "$@" > called; }\n'
    for site, wanted in (("", []), ("https://a/b", ["--site", "https://a/b"])):
        script = f'cd "$(mktemp -d)"\n{fake}{gate["run"]}'.replace('exit "$code"', "cat called")
        inputs = dict.fromkeys(("BUDGET", "INSTALL"), "") | {"SUITES": "a.yaml", "BASE": "b", "HEAD": "h", "PAIRS": "3"}
        inputs |= {"STORE": "s", "ALLOW_INCONCLUSIVE": "false", "SITE": site, "GITHUB_OUTPUT": "/dev/null"}
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            env={**os.environ, **inputs},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        lines = done.stdout.splitlines()
        at = lines.index("--site") if "--site" in lines else len(lines)
        assert lines[at : at + 2] == wanted
