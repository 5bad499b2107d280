"""MLflow: a run for each point, under one experiment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

from harness import Amount, Exported, LoadedPoint, LoadedRun, MeasurementError, UsageError
from harness_exports.cells import cells, facts, left_out, settings, span_ms
from harness_exports.needed import library, without_secret
from harness_exports.options import MlflowOptions

_IDENTITY: Final = ("harness.run", "harness.point_id")
_SETTINGS: Final = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Of the library, unless the user chose others: by default it waits minutes for a server that is away."""
_METRICS, _TEXTS = 1000, 100
"""Most of each that MLflow takes in one request."""
_LONGEST: Final = {"params": 6000, "tags": 5000}


def export(run: LoadedRun, target: str, options: MlflowOptions) -> Exported:
    """Metrics are medians with `.low` and `.high`, and `trial/<reading>` with the trial as its step.

    A point is found again by the tags `harness.run` and `harness.point_id`. One that is there whole is left as it is;
    one whose sending broke off is completed; one with other numbers is refused. Credentials are those of
    `MLFLOW_TRACKING_*`.

    Raises:
        UsageError: the server holds a point of this run with other numbers.
        MeasurementError: the server did not answer, or refused; says what was not sent.
    """
    uri = without_secret(target, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN")
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    mlflow = library("mlflow", "mlflow")
    errors = (library("mlflow.exceptions", "mlflow").MlflowException, OSError)
    done: list[str] = []
    with _said(run, uri, errors, done):
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, options.experiment)
        known = {point.id: _known(client, experiment, run, point) for point in run.points}
        for point in run.points:  # before anything is sent
            _check(known[point.id], run, point, uri)
        there = 0
        for point in run.points:
            found = known[point.id]
            if found is not None and found.info.status == "FINISHED":
                there += 1
            else:
                _send(mlflow, client, experiment, run, point, found)
            done.append(point.label)
    new = len(run.points) - there
    sent = f"{new} run{'' if new == 1 else 's'} to {uri}, experiment {options.experiment}"
    return Exported(
        sent=sent + (f"; {there} {'was' if there == 1 else 'were'} there already" if there else ""),
        left_out=left_out(run),
    )


@contextmanager
def _said(run: LoadedRun, uri: str, errors: tuple[type[BaseException], ...], done: list[str]) -> Iterator[None]:
    """What the library raises as one line that says what was not sent."""
    try:
        yield
    except errors as error:
        rest = [point.label for point in run.points if point.label not in done]
        first = str(error).partition("\n")[0]
        raise MeasurementError(
            f"not sent: {', '.join(rest)}: {type(error).__name__}: {first}", where=uri, hint="run it again: what was "
            "sent is not sent twice",
        ) from error  # fmt: skip


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise UsageError(f"the experiment {name!r} is deleted", hint="restore it, or --set experiment=NAME")
    return str(found.experiment_id)


def _known(client: Any, experiment: str, run: LoadedRun, point: LoadedPoint) -> Any:
    """The MLflow run of a point, if there is one."""
    wanted = dict(zip(_IDENTITY, (run.name, point.id), strict=True))
    asked = " and ".join(f"tags.`{name}` = '{_quoted(text)}'" for name, text in wanted.items())
    found = client.search_runs([experiment], filter_string=asked, max_results=2)
    if len(found) > 1:
        raise UsageError(f"{len(found)} runs of MLflow are point {point.label!r} of {run.name}", hint="delete one")
    return found[0] if found else None


def _quoted(text: str) -> str:
    if "'" in text:
        raise UsageError(f"MLflow cannot be asked for {text!r}", accepted="a name without an apostrophe")
    return text


def _check(found: Any, run: LoadedRun, point: LoadedPoint, uri: str) -> None:
    wanted = facts(run, point)["harness.digest"]
    there = None if found is None else found.data.tags.get("harness.digest")
    if there is not None and there != wanted:
        raise UsageError(
            f"run {found.info.run_id} is point {point.label!r} of {run.name} with other numbers",
            where=uri,
            hint="delete it there, or --set experiment=NAME",
        )


def _send(mlflow: Any, client: Any, experiment: str, run: LoadedRun, point: LoadedPoint, found: Any) -> None:
    """Sends a point; its run is FINISHED only when all of it is there."""
    begun_ms, ended_ms = span_ms(point)
    tags = {name: text[: _LONGEST["tags"]] for name, text in facts(run, point).items()}
    if found is None:
        name = f"{run.name}: {point.label}"
        found = client.create_run(experiment, start_time=begun_ms, run_name=name[:250], tags=tags)
    made = cells(run, point)
    entities = mlflow.entities
    metrics = [entities.Metric(name, value, ended_ms, 0) for name, value in made.numbers.items()]
    for trial in point.trials:
        if trial.valid or not point.report.valid:
            metrics += [
                entities.Metric(
                    f"trial/{name.replace(':', '.').replace('/', '.')}", value.value, ended_ms, trial.number
                )
                for name, value in trial.readings.items()
                if isinstance(value, Amount)
            ]
    missing = {f"missing.{name}": reason for name, reason in made.missing.items()}
    texts = {"params": settings(point), "tags": {**made.said, **missing}}
    run_id = found.info.run_id
    for part in _batches(metrics, _METRICS):
        client.log_batch(run_id, metrics=part)
    for part in _batches(_texts(entities.Param, texts, "params"), _TEXTS):
        client.log_batch(run_id, params=part)
    for part in _batches(_texts(entities.RunTag, texts, "tags"), _TEXTS):
        client.log_batch(run_id, tags=part)
    client.set_terminated(run_id, status="FINISHED", end_time=ended_ms)


def _texts(kind: Any, texts: Mapping[str, Mapping[str, str]], what: str) -> list[Any]:
    return [kind(name[:250], text[: _LONGEST[what]]) for name, text in texts[what].items()]


def _batches(listed: list[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(listed)
    while part := list(islice(rest, size)):
        yield part
