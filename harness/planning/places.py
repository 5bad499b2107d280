"""The place of a suite, resolved while planning and handed to the impact meters that take one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from harness.discovery.registry import Registry, bare, load_plugins
from harness.errors import UsageError, did_you_mean
from harness.impact import ImpactMeterSpec
from harness.place import Place, resolve
from harness.planning.faults import accepted_keys
from harness.planning.point import Choice

PLACE = "place"
"""Key of a suite, name of an option, and what `--set` and `--sweep` move all meters with."""


def resolved(asked: object, registry: Registry) -> Place:
    """The place that a suite or an argument names; raises UsageError for one that no plugin knows."""
    tables = [offer.spec for offer in registry.places.values()]
    if isinstance(asked, Place | str):
        return resolve(asked, tables)
    try:
        return resolve(Place.model_validate(asked), tables)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = accepted_keys(Place, first["loc"][:-1])
            hint = did_you_mean(str(first["loc"][-1]), known)
            raise UsageError(f"place: unknown key {where!r}", accepted=", ".join(known), hint=hint) from None
        said = str(first["msg"]).removeprefix("Value error, ")
        raise UsageError(f"place: {where}: {said}" if where else f"place: {said}") from None


def find_place(asked: object) -> Place:
    """The place that a name or own values stand for, by what the installed plugins know.

    Args:
        asked: a name, such as `us-east-1`, `UK` or `DE-LU`, or a mapping as under `place:` of a suite.

    Raises:
        UsageError: no plugin knows the name, or it is ambiguous.

    Examples:
        ```python
        print(harness.find_place("UK").grid)
        ```
    """
    return resolved(asked, load_plugins())


def takes_place(spec: object) -> bool:
    """Whether a spec is that of an impact meter with the option `place`."""
    return isinstance(spec, ImpactMeterSpec) and bool(spec.placed)


def taking(registry: Registry) -> dict[str, ImpactMeterSpec]:
    """The impact meters that take a place, by name."""
    return {name: offer.spec for name, offer in registry.meters.items() if takes_place(offer.spec)}


def placed(options: Mapping[str, Any], spec: object, place: Place | None, registry: Registry) -> dict[str, Any]:
    """Options with the place: the meter's own by name, else the suite's; as they are for a meter that takes none.

    Raises:
        UsageError: the meter's own place is not known.
    """
    found = dict(options)
    if not takes_place(spec):
        return found
    own = found.get(PLACE)
    if isinstance(own, str) or (isinstance(own, Mapping) and "base" in own):
        found[PLACE] = resolved(own, registry).as_options()
    elif own is None and place is not None:
        found[PLACE] = place.as_options()
    return found


def implied(listed: Sequence[Choice], place: Place | None, registry: Registry) -> tuple[Choice, ...]:
    """The impact meters that a suite's place asks for where meters are listed and none of them takes a place.

    Args:
        listed: what the suite lists; a suite that measures no energy has nothing to cost.
        place: the suite's.
        registry: the plugins; each impact meter of theirs that takes a place and needs no further option is asked for.
    """
    specs = taking(registry)
    if place is None or not listed or any(bare(choice.name) in {bare(name) for name in specs} for choice in listed):
        return ()
    found = []
    for name, spec in specs.items():
        with suppress(ValidationError):  # it needs more than a place, and nobody named it
            options = spec.options.model_validate({PLACE: place.as_options()})
            found.append(Choice(name, options.model_dump(mode="json", by_alias=True)))
    return tuple(found)


def moved(options: Mapping[str, Any], spec: ImpactMeterSpec, place: Place) -> dict[str, Any]:
    """Options as at another place: what the old place gave, or stood in its stead, is gone."""
    return {**{name: value for name, value in options.items() if name not in spec.placed}, PLACE: place.as_options()}
