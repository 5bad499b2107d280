"""No two points of a suite have one label."""

from __future__ import annotations

import pytest

from harness.discovery.registry import load_plugins
from harness.planning.planner import expand
from harness.planning.suite import loads

HEAD = "suite: s\nbackend: host\nmeters: [{tdp: {watts: 65}}]\ntrials: 1\ncases:\n"


def labels(*cases: str) -> list[str]:
    text = HEAD + "".join(f"  - {case}\n" for case in cases)
    return [point.label for point in expand([loads(text)], load_plugins()).points]


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        (["{workload: spin}"], ["spin"]),
        (
            ["{workload: spin, options: {iterations: 10}}", "{workload: spin, options: {iterations: 20}}"],
            ["spin · iterations=10", "spin · iterations=20"],
        ),
        (
            ["{workload: command, options: {run: [sleep, '1']}}", "{workload: command, options: {run: 'true'}}"],
            ['command · run=["sleep", "1"]', "command · run=true"],
        ),
        (
            ["{workload: spin}", "{workload: spin, meters: [{cpu_time: {watts_per_core: 5}}]}"],
            ["spin · case 1", "spin · case 2"],
        ),
        (
            ["{workload: spin, name: a}", "{workload: spin, name: b, options: {iterations: 20}}"],
            ["a", "b"],
        ),
        (
            ["{workload: spin, matrix: {iterations: [1, 2]}}", "{workload: spin, options: {iterations: 3}}"],
            ["spin · iterations=1", "spin · iterations=2", "spin"],
        ),
    ],
)
def test_points_are_told_apart(cases: list[str], expected: list[str]) -> None:
    assert labels(*cases) == expected
