"""A side of a gate: paths in a suite are those of its own tree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from harness.gating.sides import Side
from harness.planning.point import Choice, Point

POINT = Point(id="a" * 12, suite="s", label="l", workload="command", backend=Choice("host"))


def planned(monkeypatch, side: Side, file: str) -> str:
    content = {"points": [replace(POINT, suite_file=file).to_json()], "skipped": []}
    monkeypatch.setattr(Side, "harness", lambda _self, *_arguments: json.dumps(content))
    return side.plan([Path(file)]).points[0].suite_file


def test_a_suite_of_the_repository_lies_in_the_worktree_of_each_side(monkeypatch):
    side = Side("base", "python", Path("/tree"), "abc", Path("/repository"))
    assert planned(monkeypatch, side, "/repository/bench/s.yaml") == "/tree/bench/s.yaml"
    assert planned(monkeypatch, side, "/elsewhere/s.yaml") == "/elsewhere/s.yaml"


def test_two_environments_share_the_suites_folder(monkeypatch):
    side = Side("base", "python", Path("/here"), "/env/python")
    assert planned(monkeypatch, side, "/here/s.yaml") == "/here/s.yaml"
