"""Do forked trials draw from the same distribution as fresh ones? A study of A against A, by hand:

    python benchmarks/start_variance.py [SERVERS [TRIALS]]

In each of SERVERS rounds one fork server forks TRIALS trials, each followed by a trial in a fresh process, so that both
see the same machine. A trial repeats two works: `spin`, a loop of integers, and `text`, look-ups of words in a dict,
whose layout depends on the hash seed. It reports the median of CPU time and of duration over its repetitions.

What is asked: the variance between rounds beyond that within rounds, as a share of all variance (intraclass
correlation, with the p-value of a permutation of trials over rounds). Fresh trials have none but the machine's drift,
which the differences of neighbours, forked less fresh, do not have: what they have between rounds is what a server drew
once for all of its trials, and no number of trials averages it out. The mean of the differences, with two standard
errors over rounds, is how far forked trials lie from fresh ones.

On a shared virtual machine of two processors with a quota, 14 rounds of 10: of CPU time the differences had no variance
between rounds (-2 % of all, p 0.6, and -4 %, p 0.8) and a mean of 0.0 % +- 0.8 %. Of duration they had 36 % and 15 %
(p below 0.01), and forked trials were 33 % faster: a fresh process spends its share of the quota on imports right
before it measures. So durations are not alike, and nothing that measures a device is forked unless asked for.
"""

from __future__ import annotations

import json
import math
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from harness import worker
from harness.builtin.spin import spin
from harness.measuring import fork_server

REPETITIONS: Final = 25
PERMUTATIONS: Final = 2000
RESULT: Final = "result.json"
Values = dict[str, float]
Kept = dict[str, list[list[Values]]]


def text() -> int:
    """Look-ups of 4,000 words, ten times over."""
    words = [f"word {number}" for number in range(4000)]
    table = dict.fromkeys(words, 1)
    return sum(table[word] for _ in range(10) for word in words)


WORKS: Final[Mapping[str, Callable[[], object]]] = {"spin": lambda: spin(40_000), "text": text}


def trial(folder: Path) -> int:
    """Measures both works, writes the medians."""
    found: Values = {}
    for name, work in WORKS.items():
        work()
        cpu_s, wall_s = [], []
        for _ in range(REPETITIONS):
            cpu, wall = time.process_time(), time.perf_counter()
            work()
            cpu_s.append(time.process_time() - cpu)
            wall_s.append(time.perf_counter() - wall)
        found[f"{name} CPU"] = statistics.median(cpu_s)
        found[f"{name} duration"] = statistics.median(wall_s)
    (folder / RESULT).write_text(json.dumps(found), encoding="utf-8")
    return 0


def serve() -> None:
    """Forks a trial for each request, as a worker that forks does."""
    assert worker.main  # everything that a worker imports is imported
    fork_server.serve(trial)


def result(folder: Path) -> Values:
    """What a trial wrote; the file goes."""
    path = folder / RESULT
    found: Values = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return found


def forked(control: socket.socket, folder: Path) -> Values:
    """One trial of a server."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open(os.devnull, "r+b") as null:  # noqa: PTH123 - a device, not a path
        request = json.dumps({"folder": str(folder), "set": {}, "unset": []}).encode()
        socket.send_fds(control, [request], [null.fileno(), null.fileno(), null.fileno(), theirs.fileno()])
        theirs.close()
        assert "pid" in json.loads(ours.recv(4096))
        assert json.loads(ours.recv(4096))["code"] == 0
    return result(folder)


def one_round(folder: Path, trials: int) -> tuple[list[Values], list[Values]]:
    """Trials of one server, and as many fresh ones in between."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdin=theirs.fileno()) as server:
        theirs.close()
        of_server, fresh = [], []
        for _ in range(trials):
            of_server.append(forked(ours, folder))
            subprocess.run([sys.executable, __file__, "--trial", str(folder)], check=True)
            fresh.append(result(folder))
        ours.close()
        server.wait()
    return of_server, fresh


def share_between(rounds: Sequence[Sequence[float]]) -> float:
    """Intraclass correlation of equal groups: the share of the variance that lies between them; may be below 0."""
    size = len(rounds[0])
    within = statistics.fmean(statistics.variance(each) for each in rounds)
    between = size * statistics.variance([statistics.fmean(each) for each in rounds])
    return (between - within) / (between + (size - 1) * within)


def p_value(rounds: Sequence[Sequence[float]], seed: int = 0) -> float:
    """How often trials that are dealt to rounds at random have as much between rounds."""
    generator = random.Random(seed)
    size, seen = len(rounds[0]), share_between(rounds)
    pool = [value for each in rounds for value in each]
    as_much = 0
    for _ in range(PERMUTATIONS):
        generator.shuffle(pool)
        as_much += share_between([pool[at : at + size] for at in range(0, len(pool), size)]) >= seen
    return (as_much + 1) / (PERMUTATIONS + 1)


def main(servers: int, trials: int) -> None:
    """Measures and prints the table."""
    kept: Kept = {"fork": [], "spawn": []}
    with TemporaryDirectory() as folder:
        for _ in range(servers):
            for start, found in zip(kept, one_round(Path(folder), trials), strict=True):
                kept[start].append(found)
    print(f"{servers} rounds of {trials} forked and {trials} fresh trials, {REPETITIONS} repetitions each")
    print(f"{'':16}{'start':8}{'median':>10}{'CV':>8}{'between rounds':>16}{'p':>8}")
    for name in kept["fork"][0][0]:
        for start, rounds in kept.items():
            values = [[each[name] for each in one] for one in rounds]
            flat = [value for one in values for value in one]
            variation = statistics.stdev(flat) / statistics.fmean(flat)
            print(
                f"{name:16}{start:8}{statistics.median(flat) * 1e3:8.3f}ms{variation:8.2%}"
                f"{share_between(values):16.1%}{p_value(values):8.3f}"
            )
        pairs = zip(kept["fork"], kept["spawn"], strict=True)
        differences = [[math.log(a[name] / b[name]) for a, b in zip(*both, strict=True)] for both in pairs]
        means = [statistics.fmean(each) for each in differences]
        error = 2 * statistics.stdev(means) / math.sqrt(len(means))
        print(
            f"{name:16}{'fork - spawn':14}{statistics.fmean(means):+.2%} +- {error:.2%}"
            f"{share_between(differences):12.1%}{p_value(differences):8.3f}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve()
    elif sys.argv[1:2] == ["--trial"]:
        sys.exit(trial(Path(sys.argv[2])))
    else:
        main(*(int(word) for word in (*sys.argv[1:], "12", "12")[:2]))
