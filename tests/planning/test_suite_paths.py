from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.backend import BackendSpec
from harness.discovery.registry import Registry
from harness.errors import UsageError
from harness.hookspecs import hookimpl
from harness.impact import ImpactMeterSpec
from harness.options import Options
from harness.planning.planner import expand
from harness.planning.point import Plan
from harness.planning.probe import loaded
from harness.planning.suite import load
from harness.suite_paths import OptionFault, SuiteFile, SuitePath, SuiteSource, missing
from harness.workload import WorkloadSpec


class Read(Options):
    """Options of a workload that reads files."""

    data: SuitePath = ""
    """A file."""
    model: SuiteSource = "builtin:small"
    """A model."""
    level: int = 1
    """A number."""


def check(options: Read, _folder: Path) -> Iterator[OptionFault]:
    yield from missing("data", options.data)
    if options.model == "builtin:nothing":
        yield OptionFault("model", "there is no such model", "builtin:small")


def no_factory(_options: object) -> Any:
    raise AssertionError("nothing is made while planning")


class Reader:
    """A plugin with one workload, and a backend that is always there."""

    @hookimpl
    def harness_workloads(self) -> Any:
        yield WorkloadSpec(name="read", summary="", factory=no_factory, options=Read, check=check)

    @hookimpl
    def harness_backends(self) -> Any:
        yield BackendSpec(name="here", summary="", factory=no_factory, probe=lambda _: [])


def plan(folder: Path, *options: str) -> Plan:
    registry = Registry()
    assert registry.register(Reader(), "reader")
    suite = folder / "suite.yaml"
    cases = "".join(f"  - {{workload: read, name: case {n}, options: {each}}}\n" for n, each in enumerate(options))
    suite.write_text(f"suite: s\nbackend: here\nmeters: []\ncases:\n{cases}")
    return expand([load(suite)], registry, lambda _: [])


def test_a_path_is_relative_to_the_suite_wherever_the_command_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").write_text("x")
    monkeypatch.chdir("/")
    (point,) = plan(tmp_path, "{data: data}").points
    assert point.options["data"] == str(tmp_path / "data")


def test_a_point_keeps_its_identity_in_another_checkout(tmp_path: Path) -> None:
    ids = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_text("x")
        ids |= {point.id for point in plan(tmp_path / name, "{data: data}").points}
    assert len(ids) == 1


def test_a_name_stays_a_name_and_a_folder_beside_the_suite_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    points = plan(tmp_path, "{model: mine}", "{model: owner/name}", "{model: ./gone}", "{model: /abs}").points
    assert [point.options["model"] for point in points] == [
        str(tmp_path / "mine"), "owner/name", str(tmp_path / "gone"), "/abs",
    ]  # fmt: skip


def test_all_that_is_wrong_with_a_suite_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        plan(tmp_path, "{data: gone}", "{model: builtin:nothing}", "{level: high}", "{levle: 2}")
    told = str(caught.value)
    assert f"there is no file {tmp_path / 'gone'}" in told
    assert "cases[1].options.model: there is no such model" in told
    assert "found 'high'" in told
    assert "unknown key 'levle'" in told
    assert int(caught.value.exit_code) == 2


def test_a_wrong_setting_of_a_suite_hides_no_fault_of_its_cases(tmp_path: Path) -> None:
    registry = Registry()
    assert registry.register(Reader(), "reader")
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "suite: s\nbackend: here\nwarm_up: 0\nmeters: []\ncases:\n  - {workload: read, options: {levle: 2}}\n"
    )
    with pytest.raises(UsageError) as caught:
        loaded([suite], registry)
    told = str(caught.value)
    assert "at warm_up" in told
    assert "unknown key 'levle'" in told


class Table(Options):
    """Options of an impact meter that reads a file."""

    rows: SuiteFile | None = None
    """A file."""


class Pricing(Reader):
    """Also an impact meter with a file."""

    @hookimpl
    def harness_meters(self) -> Any:
        yield ImpactMeterSpec(
            name="price", summary="", factory=no_factory, needs=("energy_j",), yields={"euro": "EUR"}, options=Table
        )


def priced(folder: Path, file: str) -> Plan:
    registry = Registry()
    assert registry.register(Pricing(), "pricing")
    suite = folder / "suite.yaml"
    suite.write_text(
        f"suite: s\nbackend: here\nmeters: [{{price: {{rows: {file}}}}}]\ncases:\n"
        "  - {workload: read, matrix: {level: [1, 2]}}\n  - {workload: read, options: {level: 3}}\n"
    )
    return expand([load(suite)], registry, lambda _: [])


def test_a_meters_file_lies_beside_the_suite_and_leaves_the_identity_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = set()
    monkeypatch.chdir("/")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.csv").write_text("x")
        points = priced(tmp_path / name, "rows.csv").points
        assert {point.meters[-1].options["rows"] for point in points} == {str(tmp_path / name / "rows.csv")}
        ids.add(tuple(point.id for point in points))
    assert len(ids) == 1


def test_a_meters_missing_file_is_found_while_planning_and_told_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        priced(tmp_path, "gone.csv")
    assert str(caught.value).count(f"price.rows: there is no file {tmp_path / 'gone.csv'}") == 1


def test_a_wrong_meter_hides_no_wrong_option(tmp_path: Path) -> None:
    """What all cases share and what each has of its own is told together, and no device is looked for meanwhile."""
    suite = tmp_path / "suite.yaml"
    suite.write_text("suite: s\nbackend: here\nmeters: [nothing]\ncases:\n  - {workload: read, options: {levle: 2}}\n")
    registry = Registry()
    assert registry.register(Reader(), "reader")
    with pytest.raises(UsageError) as caught:
        expand([load(suite)], registry, lambda _: pytest.fail("a suite with mistakes is probed for"))
    assert "there is no meter 'nothing'" in str(caught.value)
    assert "unknown key 'levle'" in str(caught.value)
