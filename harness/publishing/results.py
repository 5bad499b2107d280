"""What a run brings to a site beside its own page: a result for each functional unit of each point."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from harness.comparing.run_series import OfPoint, of_point
from harness.quantity import Amount
from harness.records.metric import RATE, Metric
from harness.records.record import Measurement
from harness.records.summary import PointReport, RunReport, Summary
from harness.records.trials import factor_ids, rests_on_factors
from harness.reporting import quality, ranking, same_work
from harness.reporting.figures import share_summaries
from harness.reporting.finding import METRICS as RANKED
from harness.units import number

METRICS: Final = ("energy_j", "carbon_g", "carbon_operational_g", "water_l", "duration_s", RATE)
"""What a functional unit is ranked by and followed over time, in this order; less is better of all but the rate."""
WORDS: Final = {
    **{name: word.replace("Least ", "").replace("Fastest", "duration") for name, (word, _) in RANKED.items()},
    "water_l": "water",
    RATE: "rate",
}
"""The metrics in words: `energy`, `operational carbon`."""
_MACHINE: Final = ("cpu", "cores_logical", "cores_allowed", "memory_bytes", "system", "virtualised")
SAMPLE: Final = 256
"""So many work items of a result are kept to tell whether two results did the same ones."""


@dataclass(frozen=True, slots=True)
class Items:
    """The work items of a result: all of up to `SAMPLE`, else those whose digests are least, which is a fair sample.

    Attributes:
        count: how many there were; 0 where the run kept none.
        sample: digests in rising order.
    """

    count: int
    sample: tuple[int, ...]

    @classmethod
    def of(cls, names: Iterable[str]) -> Items:
        """From the items' ids."""
        digests = {int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) for name in names}
        return cls(len(digests), tuple(sorted(digests)[:SAMPLE]))

    def within(self, others: Items) -> bool:
        """Whether all are among the others, as far as the samples of both can tell."""
        known = set(others.sample)
        reach = others.sample[-1] if others.count > len(others.sample) else None
        return all(each in known for each in self.sample if reach is None or each <= reach)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A run of the site.

    Attributes:
        name: of the run.
        page: its page, from the site's folder.
        started_utc: when it began; empty where that is not known.
        status: how it ended, or why it was left out.
        suites: names of its suites.
        labels: of its points.
        devices: that it ran on.
        trials: that have a record.
        lost: trials that failed, are missing or could not be read.
        recosted: whether it holds other costs of another run's measurements.
    """

    name: str
    page: str
    started_utc: str
    status: str
    suites: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    trials: int = 0
    lost: int = 0
    recosted: bool = False

    @property
    def age(self) -> tuple[str, bool, str]:
        """Orders runs, the oldest first; before a run stand those that cost its measurements again."""
        return self.started_utc, not self.recosted, self.name


@dataclass(frozen=True, kw_only=True)
class Result:
    """One functional unit of one point of one run.

    Attributes:
        run: that measured it.
        suite: of the point.
        label: of the point in its suite.
        workload: name.
        work: digest of the workload's options: what was done, on whatever device.
        device: what it ran on, for people.
        cards: identities of the devices; machines without any are told apart by what they have.
        identified: whether equal `cards` are the same devices: a processor has no identity, and of two machines with
            the same one nothing says that they are one.
        valid: whether the measurement is.
        short: whether its windows are too short for an energy to be gated.
        unit: the functional unit.
        definition: of the unit.
        kind: what the workload says that it may be ranked with.
        meters: that count, with what they read.
        items: that were worked on.
        costs: metric -> summary.
        factors: metric -> ids of the factors that it rests on.
        embodied: ids of the embodied tables: published ones differ too much to be ranked with each other.
        quality: column of quality, or `pass share` in percent -> its summary.
        lower: those of them of which less is better.
    """

    run: Published
    suite: str
    label: str
    workload: str
    work: str
    device: str
    cards: tuple[str, ...]
    identified: bool
    valid: bool
    short: bool
    unit: str
    definition: str
    kind: str
    meters: str
    items: Items
    costs: Mapping[str, Summary]
    factors: Mapping[str, tuple[str, ...]]
    embodied: tuple[str, ...]
    quality: Mapping[str, Summary]
    lower: frozenset[str] = frozenset()

    @cached_property
    def point(self) -> str:
        """Suite and label."""
        return f"{self.suite}: {self.label}"

    def summary(self, metric: str) -> Summary | None:
        """The summary of a metric that has a value."""
        found = self.costs.get(metric)
        return found if found is not None and isinstance(found.value, Amount) else None


def device_of(measurement: Measurement) -> str:
    """What a trial ran on, for people: its accelerators, else its processor."""
    names = Counter(device.name for device in measurement.devices if device.kind != "cpu")
    if names:
        return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in sorted(names.items()))
    return str(measurement.environment.get("cpu") or "unknown device")


def cards_of(measurement: Measurement) -> tuple[str, ...]:
    """Identities of what a trial ran on; of a machine without accelerators what is known of it."""
    own = sorted(device.uuid for device in measurement.devices if device.kind != "cpu")
    machine = [str(measurement.environment.get(key, "")) for key in _MACHINE]
    return tuple(own) or (" ".join(filter(None, machine)),)


def results(report: RunReport, run: Published) -> list[Result]:
    """The results of a run."""
    return [result for point in report.points for result in _of_point(report, point, run)]


def _of_point(report: RunReport, point: PointReport, run: Published) -> list[Result]:
    if not point.units:
        return []
    first = point.records[0]
    measurement = first.measurement
    wanted = {name: measurement.point.get(name) for name in ("workload", "options")}
    work = hashlib.blake2b(json.dumps(wanted, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
    items = Items.of(same_work.items_of(report, point))
    known = {name: found for name in quality.columns([point]) if (found := quality.of(point, name)) is not None}
    return [
        Result(
            run=run,
            suite=point.suite,
            label=point.trials.label,
            workload=str(measurement.point.get("workload", "")),
            work=work,
            device=device_of(measurement),
            cards=cards_of(measurement),
            identified=any(device.kind != "cpu" for device in measurement.devices),
            valid=point.valid,
            short=point.short,
            unit=name,
            definition=point.definitions[name],
            kind=same_work.kind(point),
            meters=same_work.meters(point),
            items=items,
            costs=costs,
            factors={
                metric: factor_ids(first) if rests_on_factors(Metric(metric, name), first) else () for metric in costs
            },
            embodied=tuple(sorted(ranking.embodied_tables(point))),
            lower=frozenset(key for key in known if not all(r.qualities.get(key, True) for r in point.records)),
            quality=known | {f"{key} of {name}, %": each for key, each in _shares(point, name).items()},
        )
        for name, costs in point.units.items()
    ]


def _shares(point: PointReport, name: str) -> dict[str, Summary]:
    """The share of items that passed, where the unit has a condition that items can fail."""
    shares = share_summaries(point, name)
    conditional = any(finished.units[name].count.meeting for finished in point.records if name in finished.units)
    return {"pass share": shares["pass_share"]} if conditional and "pass_share" in shares else {}


def of_history(report: RunReport) -> list[OfPoint]:
    """What a run adds to the histories of the site: its valid points alone."""
    units = {name for point in report.points for name in point.units}
    wanted = frozenset(Metric(metric, name) for metric in METRICS for name in units)
    return [of_point(point.trials, wanted) for point in report.points if point.valid]


def quality_text(result: Result) -> str:
    """The quality of a result in a cell: `reward 0.75, pass share 92 %`."""
    known = {name: value.value for name, value in result.quality.items() if isinstance(value.value, Amount)}
    return ", ".join(f"{name} {number(amount.value)}" for name, amount in known.items())
