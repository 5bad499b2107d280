"""A suite's questions on declared profiles whose order turns at a known load, grid intensity and lifetime."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.impact import Factor
from harness.quantity import Amount
from harness.records.record import Record
from harness.records.summary import PointReport, RunReport, load
from harness.reporting.crossings.answer import Answer, answers, turn_of
from harness.reporting.crossings.sentence import sentence

pytest.importorskip("harness_meter_fuel")

IDLE = {"T4": 20.0, "H100": 60.0}
BUSY = {"T4": 200.0, "H100": 200.0}
"""The slower device idles cheaply and is busy for long, so that the order turns with load."""
KG = {"T4": 10.0, "H100": 400.0}
YEAR_S = 365 * 24 * 3600.0
SUITE = """\
suite: turning
backend: {name: simulated, uuid: turning}
meters:
  - declared_power: {watts: {T4: {busy: 200, idle: 20}, H100: {busy: 200, idle: 60}}}
  - fuel: {grid: 500, lifetime: 5y, embodied: {T4: {kg: 10, source: a test}, H100: {kg: 400, source: a test}}}
trials: 3
windows: {count: 1, min_seconds: 0, min_iterations: 1}
warm_up: {max_iterations: 0}
idle_seconds: 0
cases:
  - workload: greenllm-simulated
    name: pair
    options: {model: tinyllama-1.1b, sizes: chat, requests: 600, most_requests: 600, batching: none, arrivals: constant}
    matrix:
      new:
        - {kind: T4, watts: {serving: 200, idle: 20}}
        - {kind: H100, watts: {serving: 200, idle: 60}}
      qps: [0.02, 0.04, 0.08, 0.16, 0.32]
    functional_units: {token: {sum: output_tokens}}
questions:
  - {ask: "From which load on?", metric: energy_j, per: token, along: {option: qps}}
  - ask: From which intensity on?
    per: token
    at: {qps: 0.32}
    along: {option: fuel.grid, values: [1, 2000], written: "{} g/kWh"}
  - ask: From which lifetime on?
    per: token
    at: {qps: 0.32}
    along: {option: fuel.lifetime, values: [0.5, 1000], written: "{}y", unit: years}
  - ask: And at a load without a turn?
    per: token
    at: {qps: 0.02}
    along: {option: fuel.grid, values: [1, 2000], written: "{} g/kWh"}
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    folder = tmp_path_factory.mktemp("turning")
    suite = folder / "turning.yaml"
    suite.write_text(SUITE, encoding="utf-8")
    done = CliRunner().invoke(app, ["run", str(suite), "--store", str(folder / "store")])
    assert done.exit_code == 0, done.output
    (run,) = (child for child in (folder / "store").iterdir() if (child / "run.json").exists())
    assert "the order turns" in done.output
    return load(run)


def records(report: RunReport, kind: str, qps: float) -> list[Record]:
    found = [
        record
        for record in report.records
        if record.measurement.point["matrix"]["new"]["kind"] == kind
        and record.measurement.point["matrix"]["qps"] == qps
    ]
    assert len(found) == 3
    return found


def value(record: Record, name: str) -> float:
    found = record.totals[name]
    assert isinstance(found, Amount)
    return found.value


def names(answer: Answer) -> tuple[str, str]:
    one, other = (each.name for each in answer.found.candidates)
    return one, other


def test_the_load_at_which_two_declared_devices_turn_is_named_within_its_interval(report: RunReport) -> None:
    """A request costs idle / qps and, for the time that it is served alone, what busy power lies above idle."""
    answer = answers(report)[0]
    served_s = {
        kind: sum(float(r.columns["latency_s"]["mean"].value) for r in records(report, kind, 0.02)) / 3  # type: ignore[union-attr]
        for kind in IDLE
    }
    above_j = {kind: (BUSY[kind] - IDLE[kind]) * served_s[kind] for kind in IDLE}
    known = (IDLE["H100"] - IDLE["T4"]) / (above_j["T4"] - above_j["H100"])
    (turn,) = (turn for _, _, turn in answer.found.turns)
    assert turn.low <= known <= turn.high
    assert turn.at == pytest.approx(known, rel=0.2)
    text = sentence(answer)
    assert f"from T4 to H100 between qps {turn.low:g} and {turn.high:g}" in text
    assert names(answer) == ("T4", "H100")


