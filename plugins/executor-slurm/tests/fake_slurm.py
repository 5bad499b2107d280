"""Stands in for Slurm's commands: `fake_slurm.py sbatch ...` runs the elements of an array one after another.

The folder named by FAKE_SLURM holds `calls`, one line a command, and `12_3.json` for each job; a file `sbatch.error`
there is what sbatch says instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

STATE = Path(os.environ["FAKE_SLURM"])
OFFER = "main|1|2|1000|gpu:a100:2|fast\nmain|1|2|1000|(null)|slow\none|1|2|1000|gpu:a100:2|fast\n"


def jobs() -> dict[str, dict[str, object]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(STATE.glob("*.json"))}


def put(job: str, **changes: object) -> None:
    path = STATE / f"{job}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    new = path.with_suffix(".new")
    new.write_text(json.dumps({**known, **changes}))
    new.replace(path)


def sbatch(script: str) -> int:
    refusal = STATE / "sbatch.error"
    if refusal.exists():
        sys.stderr.write(refusal.read_text())
        return 1
    text = Path(script).read_text()
    flags = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.MULTILINE))
    number = str(1 + sum(1 for _ in STATE.glob("*.sh")))
    (STATE / f"{number}.sh").write_text(text)
    last = re.match(r"0-(\d+)", flags.get("array", ""))
    ids = [f"{number}_{index}" for index in range(int(last.group(1)) + 1)] if last else [number]
    for job in ids:
        put(job, name=flags["job-name"], state="PENDING", reason="Priority", node="")
    command = [sys.executable, __file__, "work", number, flags["output"], *ids]
    subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    sys.stdout.write(f"Submitted batch job {number}\n")
    return 0


def work(number: str, output: str, *ids: str) -> int:
    for job in ids:
        if jobs()[job]["state"] != "PENDING":
            continue
        base, _, index = job.partition("_")
        environment = {**os.environ, "SLURM_JOB_ID": job, "SLURMD_NODENAME": "n1", "SLURM_JOB_PARTITION": "main"}
        environment |= {"SLURM_ARRAY_JOB_ID": base, "SLURM_ARRAY_TASK_ID": index}
        log = output.replace("%A", base).replace("%a", index).replace("%j", job).replace("%%", "%")
        with Path(log).open("ab") as out:
            process = subprocess.Popen(
                ["bash", str(STATE / f"{number}.sh")], env=environment, stdout=out, stderr=out, start_new_session=True
            )
        put(job, state="RUNNING", reason="None", node="n1", pid=process.pid)
        code = process.wait()
        if jobs()[job]["state"] == "RUNNING":
            put(job, state="FAILED" if code else "COMPLETED", reason="NonZeroExitCode" if code else "None", code=code)
    return 0


def squeue(*arguments: str) -> int:
    names = [each.partition("=")[2] for each in arguments if each.startswith("--name=")]
    every = "--states=all" in arguments
    for job, each in jobs().items():
        if each["name"] in names and (every or each["state"] in {"PENDING", "RUNNING"}):
            sys.stdout.write(f"{job}|{each['state']}|{each['reason']}|{each['node']}\n")
    return 0


def scancel(*arguments: str) -> int:
    names = [each.partition("=")[2] for each in arguments if each.startswith("--name=")]
    waiting_only = "--state=PENDING" in arguments
    for job, each in jobs().items():
        wanted = job in arguments or each["name"] in names
        if wanted and (each["state"] == "PENDING" or (each["state"] == "RUNNING" and not waiting_only)):
            put(job, state="CANCELLED", reason="None")
            if "pid" in each:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(int(str(each["pid"])), signal.SIGTERM)
    return 0


def scontrol(*arguments: str) -> int:
    if "config" in arguments:
        sys.stdout.write("MaxArraySize            = 2\n")
        return 0
    each = jobs().get(arguments[-1])
    if each is None:
        sys.stderr.write("slurm_load_jobs error: Invalid job id specified\n")
        return 1
    sys.stdout.write(f"JobId=1 JobState={each['state']} ExitCode={each.get('code', 0)}:0 NodeList={each['node']}\n")
    return 0


def sinfo(*_arguments: str) -> int:
    sys.stdout.write(OFFER)
    return 0


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    with (STATE / "calls").open("a") as calls:
        calls.write(f"{time.monotonic():.3f} {name} {' '.join(rest)}\n")
    commands = {
        "sbatch": sbatch,
        "squeue": squeue,
        "scancel": scancel,
        "scontrol": scontrol,
        "sinfo": sinfo,
        "work": work,
    }
    sys.exit(commands[name](*rest))
