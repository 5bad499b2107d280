"""Weights & Biases: a run for each point, in the group of the harness's run."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from harness import Exported, LoadedPoint, LoadedRun, MeasurementError, UsageError
from harness_exports.cells import cells, facts, left_out, settings
from harness_exports.needed import library
from harness_exports.options import WandbOptions

_TARGET = re.compile(r"(?:([A-Za-z0-9_-]+)/)?([A-Za-z0-9_. -]{1,128})")


def export(run: LoadedRun, target: str, options: WandbOptions) -> Exported:
    """The numbers of a point are its summary; units, methods, notes and what is missing stand in its config.

    The id of a run follows from run and point: exported again it is the same run with the same summary. `WANDB_MODE`,
    `WANDB_API_KEY` and `WANDB_BASE_URL` are the library's own.

    Raises:
        UsageError: the target is no project, or the folder does not exist.
        MeasurementError: the service did not answer, or refused; says what was not sent.
    """
    match = _TARGET.fullmatch(target)
    if match is None:
        raise UsageError(f"{target!r} is not a project", accepted="PROJECT or ENTITY/PROJECT")
    if not Path(options.folder).is_dir():
        raise UsageError("there is no such folder", where=options.folder, accepted="a folder that exists")
    wandb = library("wandb", "wandb")
    entity, project = match.groups()
    done: list[str] = []
    for point in run.points:
        try:
            done.append(_send(wandb, entity, project, run, point, options.folder))
        except (wandb.errors.Error, OSError, TimeoutError) as error:
            rest = ", ".join(each.label for each in run.points[len(done) :])
            raise MeasurementError(
                f"not sent: {rest}: {type(error).__name__}: {error}", where=target, hint="run it again: a point that "
                "was sent keeps its id",
            ) from error  # fmt: skip
    wandb.teardown()  # waits for the library's own process, whose last writes a finished run does not wait for
    return Exported(
        sent=f"{len(done)} runs to {target}: {', '.join(done)}",
        left_out=left_out(run),
    )


def identity(run: LoadedRun, point: LoadedPoint) -> str:
    """The id of a point's run, the same each time."""
    return hashlib.sha256(f"{run.name}/{point.id}".encode()).hexdigest()[:16]


def _send(wandb: Any, entity: str | None, project: str, run: LoadedRun, point: LoadedPoint, folder: str) -> str:
    made = cells(run, point)
    config = {**settings(point), **facts(run, point), **made.said}
    config |= {f"missing.{name}": reason for name, reason in made.missing.items()}
    kept = wandb.init(
        entity=entity,
        project=project,
        id=identity(run, point),
        name=point.label[:128],
        group=run.name,
        job_type="harness",
        config=config,
        dir=folder,
        resume="allow",
        save_code=False,
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True,
            x_disable_machine_info=True, x_save_requirements=False, init_timeout=30,
        ),
    )  # fmt: skip
    try:
        kept.summary.update(made.numbers)
    finally:
        kept.finish()
    return str(kept.dir if kept.offline else kept.url)
