"""Plugin specs are inert: what a plugin module imports to yield them, seen in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Final

HEAVY_MODULES: Final = (
    "torch",
    "numpy",
    "pynvml",
    "transformers",
    "codecarbon",
    "zeus",
    "pandas",
    "pyarrow",
    "scipy",
    "ray",
    "lightning",
    "mlflow",
    "opentelemetry",
    "pytorch_lightning",
    "wandb",
)
"""What no plugin may import to yield its specs."""

_SPECS: Final = """
import importlib, json, sys
sys.path[:0] = json.loads(sys.argv[2])
import harness.hookspecs
before = set(sys.modules)
plugin = importlib.import_module(sys.argv[1])
kinds = ("workloads", "backends", "meters", "executors", "scorers", "commands", "exports")
names = []
for kind in kinds:
    hook = getattr(plugin, "harness_" + kind, None)
    for spec in hook() if hook else ():
        assert spec.name and spec.summary, f"a plugin spec of {kind} lacks a name or a summary"
        names.append(f"{kind}:{spec.name}")
print(json.dumps({"names": names, "new": sorted(set(sys.modules) - before)}))
"""


def check_offers(module: str, *, timeout_s: float = 60.0) -> list[str]:
    """Imports a plugin module in a fresh process and lists its specs as `kind:name`; fails where that imports much.

    Args:
        module: dotted name, as the entry point gives it.
        timeout_s: limit of the process.
    """
    path = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, "-c", _SPECS, module, json.dumps(path)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, f"the hooks of {module} failed:\n{done.stderr}"
    found = json.loads(done.stdout.splitlines()[-1])
    heavy = sorted({name.partition(".")[0] for name in found["new"]} & set(HEAVY_MODULES))
    assert not heavy, f"{module} imports {', '.join(heavy)} to yield its specs; import it in the factory instead"
    names: list[str] = found["names"]
    assert len(names) == len(set(names)), f"{module} yields a name twice: {names}"
    return names
