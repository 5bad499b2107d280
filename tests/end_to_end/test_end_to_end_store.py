"""A store in S3 as a user has one: measured here, read, costed and resumed elsewhere, and no secret of it anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs", reason="stores in S3 need s3fs")
pytest.importorskip("duckdb", reason="listing a store needs duckdb")

SUITE = """\
suite: far
backend: {name: host}
meters: [tdp: {watts: 100}]
trials: 2
windows: {count: 1, min_seconds: 0.2}
warm_up: {max_seconds: 0.2, max_iterations: 6}
foreign_load: {at_most: 100%}
cases:
  - workload: spin
    matrix: {iterations: [2000, 3000]}
    functional_units: {item: {sum: items}}
gate:
  - {metric: energy_j, per: item, worse_by_at_most: 900%}
"""
KEY, SECRET, TOKEN = "AKIAPLANTEDKEY", "planted+secret", "plantedtoken99"


class User:
    """One machine: a cache of its own, and the address of the store with secrets in it."""

    def __init__(self, folder: Path, bucket: str, server: str) -> None:
        self.folder = folder
        self.bucket = bucket.removeprefix("s3://")
        self.server = server
        self.machine = "one"
        self.said = ""
        self.suite = folder / "far.yaml"
        self.suite.write_text(SUITE, encoding="utf-8")

    def place(self, run: str = "") -> str:
        behind = f"/{run}" if run else ""
        secret = SECRET.replace("+", "%2B")
        return f"s3://{KEY}:{secret}@{self.bucket}/lab{behind}?endpoint_url={self.server}&token={TOKEN}"

    def run(self, *arguments: object, code: int = 0) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        done = subprocess.run(
            [sys.executable, "-m", "harness", *map(str, arguments)],
            env=environment
            | {
                "AWS_DEFAULT_REGION": "us-east-1",
                "TMPDIR": str(self.folder),
                "XDG_CACHE_HOME": str(self.folder / f"cache-{self.machine}"),
                "COLUMNS": "300",
            },
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.said += done.stdout + done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def json(self, *arguments: object) -> Any:
        return json.loads(self.run(*arguments))


@pytest.fixture
def user(tmp_path: Path, s3_bucket: str, s3_server: str) -> User:
    return User(tmp_path, s3_bucket, s3_server)


@pytest.mark.slow
def test_measured_here_and_used_elsewhere(user: User) -> None:
    import fsspec

    store = user.place()
    shown = f"s3://{user.bucket}/lab"
    assert f"records: {shown}/" in user.run("run", user.suite, "--store", store)
    (row,) = user.json("store", "list", "--store", store, "--json")
    run = row["run"]
    assert (row["status"], row["trials"]) == ("ok", 4)

    # a trial is lost in the store, and with it what this machine knew: resumed elsewhere, exactly it is measured again
    files = fsspec.filesystem("s3")
    root = f"{user.bucket}/lab/{run}"
    lost = min(path for path in files.ls(root, detail=False) if "-t0" in path)
    kept = {path: files.cat_file(path) for path in files.find(root) if path.endswith("measurement.json")}
    files.invalidate_cache()
    files.rm(lost, recursive=True)
    user.machine = "two"
    user.run("run", "--store", store, "--resume", run)
    files.invalidate_cache()
    now = {path: files.cat_file(path) for path in files.find(root) if path.endswith("measurement.json")}
    assert now.keys() == kept.keys()
    assert {path for path, data in now.items() if data != kept[path]} == {f"{lost}/measurement.json"}

    user.machine = "three"
    rows = user.json("query", "SELECT run, trial_id, energy_j FROM trials", "--store", store, "--format", "json")
    assert len({each["trial_id"] for each in rows}) == 4
    assert user.json("query", "SELECT count(*) AS n FROM items", "--store", store, "--format", "json")[0]["n"] > 4
    followed = user.json("history", "energy_j", "--per", "item", "--store", store, "--json")
    assert [each["run"] for series in followed["series"] for each in series["runs"]] == [run, run]
    assert len(json.loads(user.run("report", user.place(run), "--format", "json"))["runs"]) == 1
    user.run("export", user.place(run), user.folder / "metrics.txt", "--to", "openmetrics")
    user.run("score", user.place(run))
    user.run("compare", user.place(run), user.place(run))
    user.run("recost", user.place(run), "--set", "fuel.grid=300", "--store", store)
    user.run("baseline", "save", "first", user.place(run), "--store", store)

    user.machine = "four"
    assert "first" in user.run("baseline", "list", "--store", store)
    judged = user.run("gate", user.suite, "--baseline", "first", "--store", store, code=3)
    assert "too short to gate energy" in judged  # what is wanted here: judged by the store's baseline, and kept there
    assert len(user.json("store", "list", "--store", store, "--json")) == 3
    assert "0 faults, 0 findings" in user.run("store", "check", "--store", store)
    assert "has everything" in user.run("store", "push", "--store", store)

    planted = (KEY, SECRET, SECRET.replace("+", "%2B"), TOKEN)
    outputs = {str(path): path.read_bytes() for path in user.folder.rglob("*") if path.is_file()}
    files.invalidate_cache()
    outputs |= {path: files.cat_file(path) for path in files.find(f"{user.bucket}/lab")}
    outputs["said"] = user.said.encode()
    assert len(outputs) > 50
    assert [name for name, data in outputs.items() if any(secret.encode() in data for secret in planted)] == []


@pytest.mark.slow
def test_a_run_whose_store_is_away_is_kept_and_sent_later(user: User, tmp_path: Path) -> None:
    """The folder in place of the store is a file at first: every attempt to write there fails."""
    (tmp_path / "far").write_text("in the way", encoding="utf-8")
    place = f"file://{tmp_path}/far"
    start = [
        sys.executable,
        "-c",
        "import harness.storing.remote.store as r; r.WAIT_S = 1.0; from harness.cli import main; main()",
    ]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache-one"), "COLUMNS": "300"}
    done = subprocess.run(
        [*start, "run", str(user.suite), "--store", place],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "nothing is lost" in done.stderr
    (tmp_path / "far").unlink()
    assert "sent: " in user.run("store", "push", "--store", place)
    (row,) = user.json("store", "list", "--store", place, "--json")
    assert (row["status"], row["trials"]) == ("ok", 4)
    assert "has everything" in user.run("store", "push", "--store", place)


@pytest.mark.slow
def test_a_run_folder_is_put_into_a_store(user: User, tmp_path: Path) -> None:
    user.run("run", user.suite, "--store", tmp_path / "reports")
    (run,) = (tmp_path / "reports").iterdir()
    assert f"sent: s3://{user.bucket}/lab/{run.name}" in user.run("store", "push", run, "--store", user.place())
    user.machine = "two"
    (row,) = user.json("store", "list", "--store", user.place(), "--json")
    assert (row["run"], row["trials"]) == (run.name, 4)
