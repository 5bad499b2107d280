"""The process of one trial on its node: asks what the machine has, locks it, runs the worker, says how it ended.

Started by `Keeper` as `python -m harness_executor_ray.node FOLDER`. FOLDER holds `order.json` and `trial/`, which the
worker writes to. Messages are JSON lines on standard output. When standard input closes, worker and FOLDER are gone.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from platformdirs import user_cache_path

from harness import Job, LocalExecutor, Outcome
from harness.executor import FACTS, JOB, ask_probe

_PROBE_S: Final = 150.0
_WAITING_EVERY_S: Final = 10.0
"""How often it is said again that a device is held by another process."""


class News:
    """Writes JSON lines to what was standard output; whatever else is printed goes to the log."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self._waiting: tuple[object, float] = (None, 0.0)

    def tell(self, message: Mapping[str, object]) -> None:
        """Hands on a message of the worker or of the locks."""
        if message.get("type") == "waiting":
            now = time.monotonic()
            if message == self._waiting[0] and now - self._waiting[1] < _WAITING_EVERY_S:
                return
            self._waiting = (message, now)
        self._write({"message": message})

    def end(self, outcome: Outcome) -> None:
        """Says how the trial ended: the last line."""
        ended = {
            "ok": outcome.ok,
            "reason": outcome.reason,
            "log_tail": list(outcome.log_tail),
            "skipped": outcome.skipped,
        }
        self._write({"end": ended})

    def _write(self, news: Mapping[str, object]) -> None:
        with self._lock:
            self._stream.write(json.dumps(news, default=str) + "\n")


def end_with_parent(folder: Path, executor: LocalExecutor) -> None:
    """Ends the worker, the folder and this process group when standard input closes."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        executor.close()
        shutil.rmtree(folder, ignore_errors=True)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="harness-parent-watch", daemon=True).start()


def run(order: Mapping[str, Any], trial: Path, executor: LocalExecutor, news: News) -> Outcome:
    """Runs the trial to its end, where the machine has what it needs."""
    devices: tuple[str, ...] = ()
    file = trial / JOB
    if file.exists():
        content = json.loads(file.read_text(encoding="utf-8"))
        content["cache"] = str(user_cache_path("joule-harness", ensure_exists=True))
        file.write_text(json.dumps(content), encoding="utf-8")
        answer = ask_probe({"point": content["point"]}, limit_s=_PROBE_S)
        if "unavailable" in answer:
            return Outcome(
                ok=False,
                reason=f"{answer['unavailable']} (on node {platform.node()})",
                skipped=not answer.get("late", False),
            )
        devices = tuple(device["uuid"] for device in answer["devices"])
    job = Job(
        trial_id=order["trial_id"],
        folder=trial,
        devices=devices,
        timeout_s=order["timeout_s"],
        silence_s=order["silence_s"],
        environment={**order["environment"], FACTS: json.dumps(order["facts"])},
        measured=order["measured"],
    )
    return executor.run(job, news.tell)


def main(folder: Path) -> None:
    """Runs the trial of a folder, says how it ended, and waits to be let go."""
    news = News()
    order = json.loads((folder / "order.json").read_text(encoding="utf-8"))
    executor = LocalExecutor(working=folder)
    end_with_parent(folder, executor)
    news.end(run(order, folder / "trial", executor, news))
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
