"""Secrets planted in the environment, in addresses, options and command lines are in no byte that is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.planning.secrecy import holds_secret, is_secret_name, redacted, redacted_command
from harness.planning.suite import loads

SECRET = "pl4nted-s3cret"
ENVIRONMENT = {
    "OPENAI_API_KEY": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET, "HF_TOKEN": SECRET, "GITHUB_TOKEN": SECRET,
    "DATABASE_URL": f"postgres://user:{SECRET}@db/x", "HTTPS_PROXY": f"http://user:{SECRET}@127.0.0.1:1/",
    "CODECARBON_CO2_SIGNAL_API_TOKEN": SECRET, "MY_PASSWORD": SECRET, "PS1": SECRET, "MAIL": SECRET,
}  # fmt: skip

ASKING = """
import os
from harness import FunctionalUnit, Workload, WorkloadSpec, hookimpl, Options

class AskingOptions(Options):
    url: str = "http://127.0.0.1:1/v1"
    api_key_env: str = "OPENAI_API_KEY"
    api_key: str = ""

class Asking(Workload):
    def __init__(self, options):
        self.key = os.environ[options.api_key_env]

    def prepare(self, context):
        assert self.key == "pl4nted-s3cret", "the plugin has its key"

    def step(self, window):
        window.item(str(window.iteration))
        window.output(str(window.iteration), len(self.key))

@hookimpl
def harness_workloads():
    yield WorkloadSpec(name="asking", summary="has a key", factory=Asking, options=AskingOptions,
                       functional_units={"piece": FunctionalUnit("items")})
