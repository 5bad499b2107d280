"""The Dockerfile installs distributions that there are, and its page's suite is one."""

from __future__ import annotations

import re
from pathlib import Path

from harness.discovery.registry import load_plugins
from harness.planning.planner import expand
from harness.planning.suite import loads

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/containers.md").read_text(encoding="utf-8")


def test_it_installs_distributions_of_this_repository() -> None:
    (named,) = re.findall(r'^ARG PLUGINS="(.*)"$', DOCKERFILE, re.MULTILINE)
    assert named.split()
    assert all((ROOT / "plugins" / name / "pyproject.toml").is_file() for name in named.split())
    assert "-c constraints.txt" in DOCKERFILE


def test_the_base_and_the_build_of_torch_are_arguments_that_the_page_uses() -> None:
    assert {"BASE", "TORCH_INDEX", "PLUGINS"} == set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    assert set(re.findall(r"--build-arg (\w+)=", PAGE)) == {"BASE", "TORCH_INDEX"}


def test_the_suite_of_the_page_plans() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (point,) = expand([loads(text)], load_plugins()).points
    assert [(choice.name, choice.options["root"]) for choice in point.meters] == [("rapl", "/powercap/intel-rapl")]
