"""What `--set` and `--sweep` say: options of impact meters, and the combinations that a sweep spans."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from harness.costing.impacts import Applied, in_order
from harness.discovery.registry import OF, Registry
from harness.errors import PluginError, UsageError, did_you_mean
from harness.impact import ImpactMeterSpec
from harness.place import FACTORS, Place
from harness.planning.faults import refusals
from harness.planning.located_yaml import parse
from harness.planning.places import PLACE, moved, resolved, taking
from harness.planning.point import canonical
from harness.suite_paths import SUITE_FOLDER

LIMIT_COMBINATIONS: Final = 10_000

_ACCEPTED: Final = "METER.OPTION=VALUE, such as fuel.grid=FRA, or place=VALUE"
_RANGE: Final = re.compile(r"([-+]?[0-9]+)\.\.([-+]?[0-9]+)")
_KEPT: Final = 64
"""Suites whose records differ in their impact meters' options are few; more are made anew."""


@dataclass(frozen=True, slots=True)
class Setting:
    """An option of an impact meter and the values it is to have: one for `--set`, several for `--sweep`.

    Attributes:
        meter: its name; `place` for what moves every meter that takes a place; empty for an option's name alone.
        path: of the option.
        values: in order.
        pair: number of a list of options that change together, value by value; None for an option of its own.
    """

    meter: str
    path: tuple[str, ...]
    values: tuple[Any, ...]
    pair: int | None = None

    @property
    def key(self) -> str:
        """As the user wrote it: `fuel.grid`."""
        return ".".join(filter(None, (self.meter, *self.path)))


def shown(value: object) -> str:
    """A value as it stands in a table: text as it is, the rest as JSON."""
    return value if isinstance(value, str) else canonical(value)


def _parsed(flag: str, text: str) -> Setting:
    where = f"{flag} {text}"
    key, equals, right = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} does not set an option", where=where, accepted=_ACCEPTED)
    meter, path = _option(key, where)
    values = parse(f"[{right}\n]", where, {}).data
    if not isinstance(values, list) or not values:
        raise UsageError("the value is missing", where=where, accepted=_ACCEPTED)
    return Setting(meter, path, tuple(values))


def _option(key: str, where: str) -> tuple[str, tuple[str, ...]]:
    """Meter and path of an option as it is written; `place` stands alone, and the meter is empty for `month` alone."""
    whose, of, rest = key.strip().rpartition(OF)  # a distribution's name may have dots
    meter, *path = rest.split(".")
    if whose:
        meter = f"{whose}{of}{meter}"
    if not path and meter and meter != PLACE:
        return "", (meter,)
    if meter == PLACE and path:
        raise UsageError(f"{key!r} is not an option", where=where, accepted="place, whole: a name or a mapping")
    if not meter or not all(path) or (not path and meter != PLACE):
        raise UsageError(f"{key!r} does not set an option", where=where, accepted=_ACCEPTED)
    return meter, tuple(path)


def setting(key: str, *values: Any, where: str = "") -> Setting:
    """A setting from an option's name, `fuel.grid`, and values as a suite has them; raises UsageError."""
    meter, path = _option(key, where or key)
    return Setting(meter, path, values)


def parse_set(text: str) -> Setting:
    """A setting from `fuel.grid=FRA`; raises UsageError."""
    setting = _parsed("--set", text)
    if len(setting.values) > 1:
        raise UsageError("--set takes one value", where=f"--set {text}", hint="--sweep takes several")
    return setting


def parse_sweep(text: str, number: int = 0) -> tuple[Setting, ...]:
    """A setting from `fuel.grid=FRA,DEU` or `scarf.month=1..12`; raises UsageError.

    Several options that change together are written `place,scarf.month=[aws-ohio,6],[aws-ireland,7]`, or as
    `aws-ohio:6,aws-ireland:7`.

    Args:
        text: as given to `--sweep`.
        number: which `--sweep` it is; tells lists of pairs apart.
    """
    key, equals, right = text.partition("=")
    if equals and "," in key:
        return _paired(key, right, f"--sweep {text}", number)
    setting = _parsed("--sweep", text)
    values = _ranged(setting.values, f"--sweep {text}")
    texts = [canonical(value) for value in values]
    twice = next((text for number, text in enumerate(texts) if text in texts[:number]), None)
    if twice is not None:
        raise UsageError(f"{twice} is listed twice", where=f"--sweep {text}", accepted="each value once")
    return (Setting(setting.meter, setting.path, tuple(values)),)


def _paired(key: str, right: str, where: str, number: int) -> tuple[Setting, ...]:
    options = [_option(each, where) for each in key.split(",")]
    accepted = f"a list of {len(options)} values each time, such as [aws-ohio,6],[aws-ireland,7]"
    given = parse(f"[{right}\n]", where, {}).data
    rows = [each.split(":") if isinstance(each, str) else each for each in given] if isinstance(given, list) else []
    if not rows or any(not isinstance(row, list) or len(row) != len(options) for row in rows):
        raise UsageError(
            f"{len(options)} options are swept together, and the values do not match", where=where, accepted=accepted
        )
    rows = [[_plain(value) for value in row] for row in rows]
    texts = [canonical(row) for row in rows]
    if len(set(texts)) < len(texts):
        raise UsageError("a combination is listed twice", where=where, accepted="each once")
    columns = zip(*rows, strict=True)
    return tuple(
        Setting(meter, path, tuple(values), number) for (meter, path), values in zip(options, columns, strict=True)
    )


def _plain(value: Any) -> Any:
    """A value of `aws-ohio:6` as YAML reads it."""
    if not isinstance(value, str):
        return value
    read = parse(f"[{value}\n]", "--sweep", {}).data
    return read[0] if isinstance(read, list) and len(read) == 1 else value


