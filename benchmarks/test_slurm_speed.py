"""What following a thousand Slurm jobs costs the driver: one answer of the queue, journals on this disk."""

from __future__ import annotations

import pytest
from harness_executor_slurm import cluster, journal
from harness_executor_slurm.cluster import parse_queue
from harness_executor_slurm.watch import Element, Watch

from harness import Job

COUNT = 1000


@pytest.fixture(params=["PENDING", "RUNNING"])
def followed(request, tmp_path, monkeypatch):
    """A watch over jobs of one state; `look` is called by hand."""
    elements = []
    for index in range(COUNT):
        folder = tmp_path / f"t{index}"
        folder.mkdir()
        journal.start(folder, "token")
        job = Job(trial_id=f"t{index}", folder=folder, devices=(), timeout_s=1, silence_s=1)
        elements.append(Element(f"7_{index}", job))
    answer = "".join(f"{each.id}|{request.param}|None|n1\n" for each in elements)
    monkeypatch.setattr(cluster, "queue", lambda _name, *, ended: parse_queue(answer))
    watch = Watch(0.0, None)
    watch._thread = watch  # type: ignore[assignment]
    watch.add("run", elements)
    return watch


def test_one_look_at_a_thousand_jobs(benchmark, followed):
    def look():
        followed._asked = -1e9
        followed.look()

    benchmark(look)