def test_the_intensity_at_which_the_heavier_device_pays_is_exact(report: RunReport) -> None:
    """Its embodied grams over the joules that it saves, per token of each trial."""
    answer = answers(report)[1]
    tokens = {kind: [r.units["token"].count.achieved or 0.0 for r in records(report, kind, 0.32)] for kind in IDLE}
    per_token = {
        kind: [
            (value(r, "energy_j") / count, value(r, "carbon_embodied_g") / count)
            for r, count in zip(records(report, kind, 0.32), tokens[kind], strict=True)
        ]
        for kind in IDLE
    }
    old, new = (sorted(per_token[kind])[1] for kind in ("T4", "H100"))  # the median trial
    known = (new[1] - old[1]) / (old[0] - new[0]) * 3.6e6
    turn = turn_of(answer, *names(answer), (1, 2000))
    assert turn is not None
    assert turn.low <= known <= turn.high
    assert turn.at == pytest.approx(known, rel=0.02)
    assert turn.method == "bisection"
    assert turn.high - turn.low < 0.3 * known


def test_the_lifetime_at_which_the_heavier_device_pays_is_exact(report: RunReport) -> None:
    answer = answers(report)[2]
    old, new = (sorted(records(report, kind, 0.32), key=lambda r: value(r, "energy_j"))[1] for kind in ("T4", "H100"))
    saved_g = (value(old, "energy_j") - value(new, "energy_j")) / 3.6e6 * 500
    seconds = value(new, "duration_s")
    known = (KG["H100"] - KG["T4"]) * 1000 * seconds / saved_g / YEAR_S
    turn = turn_of(answer, *names(answer), (0.5, 1000))
    assert turn is not None
    assert turn.low <= known <= turn.high
    assert turn.at == pytest.approx(known, rel=0.05)
    assert "years" in sentence(answer)


def test_no_turn_is_named_where_there_is_none(report: RunReport) -> None:
    answer = answers(report)[3]
    assert answer.found.turns == ()
    assert "does not turn" in sentence(answer)


def test_what_a_record_has_made_up_is_called_so_where_nothing_is_costed_again(report: RunReport) -> None:
    made_up = Factor(name="pue", value=1.1, unit="1", source="invented by a test")

    def with_it(point: PointReport) -> PointReport:
        if point.records[0].measurement.point["matrix"]["new"]["kind"] == "T4":
            return point
        records = tuple(replace(record, factors=(*record.factors, made_up)) for record in point.records)
        return replace(point, trials=replace(point.trials, records=records))

    usual = answers(report)[0]
    assert "INVENTED" not in sentence(usual)
    assert "(simulated)" in sentence(usual)
    answer = answers(replace(report, points=tuple(with_it(point) for point in report.points)))[0]
    assert "(INVENTED PUE of H100; simulated)" in sentence(answer)


def test_what_follows_the_axis_is_told_at_its_ends_and_the_rest_once(report: RunReport) -> None:
    for candidate in answers(report)[1].found.candidates:
        told = {name: number for name, number, _ in candidate.rests_on}
        assert told["grid intensity"] == "1 g/kWh at first, 2000 g/kWh at last"
        assert [number for name, number in told.items() if "at first" in number] == [told["grid intensity"]]


def test_a_declared_speed_changes_the_service_times_and_not_the_watts() -> None:
    from harness_disaggregated_serving.simulator.options import DeviceOptions, SimulatedOptions
    from harness_disaggregated_serving.simulator.setup import SimulatedDevice
    from harness_disaggregated_serving.simulator.workload import device_of

    usual, doubled = (
        device_of(SimulatedOptions(new=DeviceOptions(kind="L40", memory_gb_per_s=rate)), "new")
        for rate in (None, 1728.0)
    )
    assert isinstance(usual, SimulatedDevice)
    assert isinstance(doubled, SimulatedDevice)
    assert doubled.phase_w == usual.phase_w
    slow, fast = usual.target_costs().decode, doubled.target_costs().decode
    assert slow.fixed_s - 0.001 == pytest.approx(2 * (fast.fixed_s - 0.001))


def test_quantized_weights_are_read_faster_and_the_cache_stays() -> None:
    from harness_disaggregated_serving.traffic import MODELS

    plain = MODELS["qwen2.5-7b"]
    assert plain.kv_bytes_per_token == 57_344  # 2 x 28 layers x 4 heads x 128 x 2 bytes
    assert plain.quantized("w8a8").weight_bytes == plain.weight_bytes / 2
    assert plain.quantized("awq").weight_bytes == pytest.approx(plain.weight_bytes * 4.25 / 16)
    assert plain.quantized("awq").kv_bytes_per_token == plain.kv_bytes_per_token
    assert plain.quantized("none") == plain