"""


def holding(folder: Path) -> list[str]:
    """Files below a folder that hold the secret, in their content or in their name."""
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and (SECRET.encode() in path.read_bytes() or SECRET in str(path))
    ]


def test_planted_secrets_are_in_no_output(bench: Any) -> None:
    bench.plugin(ASKING)
    suite = bench.suite(workload="asking", options="api_key_env: OPENAI_API_KEY", trials=2)
    out = bench.folder / "out"
    out.mkdir()
    done = [bench.run("run", suite, "--store", bench.store, **ENVIRONMENT)]
    assert done[0].returncode == 0, done[0].stdout + done[0].stderr
    run = bench.only_run
    for form in ("terminal", "html", "md", "json", "csv"):
        output = [] if form == "terminal" else ["--output", out / f"report.{form}"]
        done.append(bench.run("report", run, "--format", form, *output, **ENVIRONMENT))
    exports = ("pytest-benchmark", "openmetrics", "model-card")
    done += [bench.run("export", run, out / form, "--to", form, **ENVIRONMENT) for form in exports]
    done.append(bench.run("plan", suite, "--json", **ENVIRONMENT))
    done.append(bench.run("doctor", "--deep", "--json", "--store", bench.store, **ENVIRONMENT))
    assert [each.returncode for each in done[:-1]] == [0] * 8 + [3, 0], "a model card needs carbon"
    assert len(list(out.iterdir())) == 6
    assert not any(SECRET in each.stdout + each.stderr for each in done)
    assert holding(bench.store) == []
    assert holding(out) == []
    assert holding(bench.folder / "tmp") == []


@pytest.mark.parametrize(
    "option",
    [
        f"api_key: {SECRET}",
        f"url: 'https://user:{SECRET}@host/v1'",
        f"url: 'https://host/v1?model=x&access_token={SECRET}'",
        "api_key: '${env:OPENAI_API_KEY}'",
    ],
)
def test_a_secret_in_a_suite_is_refused_and_not_repeated(bench: Any, option: str) -> None:
    bench.plugin(ASKING)
    done = bench.run("run", bench.suite(workload="asking", options=option), "--store", bench.store, **ENVIRONMENT)
    assert done.returncode == 2, done.stderr
    assert "secret, and a suite goes into the records" in done.stderr
    assert "suite.yaml:11:" in done.stderr
    assert "api_key_env" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert not bench.store.exists()


@pytest.mark.parametrize(
    "text",
    [
        "meters: [{fuel: {api_token: X}}]\ncases: [{workload: w}]",
        "backend: {name: b, password: X}\ncases: [{workload: w}]",
        "cases: [{workload: w, matrix: {api_key: [X, Y]}}]",
        "cases: [{workload: w, options: {inner: {deep: [{secret: X}]}}}]",
        "description: 'see https://a:X@b/'\ncases: [{workload: w}]",
        "cases: [{workload: w, name: 'https://b/?sig=X'}]",
    ],
)
def test_secrets_are_found_wherever_they_stand(text: str) -> None:
    with pytest.raises(UsageError, match="secret"):
        loads(f"suite: s\n{text}", environment={})


def test_names_that_only_sound_like_secrets_are_let_pass() -> None:
    suite = loads(
        "suite: s\ncases:\n- workload: w\n  options: {api_key_env: KEY, output_tokens: 5, tokenizer: x/y,"
        " first_token: decode, key: a, sort_key: b, url: 'https://host:8000/v1?model=a@b', token_type: x}\n",
        environment={},
    )
    assert len(suite.cases[0].options) == 8


@pytest.mark.parametrize("name", ["api_key", "apikey", "API-KEY", "hf_token", "token", "password", "client_secret",
                                  "aws_secret_access_key", "co2_signal_api_token", "sig", "credentials"])  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


def test_a_command_line_is_kept_without_its_secrets(tmp_path: Path) -> None:
    kept = redacted_command(
        ["harness", "run", f"https://u:{SECRET}@h/s.yaml", "--store", f"s3://{SECRET}:{SECRET}@host/b?sig={SECRET}&x=1",
         f"--set=scarf.api_key={SECRET}", "--api-key", SECRET, f"api_key={SECRET}", "--seed", "7"]
    )  # fmt: skip
    assert SECRET not in json.dumps(kept)
    assert kept[2] == "https://h/s.yaml"
    assert kept[4] == "s3://host/b"
    assert kept[-2:] == ["--seed", "7"]


@pytest.mark.parametrize("text", ["suites/quick.yaml", "fuel.grid=USA", "a@b", "http://host:80/v1", "tokens=5", "",
                                  "abfs://container@account.net/x"])  # fmt: skip
def test_what_holds_no_secret_is_kept_as_it_is(text: str) -> None:
    assert redacted(text) == text
    assert not holds_secret(text)


def test_a_query_is_refused_for_a_secret_name_and_kept_nowhere() -> None:
    assert not holds_secret("http://host:80/v1?key=1")
    assert redacted("http://host:80/v1?key=1") == "http://host:80/v1"
    assert holds_secret("http://host:80/v1?access_token=1")


@pytest.mark.parametrize(
    "text", [f"https://u:{SECRET}@h/x", f"--api-key={SECRET}", f"s3://K:{SECRET}/x@b", f"sig={SECRET}"]
)
def test_what_a_suite_is_refused_for_is_kept_nowhere(text: str) -> None:
    assert holds_secret(text)
    assert SECRET not in redacted(text)


def test_a_run_keeps_its_command_without_secrets(bench: Any) -> None:
    suite = bench.suite()
    named = suite.rename(suite.with_name("api_key=abc.yaml"))
    assert bench.run("run", named, "--store", bench.store).returncode == 0
    described = json.loads((bench.only_run / "run.json").read_text())
    assert "abc" not in json.dumps([described["command"], described["suite_files"]])


# Paths


@pytest.mark.parametrize("name", ["../../evil", "a/b", "/etc/x", "a\0b", "..\\x", "", "a" * 101, "x\n", "ü"])
def test_a_suite_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        loads(f"suite: {json.dumps(name)}\ncases: [{{workload: spin}}]", environment={})


def test_hostile_names_and_labels_stay_in_the_store(bench: Any) -> None:
    suite = bench.suite(name="..")
    hostile = json.dumps("../../../<script>alert(1)</script>\u0000/..")
    text = suite.read_text().replace("  - workload: spin", f"  - workload: spin\n    name: {hostile}")
    suite.write_text(text)
    before = {path for path in bench.folder.rglob("*") if bench.store not in path.parents and path != bench.store}
    done = bench.run("run", suite, "--store", bench.store)
    assert done.returncode == 0, done.stdout + done.stderr
    new = {path for path in bench.folder.rglob("*") if bench.store not in path.parents and path != bench.store} - before
    cache = bench.folder / "cache"  # what a trial costs besides is remembered there
    assert not any(path.suffix == ".json" and cache not in path.parents for path in new), new
    assert bench.only_run.parent == bench.store
    assert {path.name for path in bench.only_run.glob("*-t*")} == bench.planned()
    page = bench.folder / "page.html"
    assert bench.run("report", bench.only_run, "--format", "html", "--output", page).returncode == 0
    assert "<script>alert" not in page.read_text(encoding="utf-8")


def test_a_hostile_label_cannot_steer_a_terminal(bench: Any) -> None:
    suite = bench.suite()
    hostile = json.dumps("=evil\x1b[2J\x07")
    suite.write_text(suite.read_text().replace("  - workload: spin", f"  - workload: spin\n    name: {hostile}"))
    done = bench.run("run", suite, "--store", bench.store)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [done.stdout, done.stderr]
    store, run = ("--store", bench.store), bench.only_run
    for command in (
        ("plan", suite),
        ("report", run),
        ("report", run, "--format", "md"),
        ("report", run, "--format", "csv"),
        ("query", "SELECT * FROM trials", *store),
        ("history", "rate", "--per", "operation", *store),
        ("store", "list", *store),
        ("store", "check", *store),
    ):
        done = bench.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        said += [done.stdout, done.stderr]
    assert not [text for text in said if "\x1b" in text or "\x07" in text]
    assert r"evil\x1b[2J\x07" in said[0], "what it was is shown"


def test_deep_json_in_a_store_is_an_error_and_no_crash(bench: Any, tmp_path: Path) -> None:
    assert bench.run("run", bench.suite(), "--store", bench.store).returncode == 0
    run, bomb = bench.only_run, "[" * 200_000
    for name in ("plan.json", "run.json"):
        kept = (run / name).read_bytes()
        (run / name).write_text(bomb)
        done = bench.run("run", "--resume", run)
        assert done.returncode == 3, done.stderr
        (run / name).write_bytes(kept)
    (trial,) = run.glob("*-t000")
    (trial / "items.jsonl").write_text(bomb + "\n{}\n")
    assert bench.run("score", run).returncode == 3
    (trial / "record.json").write_text(bomb)
    done = bench.run("report", run)
    assert done.returncode == 3, done.stderr
    assert "internal error" not in done.stderr
