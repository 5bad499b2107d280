"""A suite's meters around any code: which are chosen, and what a window of them shows."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

import harness
from harness.builtin import declared_power, tdp
from harness.discovery.registry import Registry, load_plugins
from harness.errors import UsageError
from harness.hookspecs import hookimpl
from harness.impact import ImpactMeterSpec
from harness.meter import Meter, MeterContext, MeterSpec
from harness.quantity import Amount, Method, Unavailable, Undefined
from harness.sample import Scope, Snapshot, now_ns
from harness.session.block import Block
from harness.session.measure import _SHARED
from harness.session.meters import choose, with_place
from harness.session.session import Session


class Burning(Meter):
    """A register of 5 J a reading."""

    def __init__(self) -> None:
        self.joules = 0.0

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable]:
        return {f"{context.node}/a": Scope(method=Method.COUNTER, gain=0.0)}

    def read(self) -> Snapshot:
        self.joules += 5.0
        return Snapshot(now_ns(), {"n0/a": self.joules})

    def close(self) -> None:
        pass


@pytest.fixture
def registry() -> Registry:
    class Plugin:
        @hookimpl
        def harness_meters(self) -> Iterable[MeterSpec | ImpactMeterSpec]:
            yield MeterSpec(name="found", summary="", factory=lambda _options: Burning(), auto=True)
            yield MeterSpec(name="check", summary="", factory=lambda _options: Burning(), cross_check=True)
            yield tdp.METER
            yield declared_power.METER

    made = Registry()
    assert made.register(Plugin(), "p"), made.broken
    return made


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (["auto"], [("found", True)]),
        (["tdp"], [("tdp", False)]),
        (["tdp", "auto"], [("found", True), ("tdp", False)]),
        (["check"], [("found", True), ("check", False)]),
        (["declared_power"], [("found", True), ("declared_power", False)]),
        (["check", "tdp"], [("check", False), ("tdp", False)]),
        ([], []),
    ],
)
def test_impact_meters_and_cross_checks_alone_imply_auto(
    registry: Registry, asked: list[str], chosen: list[tuple[str, bool]]
) -> None:
    options = {"declared_power": {"watts": {"busy": 9}}}
    found = choose([(name, options.get(name, {})) for name in asked], registry)
    assert [(choice.name, choice.auto) for choice in found] == chosen


def test_what_is_wrong_is_named(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"tdp\.wats"):
        choose([("tdp", {"wats": 1})], registry)
    with pytest.raises(UsageError, match="there is no meter 'lamp'"):
        choose([("lamp", {})], registry)
    for length in (0.0, -1.0, float("nan"), 1e6):
        with pytest.raises(UsageError, match="a window cannot last"):
            Session.check_length(length)
    for text in ("[1", "a: 1", "{a: {}, b: {}}", ""):
        with pytest.raises(UsageError, match=r"is not a meter|options of meter a"):
            with_place([text], grid=None, site=None)
    with pytest.raises(UsageError, match="named twice"):
        with_place(["fuel: {grid: 3}"], grid="FRA", site=None)
    assert with_place([], grid="FRA", site="s") == [("auto", {}), ("fuel", {"grid": "FRA"}), ("scarf", {"site": "s"})]


@pytest.fixture
def both(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The installed plugins and the meters of these tests."""
    made = load_plugins()
    for offer in registry.offers("meter").values():
        if offer.spec.name in {"found", "check"}:
            spec = offer.spec
            made.register(type("P", (), {"harness_meters": hookimpl(lambda _self, spec=spec: [spec])})(), spec.name)
    monkeypatch.setattr("harness.session.session.plugins_for", lambda *_: made)
    return made


def test_a_window_counts_the_primary_meter_and_its_calls(both: Registry) -> None:
    done: list[None] = []
    with Session(["found", "check"]) as session:
        found = session.repeat(lambda: done.append(None), seconds=0.01, batch=10)
    energy = found.energy
    assert isinstance(energy, Amount)
    assert energy.value >= 5.0
    assert energy.value % 5.0 == 0.0
    assert found.scopes == ("n0/a",)
    assert "short" in found.flags
    assert found.duration >= 0.01
    assert found.iterations % 10 == 0
    assert 0 < found.iterations < len(done), "the lead-in is no part of the window"
    each = found.per_unit["energy_j"]
    assert isinstance(each, Amount)
    assert each.value == pytest.approx(energy.value / found.iterations)
    assert each.unit == "J/call"


