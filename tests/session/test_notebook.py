"""A notebook measures, loads and shows, as a kernel runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

MEASURE = """
import harness
with harness.measure('images=10', label='cell', meters=['cpu_time: {watts_per_core: 5}'], store='kept') as m:
    with m.mark('inner'):
        total = sum(range(3_000_000))
m
"""
CELLS = [
    MEASURE,
    "run = harness.load(m.folder.parent)\nrun",
    "print(m.table())",
    "with harness.measure(meters=['rapl: {root: /nowhere}']) as silent:\n    pass\nsilent.energy",
]


@pytest.mark.filterwarnings("ignore")
def test_a_notebook_measures_loads_and_shows(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra `dev`)")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra `dev`)")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (extra `dev`)")
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [cell.outputs for cell in notebook.cells]
    assert "<caption>cell</caption>" in shown[0][-1].data["text/html"]
    assert "energy per images" in shown[1][-1].data["text/html"]
    assert "inner: time" in shown[2][-1].text
    assert "Unavailable(reason='rapl: no RAPL" in shown[3][-1].data["text/plain"]
    assert len(list((tmp_path / "kept").iterdir())) == 1
