"""What pytest finds: options, the fixture `energy_benchmark`, the collection of suites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from harness import HarnessError

if TYPE_CHECKING:
    from harness_pytest.energy import EnergyBenchmark, Instrument
    from harness_pytest.suite_items import SuiteFile


MEASURED: Final = pytest.StashKey[dict[str, dict[str, Any]]]()
"""What the benchmarks of a session cost, by their names."""


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table of energy, after pytest-benchmark's of times."""
    measured = config.stash.get(MEASURED, {})
    if measured:
        from harness_pytest.summary import lines

        terminalreporter.section("energy by the harness", sep="-")
        for line in lines(measured):
            terminalreporter.write_line(line, yellow=line.startswith("warning: "))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options and ini keys of the plugin."""
    group = parser.getgroup("harness", "energy and suites of the harness")
    group.addoption(
        "--harness-suite", action="append", default=[], metavar="FILE", help="collect the points of a suite"
    )
    group.addoption("--harness-store", default="reports", metavar="FOLDER", help="where suites keep their records")
    group.addoption("--harness-meter", action="append", metavar="METER", help="a meter, as in a suite; may be repeated")
    group.addoption("--harness-backend", metavar="NAME", help="backend whose devices energy_benchmark reads")
    group.addoption("--harness-seconds", type=float, metavar="S", help="length of energy_benchmark's window")
    parser.addini("harness_meters", "meters of energy_benchmark, as in a suite", type="linelist", default=["auto"])
    parser.addini("harness_backend", "backend whose devices energy_benchmark reads", default="host")
    parser.addini("harness_seconds", "length of energy_benchmark's window in seconds", default="1")


def pytest_configure(config: pytest.Config) -> None:
    """Collects the suites; nothing else, unless test files are named beside them."""
    suites = [str(Path(file).absolute()) for file in config.getoption("--harness-suite")]
    if suites:
        named = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
        config.args = [*named, *suites]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> SuiteFile | None:
    """A suite that was asked for."""
    wanted = {Path(file).resolve() for file in parent.config.getoption("--harness-suite")}
    if file_path.resolve() not in wanted:
        return None
    from harness_pytest.suite_items import SuiteFile

    made: SuiteFile = SuiteFile.from_parent(parent, path=file_path)
    return made


@pytest.fixture(scope="session")
def harness_instrument(pytestconfig: pytest.Config) -> Iterator[Instrument]:
    """The meters of `energy_benchmark`, opened once a session."""
    from harness_pytest.energy import open_instrument

    def setting(option: str, ini: str) -> Any:
        given = pytestconfig.getoption(option)
        return pytestconfig.getini(ini) if given is None else given

    try:
        instrument = open_instrument(
            setting("--harness-meter", "harness_meters"),
            backend=setting("--harness-backend", "harness_backend"),
            seconds=float(setting("--harness-seconds", "harness_seconds")),
        )
    except (HarnessError, ValueError) as error:
        pytest.fail(f"energy_benchmark: {error}", pytrace=False)
    pytestconfig.stash[MEASURED] = instrument.measured
    yield instrument
    instrument.session.close()


@pytest.fixture
def energy_benchmark(benchmark: Any, harness_instrument: Instrument) -> EnergyBenchmark:
    """pytest-benchmark's `benchmark`, with energy and carbon a call in `extra_info`."""
    from harness_pytest.energy import EnergyBenchmark

    return EnergyBenchmark(benchmark, harness_instrument)
