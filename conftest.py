"""What every test runs with: one thread a process, and folders of its own for each worker of pytest-xdist."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Gives the tests device locks that no real run waits for, and each of their workers its temporary files."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    # In the background of a shell, or under nohup, signals are ignored, and what a test starts would ignore them too.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    worker = os.environ.pop("PYTEST_XDIST_WORKER", "")
    # The names are short: sockets of tests lie below it, and their paths may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix=f"{worker or 'main'}-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ["HARNESS_LOCKS"] = str(folder / "l")
    if not worker:
        return
    # What a test starts is no worker: pytest-benchmark, for one, would switch itself off in it.
    for variable in ("PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        os.environ.pop(variable, None)
    for variable, name in (("TMPDIR", "t"), ("XDG_CACHE_HOME", "c")):
        (folder / name).mkdir()
        os.environ[variable] = str(folder / name)
    tempfile.tempdir = None


def pytest_collection_finish() -> None:
    """Takes the limit of 0.2 s off Hypothesis's examples: a loaded machine is no fault of what is tested."""
    if "hypothesis" in sys.modules:  # it is imported by the tests that use it, and by nothing else
        from hypothesis import settings

        settings.register_profile("harness", deadline=None)
        settings.load_profile("harness")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what is marked `gpu` where there is no CUDA device; torch is imported for marked tests only."""
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
