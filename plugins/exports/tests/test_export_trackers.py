"""What a tracker of experiments holds of a run is what was measured, once, or it is said what was not sent."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from harness_exports import mlflow_runs, wandb_runs
from harness_exports.cells import cells, settings
from harness_exports.options import MlflowOptions, WandbOptions

from harness import LoadedRun, MeasurementError, Method, UsageError

Kept = Callable[..., LoadedRun]
Started = Callable[..., AbstractContextManager[str]]
GONE = "the sensor is gone"
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


# MLflow


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of MLflow with its tables, which take seconds to make."""
    mlflow = pytest.importorskip("mlflow", reason="pip install 'joule-harness-exports[mlflow]'")
    pytest.importorskip("sqlalchemy", reason="MLflow keeps a local store with SQLAlchemy")
    pytest.importorskip("alembic", reason="MLflow keeps a local store with Alembic")
    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def runs_of(uri: str) -> list[Any]:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("joule-harness")
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


def check_mlflow(run: LoadedRun, uri: str) -> None:
    import mlflow

    found = {each.data.tags["harness.point"]: each for each in runs_of(uri)}
    assert found.keys() == {point.label for point in run.points}
    for point in run.points:
        there = found[point.label]
        made = cells(run, point)
        assert {name: there.data.metrics[name] for name in made.numbers} == made.numbers
        assert there.data.tags.items() >= made.said.items()
        assert there.data.params == settings(point)
        assert there.info.status == "FINISHED"
        assert there.info.end_time // 1000 < 1_800_000_000, "when it was measured, not when it was sent"
        history = mlflow.MlflowClient(tracking_uri=uri).get_metric_history(there.info.run_id, "trial/energy_j")
        assert [each.step for each in sorted(history, key=lambda each: each.step)] == [0, 1]


def test_mlflow_reads_back_each_point(kept: Kept, store: str) -> None:
    run = kept("a", "b")
    done = mlflow_runs.export(run, store, MlflowOptions())
    assert done.sent == f"2 runs to {store}, experiment joule-harness"
    check_mlflow(run, store)
    again = mlflow_runs.export(run, store, MlflowOptions())
    assert again.sent == f"0 runs to {store}, experiment joule-harness; 2 were there already"
    assert len(runs_of(store)) == 2
    check_mlflow(run, store)


def test_mlflow_holds_no_number_of_what_is_missing(kept: Kept, store: str) -> None:
    done = mlflow_runs.export(kept(ram=GONE), store, MlflowOptions())
    (there,) = runs_of(store)
    assert "trial_median/energy_j" not in there.data.metrics
    assert GONE in there.data.tags["missing.trial_median/energy_j"]
    assert any(line.startswith("work: ") and "trial_median/energy_j" in line for line in done.left_out)


def test_mlflow_says_what_was_simulated(kept: Kept, store: str) -> None:
    mlflow_runs.export(kept(gpu=Method.SIMULATED), store, MlflowOptions())
    (there,) = runs_of(store)
    assert there.data.tags["method.trial_median/energy_j"] == "simulated"


