"""The contract of backends and executors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.backend import BackendSpec
from harness.errors import MeasurementError
from harness.executor import Executor, Job, Outcome
from harness.options import Options
from harness.quantity import Unavailable
from harness.testing.checks import Checks, NotTriedError

_SUITE: Final = """
suite: contract
backend: {name: host}
meters: []
trials: 1
windows: {count: 1, min_seconds: 0.05}
cases:
  - workload: spin
    options: {iterations: 1000}
"""


def check_backend(spec: BackendSpec, options: Options, *, checks: Checks | None = None) -> None:
    """Holds a backend to its contract: probe and `open` agree, and everything may be done twice.

    Args:
        spec: the plugin spec.
        options: validated options.
        checks: collects the outcomes; without it, the first check that fails raises AssertionError.
    """
    held = checks or Checks(strict=True)
    probed = spec.probe(options)
    absent = ""
    with held.that("the probe lists devices, or says why there are none"):
        if isinstance(probed, Unavailable):
            absent = probed.reason.strip()
            assert absent, "the probe is Unavailable without a reason"
        else:
            assert list(probed), "the probe returned no device; what is not there is Unavailable"
    backend = spec.factory(options)
    for _ in range(2):
        with held.that("open() takes the probed devices, each with an identity of its own; it may be opened again"):
            _refuse(absent)
            devices = list(backend.open())
            uuids = [device.uuid for device in devices]
            assert all(uuids), "a device has no uuid"
            assert len(set(uuids)) == len(uuids), f"two devices share an identity: {uuids}"
            probed_uuids = [] if isinstance(probed, Unavailable) else [device.uuid for device in probed]
            assert uuids == probed_uuids, f"the probe found {probed_uuids}, open() took {uuids}"
        with held.that("it synchronises, seeds and describes itself in JSON values"):
            _refuse(absent)
            backend.synchronize()
            backend.seed(0)
            json.dumps(dict(backend.fingerprint()), allow_nan=False)
        with held.that("its load can be switched, or it says why it has none"):
            _refuse(absent)
            load = backend.load()
            if isinstance(load, Unavailable):
                raise NotTriedError(load.reason)
            with load as running:
                running.busy()
                running.idle()
                assert running.switch_s >= 0, f"switch_s is {running.switch_s}"
        with held.that("close() may be called twice"):
            backend.close()
            backend.close()


def _refuse(reason: str) -> None:
    if reason:
        raise NotTriedError(reason)


def check_executor(make: Callable[[], Executor], folder: Path, *, checks: Checks | None = None) -> None:
    """Holds an executor to its contract: a real trial is measured, and one that cannot run is an Outcome.

    Args:
        make: makes an executor; called twice.
        folder: for the trials' files; empty.
        checks: collects the outcomes; without it, the first check that fails raises AssertionError.
    """
    held = checks or Checks(strict=True)
    with held.that("a worker that fails is an Outcome with its reason, not an exception"):
        empty = folder / "no-job"
        empty.mkdir(parents=True)
        executor = make()
        job = Job(trial_id="no-job", folder=empty, devices=(), timeout_s=60.0, silence_s=60.0)
        try:
            outcome = executor.run(job, lambda _message: None)
        finally:
            executor.close()
        assert isinstance(outcome, Outcome), f"run() returned {outcome!r}"
        assert not outcome.ok, "a trial that wrote no measurement was reported as ok"
        assert outcome.reason.strip(), "a trial failed without a reason"
    executor = make()
    with held.that("it runs a trial that is measured"):
        try:
            _measure(executor, folder / "store")
        except MeasurementError as error:  # begin() found that there is no cluster here
            if held.strict:
                raise
            raise NotTriedError(str(error)) from None
    with held.that("close() may be called twice"):
        executor.close()
        executor.close()


def _measure(executor: Executor, store: Path) -> None:
    """One trial of `spin` through the steps of `harness run`."""
    from harness.discovery.registry import load_plugins
    from harness.planning.planner import expand
    from harness.planning.suite import loads
    from harness.running.run import Run
    from harness.running.run_folder import create

    registry = load_plugins()
    plan = expand([loads(_SUITE)], registry)
    folder = create(store, plan, ["contract"], ["harness", "plugins", "--check"], 0)
    run = Run(folder, plan.points, 0, registry=registry, executor=executor, watcher=lambda _message: None)
    tally = run.execute()
    assert tally.measured == 1, "; ".join(tally.failed) or "the trial was not measured"
