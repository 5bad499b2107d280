"""What the distributions ask for: pinned in constraints.txt, with a lower bound, never torchvision."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = [
    ROOT / "pyproject.toml",
    *sorted(ROOT.glob("plugins/*/pyproject.toml")),
    ROOT / "tests/example_plugin/pyproject.toml",
]
# CUDA-linked, or asking for what is: with it beside a CPU build of torch, transformers and torchmetrics cannot be
# imported.
FORBIDDEN = {"torchvision", "timm", "segmentation-models-pytorch"}
# A foreign package of the same module name, superseded by nvidia-ml-py.
FORBIDDEN_HERE = FORBIDDEN | {"pynvml", "harness"}
REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*([^;]*)")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project(file: Path) -> dict[str, object]:
    section = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    assert isinstance(section, dict)
    return section


def requirements(file: Path) -> dict[str, str]:
    """Version bounds by requirement, of the distribution, its extras and its build."""
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    texts = [*data["project"].get("dependencies", []), *data["build-system"]["requires"]]
    for extra in data["project"].get("optional-dependencies", {}).values():
        texts += extra
    matches = [match for text in texts if (match := REQUIREMENT.match(text))]
    assert len(matches) == len(texts)
    return {normal(match.group(1)): match.group(2).strip() for match in matches}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "constraints.txt holds `name==version` lines only"
    return {normal(name): version.strip() for name, version in pairs}


def ours() -> set[str]:
    return {normal(str(project(file)["name"])) for file in PROJECTS}


def label(file: Path) -> str:
    return str(file.parent.relative_to(ROOT))


@pytest.mark.parametrize("file", PROJECTS, ids=label)
def test_no_forbidden_requirement(file: Path) -> None:
    assert set(requirements(file)) & FORBIDDEN_HERE == set()


def test_no_forbidden_pin() -> None:
    assert set(pins()) & FORBIDDEN == set()


@pytest.mark.parametrize("file", PROJECTS, ids=label)
def test_every_third_party_requirement_is_pinned(file: Path) -> None:
    assert set(requirements(file)) - ours() - set(pins()) == set()


@pytest.mark.parametrize("file", PROJECTS, ids=label)
def test_requirements_have_a_lower_bound(file: Path) -> None:
    mine = {name: bound for name, bound in requirements(file).items() if not name.startswith(("types-", "joule-"))}
    assert {name: bound for name, bound in mine.items() if not re.fullmatch(r">=[0-9.]+(,<[0-9.]+)?", bound)} == {}


@pytest.mark.parametrize("file", PROJECTS, ids=label)
def test_pins_meet_the_lower_bounds(file: Path) -> None:
    for name, bound in requirements(file).items():
        if name in pins() and bound.startswith(">="):
            assert numbers(pins()[name]) >= numbers(bound.partition(",")[0]), name


def numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def test_the_tools_of_a_bare_run_need_no_extra() -> None:
    core = {normal(text) for text in ("pluggy", "PyYAML", "pydantic", "typer", "rich", "psutil", "filelock")}
    dependencies = project(ROOT / "pyproject.toml")["dependencies"]
    assert isinstance(dependencies, list)
    names = {normal(match.group(1)) for text in dependencies if (match := REQUIREMENT.match(text))}
    assert core <= names
    assert names <= core | {"platformdirs"}, "a new requirement of the core is a decision: CONTRIBUTING lists it"


@pytest.mark.parametrize("file", PROJECTS, ids=label)
def test_distributions_agree(file: Path) -> None:
    section = project(file)
    assert section["requires-python"] == ">=3.11"
    assert section["license"] == "Apache-2.0"
    if "plugins" in file.parts:
        assert section["name"] == f"joule-harness-{file.parent.name}"
