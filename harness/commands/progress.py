"""What a run shows while it lasts: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from harness.errors import printable

PLAIN_EVERY_S: Final = 10.0
"""How often a long phase says that it goes on, where there is no terminal."""

_LONG: Final = frozenset({"fetch", "prepare", "cool-down", "costing"})


class Progress:
    """Receives the events of a run and shows them on standard error.

    Args:
        console: that shows them.
        resume: the command that goes on with the run.
    """

    def __init__(self, console: Console | None = None, *, resume: str = "") -> None:
        self._resume = resume
        self._console = console or Console(stderr=True)
        self._live = self._console.is_terminal
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._trials: TaskID | None = None
        self._phase: TaskID | None = None
        self._last_phase = ""
        self._last_print = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Shows one event of a run or one message of a worker."""
        kind = event.get("type")
        if kind == "trial":
            self._trial(event)
        elif kind == "progress":
            self._progress(str(event.get("phase", "")), str(event.get("text") or ""), event.get("done"))
        elif kind == "waiting":
            waited = f"; waited {float(event.get('waited_s') or 0):.0f} s" if event.get("waited_s") else ""
            self._note("waiting", f"device {event['device']} is held by {event['holder']}{waited}", ())
        elif kind == "finished" and event.get("reason"):
            self._note("failed" if not event["ok"] else "not valid", str(event["reason"]), event.get("log_tail") or ())
        elif kind == "interrupted":
            self._note("interrupted", f"what is missing is run by: {self._resume}", ())
        elif kind == "note":
            self._note("note", str(event["text"]), ())

    def _trial(self, event: Mapping[str, Any]) -> None:
        number, of, label = int(event["number"]), int(event["of"]), str(event["label"])
        self._last_phase = ""
        if not self._live:
            print(printable(f"trial {number + 1} of {of}: {label}"), file=sys.stderr, flush=True)  # noqa: T201
            return
        if self._trials is None:
            self._trials = self._bars.add_task("trials", total=of, detail="")
            self._phase = self._bars.add_task("", total=None, detail="")
        self._bars.update(self._trials, completed=number, detail=escape(printable(f"{number + 1}/{of} {label}")))

    def _progress(self, phase: str, text: str, done: object) -> None:
        if self._live and self._phase is not None:
            share = float(done) if isinstance(done, int | float) else None
            self._bars.update(
                self._phase,
                description=phase,
                detail=escape(printable(text)),
                total=None if share is None else 1.0,
                completed=share or 0.0,
            )
            return
        now = time.monotonic()
        if phase in _LONG and (phase != self._last_phase or now - self._last_print > PLAIN_EVERY_S):
            self._last_phase, self._last_print = phase, now
            print(printable(f"  {phase} {text}".rstrip()), file=sys.stderr, flush=True)  # noqa: T201

    def _note(self, word: str, text: str, log_tail: object) -> None:
        self._print(f"{word}: {text}")
        for line in log_tail if isinstance(log_tail, list | tuple) else ():
            self._print(f"  | {line}")

    def _print(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
