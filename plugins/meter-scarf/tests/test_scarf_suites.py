"""The suites of the case studies, and a suite whose order of sites turns at a known gamma and month."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from harness_meter_scarf.meter import ScarfMeter
from harness_meter_scarf.options import ScarfOptions
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UsageError
from harness.records.summary import RunReport, load
from harness.reporting.comparison import Runs
from harness.reporting.crossings.answer import Answer, answers
from harness.reporting.crossings.sentence import sentence
from harness.reporting.page import html

SUITES = Path(__file__).parents[3] / "suites"

EQUAL_GAMMA = 1.5 ** (1 / 11) - 1
"""Of 0.2 now and 0.45 in 2030 against 0.3 for ever: 0.2 + 0.45 w = 0.3 + 0.3 w at a weight of 2/3 after 11 years."""
TURNING = """\
suite: turning
backend: {name: host}
trials: 1
windows: {count: 1, min_seconds: 0.1}
warm_up: {max_seconds: 0.1}
idle_seconds: 0
cases:
  - workload: spin
    options: {seconds: 0.05}
    functional_units: {second: {sum: latency_s}}
    meters: [declared_power: {watts: {busy: 1000}}]
questions:
  - ask: At which discount rate does the order turn?
    metric: awi_adjusted_l
    per: second
    along: {option: scarf.gamma, name: gamma, values: [0, 0.01, 0.1]}
    candidates:
      rising:
        scarf.mode: long
        scarf.milestones: [2019, 2030]
        scarf.site: &site {id: anywhere, pue: {value: 1.0, source: a test}, ewif: {value: 2.0, source: a test},
          wue_onsite: {value: 0.5, source: a test}}
        scarf.stress: {annual: {value: 0.2, low: 0.19, high: 0.21}, future: {bau: {2030: 0.45}}, source: a test}
      steady:
        scarf.mode: long
        scarf.milestones: [2019, 2030]
        scarf.site: *site
        scarf.stress: {annual: 0.3, future: {bau: {2030: 0.3}}, source: a test}
  - ask: In which month does the order turn?
    metric: awi_adjusted_l
    per: second
    along: {option: scarf.month, name: month, values: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}
    figure: heat
    candidates:
      seasonal:
        scarf.site: *site
        scarf.stress:
          {monthly: [0.1, 0.1, 0.1, 0.2, 0.9, 0.9, 0.9, 0.9, 0.9, 0.2, 0.1, 0.1], source: invented, simulated: true}
      even:
        scarf.site: *site
        scarf.stress: {monthly: [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], source: a test}
