"""`python -m harness.costing RUN_FOLDER`: finishes the trials of a run.

The name is a protocol: a gate starts it in the environment of the revision that it judges. With `--questions` it works
out what the suite asks of the finished records.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.costing.coster import main

if __name__ == "__main__":
    asked = argparse.ArgumentParser()
    asked.add_argument("run", type=Path)
    asked.add_argument("--again", action="store_true")
    asked.add_argument("--part", default="0/1")
    asked.add_argument("--questions", action="store_true")
    said = asked.parse_args()
    if said.questions:
        from harness.costing.questions import answer  # no other call needs it

        sys.exit(answer(said.run))
    at, _, of = said.part.partition("/")
    sys.exit(main(said.run, again=said.again, part=int(at), parts=int(of)))