def test_without_a_reading_there_is_a_reason_and_a_time() -> None:
    with Session(["rapl: {root: /nowhere}"]) as session, session.measure() as found:
        pass
    assert isinstance(found.energy, Unavailable)
    assert found.energy.reason.startswith("rapl: ")
    assert isinstance(found.readings["duration_s"], Amount)
    assert "rapl: " in found.table()
    assert "<table>" in found._repr_html_()


def test_blocks_nest_and_run_beside_each_other(both: Registry) -> None:
    with Session(["found"]) as session, session.measure(label="outer") as outer:
        with session.measure(label="inner") as inner:
            pass

        def work() -> None:
            with session.measure(label="thread") as block:
                seen.append(block)

        seen: list[Block] = []
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seen) == 8
    for block in (outer, inner, *seen):
        assert isinstance(block.energy, Amount)
    assert isinstance(outer.energy, Amount)
    assert isinstance(inner.energy, Amount)
    assert outer.energy.value > inner.energy.value
    assert outer.duration > inner.duration


def test_marks_are_read_apart_and_summed_by_name(both: Registry) -> None:
    with Session(["found"]) as session, session.measure() as block:
        for _ in range(3):
            with block.mark("prefill"):
                pass
        with block.mark("decode"):
            pass
    prefill, decode = block.marks["prefill"]["energy_j"], block.marks["decode"]["energy_j"]
    assert isinstance(prefill, Amount)
    assert isinstance(decode, Amount)
    assert isinstance(block.energy, Amount)
    assert prefill.value >= 15.0
    assert prefill.value + decode.value < block.energy.value
    assert "prefill: energy" in block.table()


def test_an_exception_goes_on_and_is_told(both: Registry) -> None:
    with Session(["found"]) as session, pytest.raises(ZeroDivisionError), session.measure("images=3") as block:
        raise ZeroDivisionError("no luck")
    assert isinstance(block.energy, Amount)
    assert block.failed == "ZeroDivisionError: no luck"
    assert isinstance(block.per_unit["energy_j"], Undefined), "what failed did no unit"
    assert "no luck" in block.table()


def test_units(both: Registry) -> None:
    with Session(["found"]) as session:
        with session.measure("images") as block:
            block.count(2)
            block.count(3)
        with session.measure("images=0") as none:
            pass
        with session.measure("images") as uncounted:
            pass
        with session.measure() as without, pytest.raises(UsageError, match="no unit"):
            without.count(1)
    assert isinstance(block.energy, Amount)
    each = block.per_unit["energy_j"]
    assert isinstance(each, Amount)
    assert each.value == pytest.approx(block.energy.value / 5)
    assert isinstance(none.per_unit["energy_j"], Undefined)
    assert isinstance(uncounted.per_unit["energy_j"], Unavailable)
    for wrong in ("", "=3", "a b=3", "images=many", "images=-1", "images=nan"):
        with pytest.raises(UsageError, match=r"is no unit|is no amount"):
            Block(None, unit=wrong)
    for amount in (-1.0, float("inf")):
        with pytest.raises(UsageError, match="is no amount"):
            block.count(amount)


def test_a_block_measures_once_and_while_its_session_is_open(both: Registry) -> None:
    session = Session(["found"])
    block = session.measure(label="x")
    assert isinstance(block.energy, Unavailable)
    assert "not closed" in repr(block)
    with block:
        pass
    with pytest.raises(UsageError, match="measures once"):
        block.open("again")
    session.close()
    session.close()
    with pytest.raises(UsageError, match="session is closed"):
        session.measure().open("late")
    assert isinstance(block.energy, Amount), "what was measured outlives the session"


def test_idle_power_is_taken_off(both: Registry) -> None:
    with Session(["found"], idle=0.05) as session, session.measure() as block:
        pass
    above = block.readings["energy_above_idle_j"]
    assert isinstance(above, Amount)
    assert isinstance(block.energy, Amount)
    assert above.value < block.energy.value
    assert "energy above idle" in block.table()