"""


def ran(suite: Path, store: Path, **environment: str) -> RunReport:
    done = CliRunner().invoke(app, ["run", str(suite), "--store", str(store)], env=environment)
    assert done.exit_code == 0, done.output
    (run,) = (child for child in store.iterdir() if (child / "run.json").exists())
    return load(run)


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    folder = tmp_path_factory.mktemp("scarf-turning")
    (folder / "turning.yaml").write_text(TURNING, encoding="utf-8")
    return ran(folder / "turning.yaml", folder / "store")


def test_the_gamma_at_which_two_sites_turn_comes_from_the_formula(turning: RunReport) -> None:
    answer = answers(turning)[0]
    ((one, other, turn),) = answer.found.turns
    assert (one, other, turn.first, turn.method) == ("rising", "steady", 1, "formula")
    assert turn.at == pytest.approx(EQUAL_GAMMA, rel=1e-9)
    # 0.19 and 0.21 in place of 0.2: weights of 0.11 / 0.15 and 0.09 / 0.15.
    ends = sorted((0.15 / (0.3 - now)) ** (1 / 11) - 1 for now in (0.19, 0.21))
    assert (turn.low, turn.high) == pytest.approx(ends, rel=1e-5)
    assert "from steady to rising at gamma 0.0375 (0.0286 to 0.0475)" in sentence(answer)


@pytest.mark.parametrize(("mode", "known"), [("long", True), ("short", False)])
def test_the_formula_speaks_of_sites_that_gamma_weighs(mode: str, known: bool) -> None:
    rising, steady = yaml.safe_load(TURNING)["questions"][0]["candidates"].values()
    meters = [
        ScarfMeter(ScarfOptions.model_validate({key.removeprefix("scarf."): value for key, value in each.items()}))
        for each in (rising, {**steady, "scarf.mode": mode, "scarf.milestones": [2019, 2030]})
    ]
    found = meters[0].equal_at("gamma", "awi_adjusted_l", ({"water_l": 1.0}, {"water_l": 1.0}), meters[1], (0.0, 0.1))
    assert found == (pytest.approx((EQUAL_GAMMA,)) if known else None)


def test_a_month_has_no_place_between_two_others(turning: RunReport) -> None:
    answer = answers(turning)[1]
    assert [(turn.low, turn.high) for _, _, turn in answer.found.turns] == [(4, 5), (9, 10)]
    text = sentence(answer)
    assert "seasonal up to month 4, even from month 5 to 9, seasonal from month 10 on" in text
    assert "INVENTED water stress (WSF) of seasonal" in text


def test_what_is_invented_is_called_so_on_the_page(turning: RunReport) -> None:
    page = html(Runs([turning], ["A"]))
    assert "INVENTED: water stress (WSF) of seasonal. No real place or device has these values" in page
    assert page.count('class="heat') >= 24


def test_a_run_costed_again_is_asked_again(turning: RunReport, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        ["recost", str(turning.folder), "--set", "scarf.site=aws-ohio", "--store", str(tmp_path)],
    )
    assert done.exit_code == 0, done.output
    (run,) = (child for child in tmp_path.iterdir() if (child / "run.json").exists())
    assert sentence(answers(load(run))[0]) == sentence(answers(turning)[0])


def test_a_candidate_that_the_meter_refuses_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    suite = tmp_path / "wrong.yaml"
    suite.write_text(TURNING.replace("future: {bau: {2030: 0.3}}", "future: {bau: {2030: -0.3}}"), encoding="utf-8")
    done = CliRunner().invoke(app, ["plan", str(suite)])
    assert isinstance(done.exception, UsageError)
    assert "scarf.stress.future.bau.2030: -0.3" in str(done.exception)


def case(name: str, store: Path, **environment: str) -> tuple[RunReport, list[Answer]]:
    """A run of a shipped suite, measured for no longer than it takes."""
    report = ran(SUITES / name, store, **environment)
    return report, answers(report)


@pytest.mark.slow
def test_datacenters_change_places_with_gamma(tmp_path: Path) -> None:
    _, (own, google) = case("scarf-datacenters.yaml", tmp_path)
    turns = {(one, other): turn for one, other, turn in own.found.turns}
    turn = turns["Nevada (invented)", "Virginia (invented)"]
    assert turn.first == -1, "Nevada is better where the future counts"
    assert 0 < turn.low < (turn.at or 0) < turn.high < 0.1
    assert turn.method == "formula"
    for answer in (own, google):
        assert all(each.invented for each in answer.found.candidates)
        assert "INVENTED" in sentence(answer)


@pytest.mark.slow
def test_fabs_of_high_stress_dominate(tmp_path: Path) -> None:
    _, (answer,) = case("scarf-fabs.yaml", tmp_path)
    last = {each.name: each.cells[-1].middle or 0.0 for each in answer.found.candidates}
    assert max(last, key=last.__getitem__).startswith("fab in the desert")
    assert min(last, key=last.__getitem__).startswith("fab on the coast")
    assert answer.found.turns, "two of the others change places"


@pytest.mark.slow
def test_own_sites_replace_the_invented_ones_by_one_setting(tmp_path: Path) -> None:
    invented = yaml.safe_load((SUITES / "candidates" / "scarf-fabs-invented.yaml").read_text(encoding="utf-8"))
    mine = json.loads(
        json.dumps(invented).replace("invented", "our own meter").replace('"simulated": true', '"simulated": false')
    )
    own = {f"site {number}": options for number, options in enumerate(mine.values())}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    _, (answer,) = case("scarf-fabs.yaml", tmp_path / "store", SCARF_FABS=str(tmp_path / "mine.yaml"))
    assert {each.name for each in answer.found.candidates} == set(own)
    assert "INVENTED" not in sentence(answer)