def test_a_sending_that_broke_off_is_completed(kept: Kept, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    run = kept("a", "b")
    log_batch, calls = mlflow.MlflowClient.log_batch, []

    def breaking(self: Any, run_id: str, **entities: Any) -> None:
        calls.append(run_id)
        if len(calls) == 5:
            raise ConnectionResetError("the cable was pulled")
        log_batch(self, run_id, **entities)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", breaking)
        with pytest.raises(MeasurementError, match=r"not sent: b: ConnectionResetError: the cable was pulled"):
            mlflow_runs.export(run, store, MlflowOptions())
    assert sorted(each.info.status for each in runs_of(store)) == ["FINISHED", "RUNNING"]
    done = mlflow_runs.export(run, store, MlflowOptions())
    assert done.sent.startswith("1 run to ")
    check_mlflow(run, store)


def test_other_numbers_under_the_same_name_are_refused(kept: Kept, store: str, tmp_path: Path) -> None:
    run = kept("a")
    mlflow_runs.export(run, store, MlflowOptions())
    with sqlite3.connect(tmp_path / "mlflow.db") as base:
        base.execute("update tags set value = 'another' where key = 'harness.digest'")
    with pytest.raises(UsageError, match=r"is point 'a' of .* with other numbers.*--set experiment=NAME"):
        mlflow_runs.export(run, store, MlflowOptions())
    mlflow_runs.export(run, store, MlflowOptions(experiment="beside"))


def test_a_tracking_server_that_is_away_is_said(kept: Kept, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MeasurementError, match=r"not sent: a, b: MlflowException: .*Connection refused"):
        mlflow_runs.export(kept("a", "b"), nobody, MlflowOptions())


@pytest.mark.slow
def test_a_real_tracking_server_takes_the_runs(kept: Kept, started: Started, empty_store: Path, tmp_path: Path) -> None:
    """`MLFLOW_SERVER_PYTHON` names an interpreter that has all of MLflow; its client alone cannot serve."""
    python = os.environ.get("MLFLOW_SERVER_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import mlflow.server, flask_cors"], capture_output=True, check=False).returncode:
        pytest.skip("needs an interpreter with all of MLflow: MLFLOW_SERVER_PYTHON")
    shutil.copy(empty_store, tmp_path / "served.db")
    options = ["--backend-store-uri", f"sqlite:///{tmp_path / 'served.db'}",
               "--default-artifact-root", str(tmp_path / "a"), "--workers", "1"]  # fmt: skip
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with started(
        lambda port: [python, "-m", "mlflow", "server", "--port", str(port), *options],
        "/health", timeout_s=180.0, env=clean, cwd=tmp_path,
    ) as url:  # fmt: skip
        run = kept("a", "b")
        mlflow_runs.export(run, url, MlflowOptions())
        check_mlflow(run, url)
        assert "2 were there already" in mlflow_runs.export(run, url, MlflowOptions()).sent


# Weights & Biases


def records_of(file: Path) -> Iterator[Any]:
    """The records of an offline run: blocks of LevelDB's log format that hold messages of the library."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = file.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        if kind == 0:
            break
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library reads the environment once in a process, unless it is torn down."""
    wandb = pytest.importorskip("wandb", reason="pip install 'joule-harness-exports[wandb]'")
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    yield
    wandb.teardown()


@pytest.mark.usefixtures("offline")
def test_an_offline_run_holds_the_numbers_of_its_point(kept: Kept, tmp_path: Path) -> None:
    run = kept("a", ram=GONE)
    done = wandb_runs.export(run, "demo", WandbOptions(folder=str(tmp_path)))
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    records = list(records_of(file))
    (head,) = (each.run for each in records if each.WhichOneof("record_type") == "run")
    assert (head.project, head.display_name, head.run_group) == ("demo", "a", run.name)
    assert head.run_id == wandb_runs.identity(run, run.points[0]) == file.stem.removeprefix("run-")
    config = {each.key or each.nested_key[0]: json.loads(each.value_json) for each in head.config.update}
    summary: dict[str, Any] = {}
    for each in records:
        if each.WhichOneof("record_type") == "summary":
            summary |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in each.summary.update}
    made = cells(run, run.points[0])
    assert {name: summary[name] for name in made.numbers} == made.numbers
    assert "trial_median/energy_j" not in summary
    assert GONE in config["missing.trial_median/energy_j"]
    assert config["method.trial_median/energy_j.n0.gpu.GPU-1"] == "counter"
    assert any(GONE in line for line in done.left_out)


@pytest.mark.usefixtures("offline")
def test_a_target_that_is_no_project_is_refused(kept: Kept, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="PROJECT or ENTITY/PROJECT"):
        wandb_runs.export(kept(), "a/b/c", WandbOptions(folder=str(tmp_path)))
    with pytest.raises(UsageError, match="no such folder"):
        wandb_runs.export(kept(), "demo", WandbOptions(folder=str(tmp_path / "none")))


@pytest.mark.usefixtures("offline")
def test_a_service_that_does_not_let_in_is_said(
    kept: Kept, receiver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.status = 401
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", receiver.url)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with pytest.raises(MeasurementError, match="demo: not sent: work: "):
        wandb_runs.export(kept(), "demo", WandbOptions(folder=str(tmp_path)))