def test_blocks_are_kept_as_trials_of_a_run(both: Registry, tmp_path: Path) -> None:
    with Session(["found"], store=tmp_path) as session:
        for _ in range(2):
            with session.measure("images=10", label="epoch"):
                pass
        with session.measure(label="other"):
            pass
    assert session.run is not None
    run = harness.load(session.run)
    assert [(point.label, len(point.trials)) for point in run.points] == [("epoch", 2), ("other", 1)]
    trial = run.point("epoch").trials[1]
    assert trial.number == 1
    assert next(iter(trial.items()))["units"] == 10.0
    assert isinstance(trial.units["images"].costs["energy_j"], Amount)
    assert json.loads((run.folder / "run.json").read_text())["status"] == "ok"


def test_measure_and_measured(both: Registry) -> None:
    with harness.measure("images=2", meters=["found"]) as outer, harness.measure(meters=["found"]) as inner:
        pass
    assert outer.label == inner.label == "test_session.py:test_measure_and_measured"
    assert outer.session is inner.session, "blocks of equal settings share their meters while they are open"
    assert _SHARED == {}

    @harness.measured(meters=["found"], unit="calls=1")
    def work(n: int) -> int:
        """Adds."""
        return n + 1

    assert (work(1), work(2)) == (2, 3)
    assert work.__doc__ == "Adds."
    assert len(work.blocks) == 2
    assert isinstance(work.last.energy, Amount)

    class Model:
        @harness.measured(meters=["found"])
        def step(self, n: int) -> tuple[object, int]:
            return self, n

    model = Model()
    assert model.step(3) == (model, 3)
    assert len(Model.step.blocks) == 1

    @harness.measured(meters=["found"])
    async def later() -> int:
        await asyncio.sleep(0.01)
        return 5

    assert asyncio.run(later()) == 5
    assert later.last.duration >= 0.01
    with pytest.raises(UsageError, match="generator function"):
        harness.measured(lambda: (yield))
    with pytest.raises(UsageError, match="not called yet"):
        _ = harness.measured(lambda: 1).last


@pytest.mark.parametrize("meters", ["rapl: {root: /nowhere}", {"rapl": {"root": "/nowhere"}}])
def test_one_meter_may_stand_by_itself(meters: str | dict[str, object]) -> None:
    with harness.measure(meters=meters) as block:
        pass
    assert [each.name for each in block.session.choices] == ["rapl"]


def test_a_unit_is_text() -> None:
    with pytest.raises(UsageError, match="is no unit"):
        harness.measure(unit=("images", 5))  # type: ignore[arg-type]


def test_wrong_settings_open_nothing() -> None:
    for settings in ({"meters": ["lamp"]}, {"backend": "quantum"}, {"idle": "soon"}):
        with pytest.raises(UsageError), harness.measure(**settings):
            raise AssertionError("the block was entered")
    assert _SHARED == {}


def test_load(tmp_path: Path) -> None:
    with harness.measure("images=4", label="work", meters=["rapl: {root: /nowhere}"], store=tmp_path) as block:
        pass
    assert block.folder is not None
    run = harness.load(block.folder.parent)
    rows = run.rows()
    (energy,) = [row for row in rows if row["reading"] == "energy_j" and row["per"] == "images"]
    assert energy["value"] is None
    assert energy["missing"]
    (duration,) = [row for row in rows if row["reading"] == "duration_s" and row["per"] is None]
    assert duration["value"] == pytest.approx(block.duration)
    assert "work" in run._repr_html_()
    assert repr(run) == f"<harness run {run.name!r}: 1 point, 1 trial>"
    assert repr(run.points) == "(<harness point 'work': 1 trial>,)"
    assert repr(run.trials[0]).startswith("<harness trial 0: ")
    assert run.point("work").summary("duration_s").n == 1
    with pytest.raises(UsageError, match="there is no reading 'joules'"):
        run.point("work").summary("joules")
    with pytest.raises(UsageError, match="0 points are called"):
        run.point("other")
    with pytest.raises(UsageError, match="there is no such run"):
        harness.load(tmp_path / "gone")
    pandas = pytest.importorskip("pandas")
    frame = run.frame("pandas")
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(rows)


def test_a_frame_needs_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with harness.measure(meters=["rapl: {root: /nowhere}"], store=tmp_path) as block:
        pass
    assert block.folder is not None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="pip install pandas"):
        harness.load(block.folder.parent).frame()


@pytest.mark.parametrize("below", ["file", "file/runs"])
def test_a_store_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    ran = False
    with pytest.raises(UsageError, match="cannot be written"), harness.measure(store=tmp_path / below):
        ran = True
    assert not ran
