"""Meters as a command line or a call names them: texts as in a suite, and a place for carbon and water."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from harness.discovery.registry import Registry, bare, load_plugins
from harness.discovery.remembered import AUTO as AUTO_NAME
from harness.discovery.remembered import load_chosen
from harness.errors import UsageError
from harness.impact import ImpactMeterSpec
from harness.planning.named_offers import automatic
from harness.planning.places import PLACE, placed, resolved, taking
from harness.planning.point import Choice

Named = Sequence[tuple[str, Mapping[str, Any]]]
"""Meters as under `meters:` of a suite: names with their options, `auto` among them."""

_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
"""A name alone, for which no YAML has to be read."""
AUTO: Named = (("auto", {}),)


def listed(meters: Iterable[str | Mapping[str, Any]] | str | Mapping[str, Any]) -> list[str | Mapping[str, Any]]:
    """Meters as a list, also where one is given by itself."""
    return [meters] if isinstance(meters, str | Mapping) else list(meters)


def with_place(
    meters: Sequence[str | Mapping[str, Any]],
    *,
    grid: str | None = None,
    site: str | None = None,
    place: str | Mapping[str, Any] | None = None,
    where: str = "meters",
) -> Named:
    """The meters, `auto` where none is named, with `fuel` for a grid, `scarf` for a site, and both for a place.

    Args:
        meters: each as in a suite: a name, `tdp: {watts: 65}` as text, or one name with a mapping of its options.
        grid: of meter `fuel`.
        site: of meter `scarf`.
        place: of every impact meter that takes one: a name, or own values as a mapping or as its text.
        where: they were named, for an error.

    Raises:
        UsageError: a text is no meter, or one is named twice.
    """
    found = [_named(each, where) for each in meters] or [*AUTO]
    found += [("fuel", {"grid": grid})] if grid is not None else []
    found += [("scarf", {"site": site})] if site is not None else []
    found += [(PLACE, {"name": _own_values(place)})] if place is not None else []
    names = [name for name, _ in found]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise UsageError(f"meter {twice!r} is named twice", where=where, accepted="each once")
    return found


def _own_values(place: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
    """A place as it is, own values written as text as a mapping: `{grid: 518 g/kWh, pue: 1.2}`."""
    if isinstance(place, Mapping) or not place.lstrip().startswith("{"):
        return place
    from harness.planning import located_yaml

    values = located_yaml.parse(place, PLACE, os.environ).data
    return values if isinstance(values, Mapping) else place


def _named(meter: str | Mapping[str, Any], where: str) -> tuple[str, Mapping[str, Any]]:
    value: Any = meter
    if isinstance(meter, str) and _PLAIN.fullmatch(meter) is None:
        from harness.planning import located_yaml

        try:
            value = located_yaml.parse(meter, where, os.environ).data
        except UsageError:
            value = None
    one = {value: None} if isinstance(value, str) else value
    if not isinstance(one, Mapping) or len(one) != 1:
        raise UsageError(
            f"{meter!r} is not a meter", where=where, accepted="a name, or one name with a mapping of its options"
        )
    ((name, options),) = one.items()
    if options is not None and not isinstance(options, Mapping):
        raise UsageError(f"the options of meter {name} are {options!r:.60}", where=where, accepted="a mapping")
    return str(name), dict(options or {})


def told(message: str) -> str:
    """What a validator said, without pydantic's own words before it."""
    return message.removeprefix("Value error, ")


def plugins_for(meters: Named, backend: str | Mapping[str, Any]) -> Registry:
    """The plugins that these meters and this backend come from, and those of the meters that `auto` tries."""
    named = backend if isinstance(backend, str) else str(backend.get("name", ""))
    if any(name == PLACE or PLACE in options for name, options in meters):
        return load_plugins()  # any of them may know the place
    return load_chosen({"meter": [AUTO_NAME, *(name for name, _ in meters)], "backend": [named]}, also=("workload",))


def choose(meters: Named, registry: Registry) -> tuple[Choice, ...]:
    """Meters with `auto` expanded and every impact meter at the place that stands among them as `place`.

    Impact meters and cross-checks alone imply `auto`, as in a suite. Raises UsageError.
    """
    asked = next((options["name"] for name, options in meters if name == PLACE), None)
    place = None if asked is None else resolved(asked, registry)
    if place is not None:
        meters = [each for each in meters if each[0] != PLACE]
        known = {bare(name) for name, _ in meters}
        meters += [(name, {}) for name in taking(registry) if bare(name) not in known]
    named = {bare(name) for name, _ in meters}
    found: dict[str, Choice] = {}
    needy = []
    for name, given in meters:
        if name == "auto":
            found = {each.name: each for each in automatic(registry, named)} | found
            needy.append(False)
            continue
        spec = registry.get("meter", name).spec
        options = placed(given, spec, place, registry)
        try:
            spec.options.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(f"{'.'.join([name, *map(str, first['loc'])])}: {told(first['msg'])}") from None
        found[name] = Choice(name, options)
        needy.append(isinstance(spec, ImpactMeterSpec) or spec.cross_check)
    if needy and all(needy):
        found = {each.name: each for each in automatic(registry, named)} | found
    return tuple(found.values())
