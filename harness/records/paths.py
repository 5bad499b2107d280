"""Names of the files and folders of a store. No other module of the harness spells one.

<store>/<run>/run.json                      what was asked, when, by which command
<store>/<run>/plan.json                     the points to be measured: what `--resume` goes by
<store>/<run>/costing.log                   what scoring and costing printed
<store>/<run>/answers.json                  what was worked out for the suite's questions; made from the records, a copy
<store>/<run>/<trial>/job.json              what the trial's worker is to do; lies there from the start
<store>/<run>/<trial>/measurement.json      written once by the worker, never rewritten
<store>/<run>/<trial>/record.json           quality, impacts and results, with the measurement's digest; authoritative
<store>/<run>/<trial>/failure.json          in place of them, why there is none
<store>/<run>/<trial>/items.jsonl           work items, one a line
<store>/<run>/<trial>/outputs.jsonl         what the items produced, for scoring
<store>/<run>/<trial>/energy.jsonl          cumulative joules at 1 Hz or more, with one UTC anchor
<store>/<run>/<trial>/windows.jsonl         of work that can be resumed: each finished window, as soon as it is
<store>/<run>/<trial>/worker.log            what the worker printed
<store>/<run>/<trial>/manifest.json         in a store behind a URL alone: the digests of what the worker wrote
<store>/<gate>/gate.json                    what a gate compared and decided; beside it a run for each side
<store>/baselines/<name>.json               stored baselines
<store>/calibrations/<name>.json            what `harness calibrate` found
<store>/index/<run>~*.parquet               what queries read in place of the records; made from them, a copy
"""

from __future__ import annotations

from typing import Final

from harness import executor
from harness.errors import UsageError

RUN: Final = "run.json"
PLAN: Final = "plan.json"
COSTING_LOG: Final = "costing.log"
ANSWERS: Final = "answers.json"
DRIVER: Final = ".driver"
"""Which process drives the run."""
DRIVER_LOCK: Final = ".driver.lock"
"""Held by the process that drives the run."""

JOB: Final = executor.JOB
MEASUREMENT: Final = executor.MEASUREMENT
RECORD: Final = "record.json"
FAILURE: Final = executor.FAILURE
ITEMS: Final = "items.jsonl"
OUTPUTS: Final = "outputs.jsonl"
ENERGY: Final = "energy.jsonl"
WINDOWS: Final = "windows.jsonl"
LOG: Final = executor.LOG
MANIFEST: Final = "manifest.json"

GATE: Final = "gate.json"
BASELINES: Final = "baselines"
CALIBRATIONS: Final = "calibrations"
INDEX: Final = "index"
RESERVED: Final = frozenset({BASELINES, CALIBRATIONS, INDEX})
"""Folders of a store that are no runs."""

DOCUMENTS: Final = frozenset({RUN, RECORD, MEASUREMENT})
"""The files that say what a run found, without side-cars."""


def checked_name(name: str) -> str:
    """The name of a run or a trial; raises UsageError for one that would lie elsewhere or hide."""
    if not name or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable() or len(name) > 255:
        raise UsageError(
            f"{name!r} is not a valid name of a run or trial", accepted="one name, without '/' and a leading '.'"
        )
    if name in RESERVED:
        raise UsageError(f"{name!r} is a folder of the store, not a run", accepted="another name")
    return name
