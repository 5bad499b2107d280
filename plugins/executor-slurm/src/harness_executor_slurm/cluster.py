"""Slurm's commands: the queue, what the cluster offers, and the end of jobs. No accounting database is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

COMMANDS: Final = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")
DEFAULT_ARRAY: Final = 1000
_TIMEOUT_S: Final = 60.0
_FILTERS: Final = ("SQUEUE_", "SINFO_", "SCANCEL_")
"""Variables of these names are a user's own defaults, and would hide jobs or nodes."""
_COUNT: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class SlurmError(Exception):
    """A command of Slurm failed; the message is its own."""


def ask(*command: str) -> str:
    """What a command of Slurm says; raises SlurmError. Ctrl-C in the terminal does not reach it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_FILTERS)}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            start_new_session=True,
            check=False,
        )
    except FileNotFoundError:
        raise SlurmError(f"there is no {command[0]} on this machine") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]}: {error}") from None
    if done.returncode:
        raise SlurmError(plain(done.stderr) or f"{command[0]} ended with exit code {done.returncode}")
    return done.stdout


def plain(stderr: str) -> str:
    """What a command of Slurm complains of, without its own name."""
    lines = [re.sub(r"^\w+: (error|fatal): ", "", line).strip() for line in stderr.splitlines()]
    return "; ".join(line.removeprefix("Batch job submission failed: ") for line in lines if line)


def missing() -> str:
    """The first command of Slurm that this machine lacks, or an empty string."""
    return next((name for name in COMMANDS if shutil.which(name) is None), "")


@dataclass(frozen=True, slots=True)
class Row:
    """A job or an element of an array in the queue.

    Attributes:
        state: such as `PENDING`.
        reason: why it waits, or how it ended.
        node: where it runs or ran.
    """

    state: str
    reason: str
    node: str


def queue(name: str, *, ended: bool) -> dict[str, Row]:
    """This user's jobs of a name, by `12` or `12_3`.

    Args:
        name: of the jobs.
        ended: also those that ended a short while ago, as long as Slurm keeps them (`MinJobAge`).
    """
    states = ["--states=all"] if ended else []
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", f"--name={name}", "--format=%i|%T|%r|%N"]
    return parse_queue(ask(*command, *states))


def parse_queue(text: str) -> dict[str, Row]:
    """Rows of `squeue --noheader --array --format=%i|%T|%r|%N`."""
    rows = {}
    for line in text.split("\n"):
        job, *rest = line.strip().split("|")
        if len(rest) == 3:
            rows[job] = Row(*rest)
    return rows


def cancel(*what: str) -> None:
    """Ends jobs; those that are gone are no error. Raises SlurmError."""
    ask("scancel", "--quiet", *what)


def cancel_named(name: str, *, waiting_only: bool = False) -> None:
    """Ends this user's jobs of a name."""
    cancel(f"--user={os.getuid()}", f"--name={name}", *(["--state=PENDING"] if waiting_only else []))


def described(job: str) -> dict[str, str]:
    """What `scontrol` knows of a job that ended a short while ago; empty for nothing."""
    try:
        text = ask("scontrol", "show", "job", "--oneliner", job)
    except SlurmError:
        return {}
    return dict(re.findall(r"(\S+?)=(\S*)", text))


def longest_array() -> int:
    """How many elements an array may have here."""
    try:
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    except SlurmError:
        return DEFAULT_ARRAY
    return max(1, min(DEFAULT_ARRAY, int(found.group(1)))) if found else DEFAULT_ARRAY


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes of a partition that are alike.

    Attributes:
        partition: its name.
        count: of nodes.
        cpus: processors of each.
        memory_mb: memory of each, in MiB.
        gres: generic resources of each: `gpu` and `gpu:a100` -> how many.
        features: of each.
    """

    partition: str
    count: int
    cpus: int
    memory_mb: int
    gres: dict[str, int]
    features: frozenset[str]

    def __str__(self) -> str:
        typed = {name for name in self.gres if ":" in name}
        whole = [name for name in self.gres if ":" not in name and not any(t.startswith(f"{name}:") for t in typed)]
        parts = [f"{self.count} of {self.cpus} processors and {self.memory_mb} MiB"]
        parts += [f"{name} x {self.gres[name]}" for name in sorted([*typed, *whole])]
        if self.features:
            parts.append(f"features {', '.join(sorted(self.features))}")
        return f"{self.partition}: {', '.join(parts)}"


def offer() -> list[Nodes]:
    """What the cluster has; raises SlurmError."""
    return parse_offer(ask("sinfo", "--noheader", "--exact", "--format=%R|%D|%c|%m|%G|%f"))


def parse_offer(text: str) -> list[Nodes]:
    """Rows of `sinfo --noheader --exact --format=%R|%D|%c|%m|%G|%f`."""
    found = []
    for line in text.split("\n"):
        parts = line.strip().split("|")
        if len(parts) == 6:
            name, count, cpus, memory, gres, features = parts
            words = frozenset() if features == "(null)" else frozenset(features.split(","))
            found.append(Nodes(name, _number(count), _number(cpus), _number(memory), parse_gres(gres), words))
    return found


def parse_gres(text: str) -> dict[str, int]:
    """`gpu:a100:2(S:0-1),nvme:1` -> `{"gpu": 2, "gpu:a100": 2, "nvme": 1}`."""
    found: dict[str, int] = {}
    for each in re.sub(r"\([^)]*\)", "", text).split(","):
        name, *rest = each.split(":")
        amount = re.fullmatch(r"(\d+)([KMGT]?)", rest[-1]) if rest else None
        if not name:
            continue
        count = int(amount.group(1)) * _COUNT[amount.group(2)] if amount else 1
        kind = rest[0] if rest and (amount is None or len(rest) > 1) else ""
        for key in {name, f"{name}:{kind}" if kind else name}:
            found[key] = found.get(key, 0) + count
    return found


def _number(text: str) -> int:
    digits = re.match(r"\d+", text)
    return int(digits.group()) if digits else 0


def shown(nodes: Iterable[Nodes], most: int = 6) -> str:
    """What the cluster offers, for a message."""
    lines = sorted({str(each) for each in nodes})
    more = f"; and {len(lines) - most} kinds more" if len(lines) > most else ""
    return "; ".join(lines[:most]) + more if lines else "no node at all"
