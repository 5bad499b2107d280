"""What `--set` and `--sweep` say: options of impact meters, and the combinations that a sweep spans."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from harness.costing.impacts import Applied, in_order
from harness.discovery.registry import OF, Registry
from harness.errors import PluginError, UsageError, did_you_mean
from harness.impact import ImpactMeterSpec
from harness.planning.faults import refusals
from harness.planning.located_yaml import parse
from harness.planning.point import canonical

LIMIT_COMBINATIONS: Final = 10_000

_RANGE: Final = re.compile(r"([-+]?[0-9]+)\.\.([-+]?[0-9]+)")
_KEPT: Final = 64
"""Suites whose records differ in their impact meters' options are few; more are made anew."""


@dataclass(frozen=True, slots=True)
class Setting:
    """An option of an impact meter and the values it is to have: one for `--set`, several for `--sweep`."""

    meter: str
    path: tuple[str, ...]
    values: tuple[Any, ...]

    @property
    def key(self) -> str:
        """As the user wrote it: `fuel.grid`."""
        return ".".join((self.meter, *self.path))


def shown(value: object) -> str:
    """A value as it stands in a table: text as it is, the rest as JSON."""
    return value if isinstance(value, str) else canonical(value)


def _parsed(flag: str, text: str) -> Setting:
    where = f"{flag} {text}"
    key, equals, right = text.partition("=")
    whose, of, rest = key.strip().rpartition(OF)  # a distribution's name may have dots
    first, *path = rest.split(".")
    meter = f"{whose}{of}{first}" if first else ""
    if not (equals and meter and path and all(path)):
        raise UsageError(
            f"{text!r} does not set an option", where=where, accepted="METER.OPTION=VALUE, such as fuel.grid=FRA"
        )
    values = parse(f"[{right}\n]", where, {}).data
    if not isinstance(values, list) or not values:
        raise UsageError("the value is missing", where=where, accepted="METER.OPTION=VALUE, such as fuel.grid=FRA")
    return Setting(meter, tuple(path), tuple(values))


def parse_set(text: str) -> Setting:
    """A setting from `fuel.grid=FRA`; raises UsageError."""
    setting = _parsed("--set", text)
    if len(setting.values) > 1:
        raise UsageError("--set takes one value", where=f"--set {text}", hint="--sweep takes several")
    return setting


def parse_sweep(text: str) -> Setting:
    """A setting from `fuel.grid=FRA,DEU` or `scarf.month=1..12`; raises UsageError."""
    setting = _parsed("--sweep", text)
    values: list[Any] = []
    for value in setting.values:
        ends = _RANGE.fullmatch(value) if isinstance(value, str) else None
        if ends is None:
            values.append(value)
            continue
        first, last = int(ends.group(1)), int(ends.group(2))
        if abs(last - first) >= LIMIT_COMBINATIONS:
            raise UsageError(
                f"the range {value} is too long",
                where=f"--sweep {text}",
                accepted=f"at most {LIMIT_COMBINATIONS} values",
            )
        values += range(first, last + 1) if first <= last else range(first, last - 1, -1)
    texts = [canonical(value) for value in values]
    twice = next((text for number, text in enumerate(texts) if text in texts[:number]), None)
    if twice is not None:
        raise UsageError(f"{twice} is listed twice", where=f"--sweep {text}", accepted="each value once")
    return Setting(setting.meter, setting.path, tuple(values))


def _overlap(one: Setting, other: Setting) -> bool:
    length = min(len(one.path), len(other.path))
    return one.meter == other.meter and one.path[:length] == other.path[:length]


