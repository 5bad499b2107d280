"""The README says what the code does: its suite plans, its lines of Python run, its sizes are those counted here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from harness_semantic_segmentation.workloads.options import TrainingOptions
from harness_semantic_segmentation.workloads.own_data import OwnData

from harness.discovery.registry import load_plugins
from harness.planning.planner import expand
from harness.planning.suite import loads

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(language: str, begin: str = "") -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (wanted,) = (each for each in found if each.startswith(begin))
    return str(wanted)


def test_the_description_of_own_data_is_one() -> None:
    found = TrainingOptions.model_validate(yaml.safe_load(block("yaml", "options:"))["options"])
    assert isinstance(found.data, OwnData)
    assert found.data.stored == {0: 0, 255: 1}


def test_the_example_suite_plans() -> None:
    planned = expand([loads(block("yaml", "suite:"))], load_plugins())
    assert sorted(str(point.options["faithful"]) for point in planned.points) == ["False", "True"]
    assert not planned.skipped


def test_the_example_of_networks_alone_runs() -> None:
    names: dict[str, object] = {}
    exec(compile(block("python"), "README.md", "exec"), names)
    assert tuple(names["classes"].shape) == (1, 96, 160)  # type: ignore[attr-defined]


def test_the_sizes_are_those_counted() -> None:
    import torch
    from harness_semantic_segmentation.networks.catalogue import CATALOGUE, build_model
    from harness_semantic_segmentation.networks.counting import count_macs, parameter_count

    rows = [line.split("|")[1:-1] for line in README.splitlines() if re.match(r"\| `[a-z0-9-]+`.*\d\.\d{3} \|$", line)]
    named: set[str] = set()
    for models, _, parameters, gmacs in rows:
        listed = re.findall(r"`([^`]+)`", models)
        named |= set(listed)
        for name, count, macs in zip(listed, parameters.split(";"), gmacs.split(";"), strict=True):
            with torch.device("meta"):
                assert parameter_count(build_model(name)) == int(count.replace(",", ""))
            assert count_macs(lambda name=name: build_model(name), 512, 1024) / 1e9 == pytest.approx(  # type: ignore[misc]
                float(macs), abs=5e-4
            )
    assert named == set(CATALOGUE)
