"""Every serving workload takes the same latency targets, and refuses the same ones."""

from __future__ import annotations

import math
from typing import Any

import harness_disaggregated_serving
import pytest
from harness_disaggregated_serving.load.slo import Slo, parsed
from pydantic import ValidationError

from harness.errors import UsageError

SPECS = {spec.name: spec for spec in harness_disaggregated_serving.harness_workloads()}
NEEDED: dict[str, dict[str, Any]] = {
    "serve-endpoint": {"url": "http://x/v1", "model": "m"},
    "serve-bench": {"run": ["tool", "{results}"]},
}


@pytest.mark.parametrize("name", sorted(SPECS))
@pytest.mark.parametrize(
    ("slo", "told"),
    [
        ("longbensh", "did you mean 'longbench'"),
        ({"ttft": 0, "tpot": 1}, "greater than 0"),
        ({"ttft": "-1s", "tpot": 1}, "'-1s' is not a duration"),
        ({"ttft": math.inf, "tpot": 1}, "inf is not a duration"),
        ({"ttft": 1, "tpot": math.nan}, "nan is not a duration"),
        ({"ttft": 1}, "tpot"),
        ({"ttft": 1, "tpot": 1, "itl": 1}, "itl"),
    ],
    ids=["unknown", "zero", "negative", "infinite", "nan", "half", "more"],
)
def test_targets_that_are_none_are_refused_by_every_workload(name: str, slo: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        SPECS[name].options.model_validate({**NEEDED.get(name, {}), "slo": slo})


@pytest.mark.parametrize("name", sorted(SPECS))
def test_targets_are_read_alike_by_every_workload(name: str) -> None:
    for slo in ("sharegpt-13b", {"ttft": "250ms", "tpot": 0.1}):
        options: Any = SPECS[name].options.model_validate({**NEEDED.get(name, {}), "slo": slo})
        found = options.slo if isinstance(options.slo, str) else (options.slo.ttft, options.slo.tpot)
        assert found == ("sharegpt-13b" if isinstance(slo, str) else (0.25, 0.1))


RATES = {"qps", "trace_speed", "bandwidth_gbit_s", "rates", "new_life"}


@pytest.mark.parametrize(
    ("name", "key"),
    [(name, key) for name in sorted(SPECS) for key in sorted(RATES & set(SPECS[name].options.model_fields))],
)
def test_rates_are_finite(name: str, key: str) -> None:
    options = SPECS[name].options
    with pytest.raises(ValidationError, match="finite"):
        options.model_validate({**NEEDED.get(name, {}), key: [math.inf] if key == "rates" else math.inf})


@pytest.mark.parametrize("pair", [(0.0, 1.0), (1.0, math.inf), (math.nan, 1.0)])
def test_targets_are_two_finite_times(pair: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="two finite times above 0"):
        Slo(*pair)


def test_a_command_lines_targets_are_held_to_the_same() -> None:
    assert parsed("ttft=250ms,tpot=0.1") == parsed("sharegpt-13b")
    for text in ("ttft=inf,tpot=1", "ttft=1s", "ttft=1s,tpot=1s,itl=1s", "ttft=0,tpot=1"):
        with pytest.raises(UsageError, match="ttft=2s,tpot=100ms"):
            parsed(text)
