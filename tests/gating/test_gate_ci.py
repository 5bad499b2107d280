"""What surrounds the gate in CI: outputs, the shell steps of action and snippet, the guide, the project's own gate."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.errors import UsageError
from harness.gating.job import CONTROL, load
from harness.gating.verdict import Verdict
from harness.planning import suite
from tests.conftest import Harness

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/gate.md").read_text(encoding="utf-8")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


# The shell steps, as a runner would run them


def stub(folder: Path, body: str) -> dict[str, str]:
    """An environment whose `harness` is a shell script."""
    (folder / "bin").mkdir()
    script = folder / "bin/harness"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def action(folder: Path, environment: dict[str, str], number: int = 0, **inputs: str) -> tuple[int, str, str]:
    """Runs a step of the action; returns exit code, what it set, and standard error."""
    step = ACTION["runs"]["steps"][number]
    values = {name: str(given.get("default", "")) for name, given in ACTION["inputs"].items()}
    values.update({name.replace("_", "-"): value for name, value in inputs.items()})
    variables = {
        name: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda found: values[found[1]], text)
        for name, text in step["env"].items()
    }
    assert "${{" not in step["run"], "an expression inside a script would run as code"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={**variables, **environment, "GITHUB_OUTPUT": str(folder / "set")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    said = (folder / "set").read_text() if (folder / "set").exists() else ""
    return done.returncode, said, done.stderr + (done.stdout if number else "")


@pytest.mark.parametrize(
    ("verdict", "code", "allow", "ends"),
    [
        ("pass", 0, "false", 0),
        ("regressed", 1, "true", 1),
        ("inconclusive", 4, "false", 4),
        ("inconclusive", 4, "true", 0),
    ],
)
def test_the_action_passes_its_inputs_and_the_verdict_on(
    tmp_path: Path, verdict: str, code: int, allow: str, ends: int
) -> None:
    content = json.dumps({"verdict": verdict, "exit_code": code}, indent=1)
    environment = stub(
        tmp_path, f'printf "%s\\n" "$@" > asked\nmkdir -p out\ncat > out/gate.json <<E\n{content}\nE\nexit {code}'
    )
    inputs = {"suites": "a.yaml b.yaml", "base": "main", "store": "out", "budget": "9", "install": "make; true"}
    found = action(tmp_path, environment, **inputs, allow_inconclusive=allow)
    assert found[:2] == (ends, f"verdict={verdict}\n")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:3] == ["gate", "a.yaml", "b.yaml"]
    assert asked[asked.index("--install") + 1] == "make; true"
    assert asked[asked.index("--budget") + 1] == "9"


FAKE_GH = """\
import json, os, sys
from pathlib import Path
said = sys.argv[1:]
store = Path("comments.json")
comments = json.loads(store.read_text())
if os.environ.get("FORBIDDEN"):
    sys.exit("gh: Resource not accessible by integration (HTTP 403)")
assert said[0] == "api" and os.environ["GH_TOKEN"] == "secret"
if "--jq" in said:
    assert said[1:3] == ["--paginate", "repos/me/mine/issues/7/comments"], said
    assert said[4] == ".[] | select(.body | startswith(env.marker)) | .id"
    for number, body in comments.items():
        if body.startswith(os.environ["marker"]):
            print(number)
else:
    assert said[4] == "--field" and said[5].startswith("body=@")
    made = {"PATCH": "repos/me/mine/issues/comments/", "POST": "repos/me/mine/issues/7/comments"}[said[2]]
    assert said[3].startswith(made)
    number = said[3].removeprefix(made) or str(100 + len(comments))
    comments[number] = Path(said[5].removeprefix("body=@")).read_text()
    store.write_text(json.dumps(comments))
"""


class Repository:
    """A pull request whose comments a fake `gh` keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        gh = folder / "bin/gh"
        gh.write_text(f"#!{sys.executable}\n{FAKE_GH}", encoding="utf-8")
        gh.chmod(0o755)
        (folder / "out").mkdir()
        (folder / "comments.json").write_text(json.dumps({"1": "Looks good to me"}), encoding="utf-8")

    @property
    def comments(self) -> dict[str, str]:
        return dict(json.loads((self.folder / "comments.json").read_text(encoding="utf-8")))

    def comment(self, table: str | None, suites: str = "a.yaml", **variables: str) -> tuple[int, str]:
        """Runs the commenting step over a gate's table; returns its exit code and all that it printed."""
        if table is not None:
            (self.folder / "out/gate.md").write_text(table, encoding="utf-8")
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "GITHUB_REPOSITORY": "me/mine",
            "GH_TOKEN": "secret",
            "PULL_REQUEST": "7",
            **variables,
        }
        code, _, said = action(self.folder, environment, 1, suites=suites, store="out")
        return code, said


def test_one_comment_is_written_and_kept_up_to_date(tmp_path: Path) -> None:
    pull = Repository(tmp_path)
    assert pull.comment("| regressed | parse | worse by +31 % |") == (0, "")
    assert pull.comment("| pass | parse | worse by +0.1 % |") == (0, "")
    assert pull.comments == {
        "1": "Looks good to me",
        "101": "<!-- joule-harness gate: a.yaml -->\n| pass | parse | worse by +0.1 % |",
    }
    pull.comment("of another gate", suites='b.yaml "$(touch broken)" -->')
    assert len(pull.comments) == 3
    assert not (tmp_path / "broken").exists()


