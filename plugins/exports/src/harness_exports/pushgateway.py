"""A Prometheus Pushgateway: every figure of a run as a gauge, in one group that a second push replaces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness import Exported, LoadedRun, MeasurementError, open_metrics
from harness_exports.cells import left_out
from harness_exports.needed import library, web_address
from harness_exports.options import PushgatewayOptions


def export(run: LoadedRun, target: str, options: PushgatewayOptions) -> Exported:
    """Puts the families of `harness export --to openmetrics` into the group of job and run.

    A push is one request: the gateway has the whole group, or the one of before.

    Raises:
        MeasurementError: the gateway did not take it; it holds what it held.
    """
    address = web_address(target, "this export sends no credentials: put a proxy before the gateway")
    client = library("prometheus_client", "pushgateway")
    parser = library("prometheus_client.openmetrics.parser", "pushgateway")
    families = list(parser.text_string_to_metric_families(open_metrics(run.report)))
    registry = client.CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    group = {"run": run.name}
    try:
        client.push_to_gateway(
            address, job=options.job, registry=registry, grouping_key=group, timeout=options.timeout_s
        )
    except OSError as error:
        detail = getattr(error, "reason", error)
        raise MeasurementError(
            f"the gateway did not take the {len(families)} metrics of run {run.name}: {detail}", where=address
        ) from error
    sent = f"{len(families)} metrics to {address}, job {options.job}, run {run.name}"
    return Exported(sent=sent, left_out=left_out(run))


@dataclass(frozen=True, eq=False)
class _Families:
    """A collector of families that are known."""

    families: Sequence[Any]

    def collect(self) -> Iterator[Any]:
        yield from self.families