def _ranged(listed: Sequence[Any], where: str) -> list[Any]:
    """Values with ranges such as `1..12` written out."""
    values: list[Any] = []
    for value in listed:
        ends = _RANGE.fullmatch(value) if isinstance(value, str) else None
        if ends is None:
            values.append(value)
            continue
        first, last = int(ends.group(1)), int(ends.group(2))
        if abs(last - first) >= LIMIT_COMBINATIONS:
            raise UsageError(
                f"the range {value} is too long",
                where=where,
                accepted=f"at most {LIMIT_COMBINATIONS} values",
            )
        values += range(first, last + 1) if first <= last else range(first, last - 1, -1)
    return values


def _overlap(one: Setting, other: Setting) -> bool:
    length = min(len(one.path), len(other.path))
    return one.meter == other.meter and one.path[:length] == other.path[:length]


def _axes(swept: Sequence[Setting]) -> list[list[tuple[Any, ...]]]:
    """What varies by itself: the values of one option, or of several that change together."""
    axes: list[list[tuple[Any, ...]]] = []
    for _, group in itertools.groupby(
        enumerate(swept), key=lambda each: each[0] if each[1].pair is None else -1 - each[1].pair
    ):
        axes.append(list(zip(*(setting.values for _, setting in group), strict=True)))
    return axes


class Combinations:
    """What is to be applied to a record: its own impact meters with the settings on top, once per combination.

    Args:
        fixed: of `--set`.
        swept: of `--sweep`.
        registry: the plugins.
        folder: what paths in the settings are relative to; the working directory if not given.

    Raises:
        UsageError: a meter that is unknown or measures, settings that contradict each other, or too many combinations.
    """

    def __init__(
        self, fixed: Sequence[Setting], swept: Sequence[Setting], registry: Registry, folder: Path | None = None
    ) -> None:
        self._registry = registry
        self._folder = folder
        fixed, swept = [self._located(each) for each in fixed], [self._located(each) for each in swept]
        self.fixed = tuple(fixed)
        self.swept = tuple(swept)
        self._kept: dict[str, list[tuple[Applied, ...]]] = {}
        for one, other in itertools.combinations([*fixed, *swept], 2):
            if _overlap(one, other):
                raise UsageError(f"{one.key} and {other.key} set the same option", accepted="each option once")
        axes = _axes(swept)
        size = math.prod(len(axis) for axis in axes)
        if size > LIMIT_COMBINATIONS:
            raise UsageError(f"the sweep spans {size} combinations", accepted=f"at most {LIMIT_COMBINATIONS}")
        self.values = [tuple(itertools.chain.from_iterable(each)) for each in itertools.product(*axes)]
        self._places: dict[str, Place] = {}
        for setting in (*fixed, *swept):
            if setting.meter == PLACE:
                for value in setting.values:
                    self._places[canonical(value)] = resolved(value, registry)
            else:
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

    def _located(self, setting: Setting) -> Setting:
        """A setting whose option was written without its meter, with the one meter that has such an option."""
        if setting.meter:
            return setting
        specs = [offer.spec for offer in self._registry.meters.values() if isinstance(offer.spec, ImpactMeterSpec)]
        options = {f"{spec.name}.{name}": spec.name for spec in specs for name in spec.options.model_fields}
        having = [key for key in options if key.partition(".")[2] == setting.path[0]]
        if len(having) == 1:
            return replace(setting, meter=options[having[0]])
        name, known = setting.path[0], [PLACE, *(key.partition(".")[2] for key in options), *FACTORS]
        if not having and name in FACTORS:
            raise UsageError(f"{name!r} is part of a place", accepted=f"place={{base: NAME, {name}: VALUE}}")
        raise UsageError(
            f"{name!r} does not set an option",
            accepted=f"{' or '.join(having)}" if having else _ACCEPTED,
            hint="" if having else did_you_mean(name, known),
        )

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
        for value in (value for setting, value in pairs if setting.meter == PLACE):
            self._move(chosen, self._places[canonical(value)])
        for setting, value in ((setting, value) for setting, value in pairs if setting.meter != PLACE):
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

    def _move(self, chosen: dict[str, Any], place: Place) -> None:
        """Puts every meter that takes a place there; all that are installed, where the record has none of them."""
        specs = taking(self._registry)
        if not specs:
            raise UsageError(
                "no impact meter that is installed takes a place", accepted="a plugin such as fuel or scarf"
            )
        for name in [name for name in chosen if name in specs] or specs:
            before = chosen.get(name, {})
            here = before.get(PLACE) or {}
            there = place
            if not here or here.get("name") != place.name:
                there = place.flagged("placement: hypothetical: costed where it did not run")
            chosen[name] = moved(before, specs[name], there)

    def _made(self, name: str, options: dict[str, Any], pairs: Sequence[tuple[Setting, Any]]) -> Applied:
        spec = self._spec(name)
        own = " ".join(f"{setting.key}={shown(value)}" for setting, value in pairs)
        where = own or f"the record's {name}"
        try:
            # What a record holds is absolute; a path that is given now is relative to where it is given.
            valid = spec.options.model_validate(options, context={SUITE_FOLDER: self._folder or Path.cwd()})
            dumped = valid.model_dump(mode="json", by_alias=True)
        except ValidationError as error:
            raise next(refusals(error, spec, options, where)) from None
        except Exception as error:
            plugin = str(self._registry.get("meter", name).plugin)
            raise PluginError(
                f"the options of {name!r} failed: {type(error).__name__}: {error}", where=plugin
            ) from error
        return Applied(spec, dumped, spec.factory(valid), name)