def test_a_comment_that_may_not_be_written_fails_no_build(tmp_path: Path) -> None:
    pull = Repository(tmp_path)
    code, said = pull.comment("a table", FORBIDDEN="1")
    assert code == 0
    assert "::warning::the comment was not written (gh: Resource not accessible by integration (HTTP 403))" in said
    assert "pull-requests: write" in said


def test_a_comment_fits_and_nothing_is_said_without_a_verdict(tmp_path: Path) -> None:
    pull = Repository(tmp_path)
    assert pull.comment(None) == (0, "")
    assert len(pull.comments) == 1
    pull.comment("x" * 200_000)
    assert len(pull.comments["101"]) < 65_536


def test_the_comment_is_for_pull_requests_and_can_be_left_out() -> None:
    condition = ACTION["runs"]["steps"][1]["if"]
    assert condition == "always() && inputs.comment == 'true' && github.event_name == 'pull_request'"


def test_the_action_speaks_the_real_commands_language(tmp_path: Path) -> None:
    environment = stub(tmp_path, f'exec {shlex.quote(sys.executable)} -m harness "$@"')
    suites = str(ROOT / "suites/self-gate.yaml")
    code, said, error = action(tmp_path, environment, suites=suites, base="main", pairs="4", budget="1", install="true")
    assert (code, said) == (2, "")
    assert "at least 5" in error


def test_the_snippet_for_gitlab_speaks_it_too(tmp_path: Path) -> None:
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL) if "CI_MERGE_REQUEST" in block]
    job = yaml.safe_load(text)["gate"]
    environment = stub(tmp_path, f'exec {shlex.quote(sys.executable)} -m harness "$@"')
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites/ci.yaml").write_text((ROOT / "suites/self-gate.yaml").read_text())
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(job["script"])],
        cwd=tmp_path,
        env={**environment, "CI_MERGE_REQUEST_DIFF_BASE_SHA": "main", "GATE_PAIRS": "4"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "at least 5" in done.stderr


def test_the_action_of_the_guide_has_the_inputs_it_names() -> None:
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL) if "uses: OWNER" in block]
    used = yaml.safe_load(text)["steps"][-1]["with"]
    assert set(used) <= set(ACTION["inputs"])
    assert {name for name, given in ACTION["inputs"].items() if given.get("required")} <= set(used)


# The guide and the project's own gate


def test_the_guides_suite_is_ten_lines_that_gate() -> None:
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL) if block.startswith("suite:"))
    assert len(text.splitlines()) <= 10
    assert suite.loads(text).gate


def test_the_guide_lists_the_verdicts_with_their_exit_codes() -> None:
    rows = dict(re.findall(r"^\| `([a-z]+)` \| (\d) \|", GUIDE, re.MULTILINE))
    assert rows == {str(verdict): str(int(verdict.exit_code)) for verdict in Verdict}


def test_the_project_gates_itself() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["gate"]
    (step,) = [step for step in job["steps"] if step.get("uses") == "./"]
    assert set(step["with"]) <= set(ACTION["inputs"])
    (loaded,) = load([ROOT / step["with"]["suites"]])
    assert {case.workload for case in loaded.cases} == {"spin"}
    checkout = job["steps"][0]
    assert checkout["with"]["fetch-depth"] == 0, "the base revision must be there"


def test_the_control_is_a_suite() -> None:
    assert suite.loads(CONTROL).suite == "control"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("suite: a\ncases: [{workload: spin}]\n", "no `gate:` section"),
        (
            "suite: a\ncases: [{workload: spin}]\ngate: [{metric: m, at_most: 3}, {metric: m, at_most: 3}]\n",
            "judged twice",
        ),
    ],
)
def test_a_suite_that_cannot_be_gated_is_a_usage_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(said)):
        load([path])


def test_two_suites_of_one_name_are_a_usage_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("suite: x\ncases: [{workload: spin}]\ngate: [{metric: m, at_most: 1}]\n")
    with pytest.raises(UsageError, match="two suites are named 'x'"):
        load([tmp_path / "a", tmp_path / "b"])


TWO_POINTS = """\
suite: two
backend: host
cases:
  - workload: {workload}
    matrix: {{iterations: [20000, 30000]}}
gate:
  - {{metric: duration_s, per: operation, worse_by_at_most: 5%}}
"""


@pytest.mark.parametrize(
    ("pairs", "workload", "said"),
    [(4, "spin", "at least 5"), (5, "spin", "at least 6"), (6, "spin", ""), (4, "unheard-of", "at least 5")],
)
def test_too_few_pairs_are_told_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harness_in_process: Harness, pairs: int, workload: str, said: str
) -> None:
    """Two comparisons take six; where this environment lacks the plugin, the sides may have it."""
    (tmp_path / "two.yaml").write_text(TWO_POINTS.format(workload=workload), encoding="utf-8")
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "first"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=tmp_path, check=True)
    options = ("--base", "HEAD", "--pairs", str(pairs), "--install", "touch ../../installed; exit 1")
    monkeypatch.chdir(tmp_path)
    done = harness_in_process("gate", "two.yaml", *options)
    if said:
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
        assert "installing" not in done.stderr
    else:
        assert "installing" in done.stderr
        shown = harness_in_process("plan", "two.yaml")
        assert "gate: 2 comparisons and limits; harness gate takes at least 6 pairs" in shown.stdout
