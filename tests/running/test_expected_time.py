"""What measuring is expected to take: what the suite asks for, and what trials of this machine took besides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.discovery.registry import Registry
from harness.errors import PluginError
from harness.planning.point import Choice, Point
from harness.planning.trial_rules import Precision, WarmUpRule, Windows
from harness.running import expected_time
from harness.running.expected_time import KEPT, between, expected, minutes, remember, run_cost, to_fetch, told_first
from harness.workload import ToFetch, WorkloadSpec


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache/overhead.json"
    monkeypatch.setattr(expected_time, "_path", lambda: path)
    return path


def point(workload: str = "spin", **more: object) -> Point:
    given = {"windows": Windows(count=2, min_seconds=30.0), "warm_up": WarmUpRule(max_seconds=10.0), **more}
    return Point(id="0" * 12, suite="s", label=workload, workload=workload, backend=Choice("host"), **given)  # type: ignore[arg-type]


def test_before_any_trial_it_is_a_guess_and_says_so() -> None:
    text = run_cost([point(trials=10)])
    assert text.startswith("about 10 min, with the longest warm-ups 12 min (windows 10 min;")
    assert "guessed" in text


def test_afterwards_it_is_what_trials_took_here() -> None:
    remember([("spin", 60.0), ("spin", 60.0), ("spin", 600.0)])
    assert run_cost([point(trials=10)]).startswith("about 20 min")
    assert "as trials took here before" in run_cost([point()])
    assert "guessed" in run_cost([point(), point("other")])


def test_a_range_of_trials_is_a_range_of_time() -> None:
    remember([("spin", 0.0)])
    asked = point(trials=20, precision=Precision(at_least=3, until=0.02, at_most=20), warm_up=WarmUpRule(max_seconds=0))
    assert run_cost([asked]).startswith("about 3 min, with the longest warm-ups 20 min")
    assert expected([point()], [(1, 1)]).startswith("about 60 s")


def test_only_the_latest_are_kept_and_a_broken_cache_is_none(cache: Path) -> None:
    remember([("spin", float(n)) for n in range(3 * KEPT)])
    assert run_cost([point(trials=1)]).startswith("about 3 min"), "the median of the last ones"
    cache.write_text("{broken")
    assert "guessed" in run_cost([point()])
    cache.write_text("[1]")
    assert "guessed" in run_cost([point()])


def test_times_and_ranges_for_people() -> None:
    assert [minutes(each) for each in (3.2, 600.0, 9000.0)] == ["3 s", "10 min", "2.5 h"]
    assert (between(3, 3), between(3, 20)) == ("3", "3 to 20")


def test_windows_of_many_iterations_take_as_long_as_they_take() -> None:
    assert "last until" not in run_cost([point()])
    assert run_cost([point(windows=Windows(min_seconds=1, min_iterations=400))]).endswith(
        "windows last until their iterations are done)"
    )


def registry_of(to_fetch: Callable[[Any, Path], Iterable[ToFetch]] | None) -> Registry:
    spec = WorkloadSpec(name="spin", summary="", factory=lambda _given: None, to_fetch=to_fetch)  # type: ignore[arg-type,return-value]
    offer = SimpleNamespace(spec=spec, plugin="a plugin")
    return cast("Registry", SimpleNamespace(get=lambda _kind, _name: offer))


def test_what_is_fetched_first_is_told_once_with_its_time() -> None:
    seen: list[Path] = []

    def wanted(_options: object, cache: Path) -> Iterable[ToFetch]:
        seen.append(cache)
        return [ToFetch("a model is trained", 600.0), ToFetch("texts are downloaded")]

    found = to_fetch([point(), point()], registry_of(wanted))
    assert seen[0].name == "joule-harness"
    assert told_first(found) == (
        "first, and not measured: a model is trained (10 min), texts are downloaded: about 10 min on an idle machine "
        "or more"
    )
    assert told_first(found[:1]) == (
        "first, and not measured: a model is trained (10 min): about 10 min on an idle machine"
    )
    assert told_first(found[1:]) == "first, and not measured: texts are downloaded"
    assert told_first(to_fetch([point()], registry_of(None))) == ""


def test_a_workload_that_cannot_say_what_it_fetches_is_named() -> None:
    def broken(_options: object, _cache: Path) -> Iterable[ToFetch]:
        raise KeyError("model")

    with pytest.raises(PluginError, match="'spin' fetches is not known: KeyError"):
        to_fetch([point()], registry_of(broken))