class Combinations:
    """What is to be applied to a record: its own impact meters with the settings on top, once per combination.

    Args:
        fixed: of `--set`.
        swept: of `--sweep`.
        registry: the plugins.

    Raises:
        UsageError: a meter that is unknown or measures, settings that contradict each other, or too many combinations.
    """

    def __init__(self, fixed: Sequence[Setting], swept: Sequence[Setting], registry: Registry) -> None:
        self.fixed = tuple(fixed)
        self.swept = tuple(swept)
        self._registry = registry
        self._kept: dict[str, list[tuple[Applied, ...]]] = {}
        for one, other in itertools.combinations([*fixed, *swept], 2):
            if _overlap(one, other):
                raise UsageError(f"{one.key} and {other.key} set the same option", accepted="each option once")
        size = math.prod(len(setting.values) for setting in swept)
        if size > LIMIT_COMBINATIONS:
            raise UsageError(f"the sweep spans {size} combinations", accepted=f"at most {LIMIT_COMBINATIONS}")
        self.values = list(itertools.product(*(setting.values for setting in swept)))
        for setting in (*fixed, *swept):
            self._spec(setting.meter)

    @property
    def keys(self) -> list[str]:
        """The swept options."""
        return [setting.key for setting in self.swept]

    def label(self, index: int) -> str:
        """A combination for people: `fuel.grid=FRA, scarf.month=3`."""
        return ", ".join(f"{key}={shown(value)}" for key, value in zip(self.keys, self.values[index], strict=True))

    def of(self, impacts: Sequence[Mapping[str, Any]]) -> list[tuple[Applied, ...]]:
        """Per combination, the impact meters in their order.

        Args:
            impacts: the record's own: `{"name": ..., "options": ...}`.

        Raises:
            UsageError: an option is unknown or its value is refused.
        """
        key = canonical(list(impacts))
        if key not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            made: dict[str, Applied] = {}
            self._kept[key] = [self._applied(impacts, values, made) for values in self.values]
        return self._kept[key]

    def choices(self, impacts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Meters and options of the first combination, as validated: what a plan says of them."""
        return [{"name": each.name, "options": dict(each.options)} for each in self.of(impacts)[0]]

    def _spec(self, name: str) -> ImpactMeterSpec:
        spec = self._registry.get("meter", name).spec
        if isinstance(spec, ImpactMeterSpec):
            return spec
        known = [each for each, offer in self._registry.meters.items() if isinstance(offer.spec, ImpactMeterSpec)]
        raise UsageError(
            f"the meter {name!r} measures; only impact meters are costed again",
            accepted=", ".join(known) or "none is installed",
            hint=did_you_mean(name, known),
        )

    def _applied(
        self, impacts: Sequence[Mapping[str, Any]], values: Sequence[Any], made: dict[str, Applied]
    ) -> tuple[Applied, ...]:
        """One combination; a meter that two combinations share is made once."""
        chosen = {each["name"]: deepcopy(dict(each["options"])) for each in impacts}
        pairs = [(setting, setting.values[0]) for setting in self.fixed]
        pairs += list(zip(self.swept, values, strict=True))
        for setting, value in pairs:
            options = chosen.setdefault(setting.meter, {})
            for name in setting.path[:-1]:
                if not isinstance(options.get(name), dict):
                    options[name] = {}
                options = options[name]
            options[setting.path[-1]] = value
        found = []
        for name, options in chosen.items():
            key = canonical([name, options])
            if key not in made:
                made[key] = self._made(name, options, [(s, value) for s, value in pairs if s.meter == name])
            found.append(made[key])
        return in_order(found)

    def _made(self, name: str, options: dict[str, Any], pairs: Sequence[tuple[Setting, Any]]) -> Applied:
        spec = self._spec(name)
        where = " ".join(f"{setting.key}={shown(value)}" for setting, value in pairs) or f"the record's {name}"
        try:
            valid = spec.options.model_validate(options)
            dumped = valid.model_dump(mode="json", by_alias=True)
        except ValidationError as error:
            raise next(refusals(error, spec, options, where)) from None
        except Exception as error:
            plugin = str(self._registry.get("meter", name).plugin)
            raise PluginError(
                f"the options of {name!r} failed: {type(error).__name__}: {error}", where=plugin
            ) from error
        return Applied(spec, dumped, spec.factory(valid), name)
