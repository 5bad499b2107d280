"""What a run shows while it lasts: live bars on a terminal, plain lines elsewhere, a line a minute at least."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from harness.errors import printable
from harness.reporting.wording import clean
from harness.running.expected_time import minutes

PLAIN_EVERY_S: Final = 10.0
"""How often a long phase says that it goes on, where there is no terminal."""
STATE_EVERY_S: Final = 60.0
"""How often a log is told the state of the run, also where nothing else is said."""

_LONG: Final = frozenset({"fetch", "prepare", "cool-down", "costing"})


class Progress:
    """Receives the events of a run and shows them on standard error.

    Args:
        console: where to; standard error without one.
        expected_s: how long the run was expected to take; None where that is not known.
        quiet: whether failures alone are shown.
        resume: the command that goes on with the run.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        expected_s: float | None = None,
        quiet: bool = False,
        resume: str = "",
    ) -> None:
        self._resume = resume
        self._console = console or Console(stderr=True)
        self._live = self._console.is_terminal and not quiet
        self._quiet = quiet
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
        self._doing = ""
        self._last_phase = ""
        self._last_print = time.monotonic()
        self._begun = time.monotonic()
        self._expected_s = expected_s
        self._of = 0
        self._done = 0
        self._failed = 0
        self._told: set[str] = set()
        self._over = threading.Event()
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        self._bars.start()
        if not (self._live or self._quiet):
            threading.Thread(target=self._tick, name="harness-progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._bars.stop()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Shows one event of a run or one message of a worker."""
        with self._lock:
            self._tell(event)

    def _tell(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if kind == "trial":
            self._trial(event)
        elif kind == "progress":
            self._progress(str(event.get("phase", "")), str(event.get("text") or ""), event.get("done"))
        elif kind == "waiting":
            waited = f"; waited {float(event.get('waited_s') or 0):.0f} s" if event.get("waited_s") else ""
            self._note(f"waiting: device {event['device']} is held by {event['holder']}{waited}")
        elif kind == "finished":
            self._finished(event)
        elif kind == "interrupted":
            self._note(f"interrupted: what is missing is run by: {self._resume}", always=True)
        elif kind == "note":
            self._note(f"note: {event['text']}")

    def untold(self, texts: Iterable[str]) -> Iterator[str]:
        """Of texts that end with a reason, those whose reason has not been shown."""
        return (text for text in texts if not any(text.endswith(reason) for reason in self._told))

    @property
    def state(self) -> str:
        """How many trials ended and failed, and how much time is left."""
        failed = f", {self._failed} failed" if self._failed else ""
        left_s = self._left_s()
        left = "" if left_s is None else f", about {minutes(left_s)} left"
        return f"{self._done} of {self._of} done{failed}{left}"

    def _left_s(self) -> float | None:
        """By the trials that ended; by what was expected while none has. More trials may follow than are known now."""
        spent_s = time.monotonic() - self._begun
        if self._done:
            return spent_s / self._done * max(0, self._of - self._done)
        return None if self._expected_s is None else max(0.0, self._expected_s - spent_s)

    def _trial(self, event: Mapping[str, Any]) -> None:
        number, label = int(event["number"]), str(event["label"])
        self._of = int(event["of"])
        # Trials that an earlier call measured are not told of; those side by side are, before the others end.
        self._doing, self._last_phase = label, ""
        if not self._live:
            self._print(f"trial {number + 1} of {self._of}: {label} ({self.state})")
            return
        if self._trials is None:
            self._trials = self._bars.add_task("trials", total=self._of, detail="")
            self._phase = self._bars.add_task("", total=None, detail="")
        self._show()

    def _finished(self, event: Mapping[str, Any]) -> None:
        self._done += 1
        self._failed += not event["ok"]
        reason = str(event.get("reason") or "")
        if reason:
            label = str(event.get("label") or self._doing)
            word = "skipped" if event.get("skipped") else "not valid" if event["ok"] else "failed"
            if reason in self._told:
                self._note(f"{word}: {label}: as before", always=True)
            else:
                self._told.add(reason)
                self._note(f"{word}: {label}: {reason}" if label else f"{word}: {reason}", always=True)
                self._log(event)
        self._show()

    def _log(self, event: Mapping[str, Any]) -> None:
        for line in event.get("log_tail") or ():
            self._line(f"  | {line}")
        if event.get("log"):
            self._line(f"  the worker's log: {event['log']}")

    def _show(self) -> None:
        if self._live and self._trials is not None:
            detail = escape(f"{self.state}: {self._doing}")
            self._bars.update(self._trials, total=self._of, completed=self._done, detail=detail)

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
            self._show()
            return
        again = time.monotonic() - self._last_print > PLAIN_EVERY_S
        if phase in _LONG and (phase != self._last_phase or again):
            self._last_phase = phase
            self._print(f"  {phase} {text}".rstrip())

    def _tick(self) -> None:
        while not self._over.wait(STATE_EVERY_S / 4):
            with self._lock:
                if time.monotonic() - self._last_print >= STATE_EVERY_S:
                    self._print(f"  {self.state}; now: {self._doing or 'nothing yet'} {self._last_phase}".rstrip())

    def _note(self, text: str, *, always: bool = False) -> None:
        if always or not self._quiet:
            self._line(text)

    def _print(self, text: str) -> None:
        if not self._quiet:
            self._line(text)

    def _line(self, text: str) -> None:
        self._last_print = time.monotonic()
        self._console.print(clean(text), markup=False, highlight=False, soft_wrap=True)
