"""The plugin specs that a point needs, named in `job.json` with their plugins: a worker imports those and no others.

A plugin is named by its distribution and its entry point, not by its module: the same job may be run in another
environment, where another version of the distribution keeps the plugin elsewhere. Where the named plugins do not have
all that the trial opens, every plugin is imported, as for a job that names none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from typing import Any

from harness.backend import BackendSpec
from harness.discovery.registry import OF, Offer, Registry, bare, load_plugins
from harness.errors import HarnessError, PluginError
from harness.hookspecs import PROJECT_NAME
from harness.meter import MeterSpec
from harness.planning.point import Choice, Point, canonical
from harness.workload import WorkloadSpec

Offers = Sequence[Mapping[str, Any]]
"""The plugin specs that a point needs, as `job.json` has them: fields of `NamedOffer`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedOffer:
    """A plugin spec and the plugin that the plan found it in.

    Attributes:
        kind: as in `registry.KINDS`.
        name: of the plugin spec.
        distribution: that installs the plugin.
        plugin: name of its entry point.
        in_trial: whether the trial opens it; scorers and impact meters follow in another process.
    """

    kind: str
    name: str
    distribution: str
    plugin: str
    in_trial: bool = True


def offers_of(point: Point, registry: Registry) -> Offers:
    """The plugin specs that a point needs.

    Raises:
        UsageError: no plugin has one, or several have and the suite does not say whose is meant.
    """
    asked = [("workload", point.workload), ("backend", point.backend.name)]
    asked += [("meter", choice.name) for choice in point.meters] + [("scorer", choice.name) for choice in point.scorers]
    found = []
    for kind, name in asked:
        offer = registry.get(kind, name)
        in_trial = isinstance(offer.spec, MeterSpec) if kind == "meter" else kind != "scorer"
        plugin = offer.plugin
        named = NamedOffer(
            kind=kind, name=name, distribution=plugin.distribution, plugin=plugin.name, in_trial=in_trial
        )
        found.append(asdict(named))
    return found


def known_offers(registry: Registry, kind: str, choices: Iterable[Choice]) -> list[Offer]:
    """The plugin specs that are meant, without those that nobody or more than one offers."""
    found = []
    for choice in choices:
        with suppress(HarnessError):
            found.append(registry.find(kind, choice.name))
    return [offer for offer in found if offer is not None]


def meant(registry: Registry, kind: str, name: str) -> str:
    """The same for every spelling of one plugin spec."""
    return next(
        (f"{offer.plugin.distribution}{OF}{offer.spec.name}" for offer in known_offers(registry, kind, [Choice(name)])),
        name,
    )


def automatic(registry: Registry, named: Collection[str]) -> list[Choice]:
    """The meters that `auto` stands for: all that may be tried unasked, but those that are named.

    Args:
        registry: the plugins.
        named: names of meters, without their distributions.

    Raises:
        UsageError: several plugins define one of them.
        PluginError: one of them needs options.
    """
    for conflict in registry.conflicts:
        auto = any(getattr(offer.spec, "auto", False) for offer in conflict.offers)
        if conflict.kind == "meter" and auto and conflict.name not in named:
            raise conflict.error()
    choices = []
    for name, offer in registry.meters.items():
        if isinstance(offer.spec, MeterSpec) and offer.spec.auto and bare(name) not in named:
            try:
                options = offer.spec.options().model_dump(mode="json", by_alias=True)
            except Exception as error:
                message = f"'auto' tries the meter {name!r}, which needs options: {error}"
                raise PluginError(message, where=str(offer.plugin)) from error
            choices.append(Choice(name, options, auto=True))
    return choices


def fetch_key(point: Point, registry: Registry) -> str:
    """Stands for all that a point's workload fetches before devices are locked; empty where that is nothing."""
    spec: WorkloadSpec = registry.get("workload", point.workload).spec
    chosen = {name: point.options.get(name) for name in spec.fetched_by}
    return hashlib.sha256(canonical([point.workload, chosen]).encode()).hexdigest()[:12] if chosen else ""


def forkable(point: Point, registry: Registry) -> bool:
    """Whether a trial of a point may be forked: its plugins say so, and it reads no energy or models all of it."""
    workload: WorkloadSpec = registry.get("workload", point.workload).spec
    meters = [registry.get("meter", choice.name).spec for choice in point.meters]
    opened = [spec for spec in meters if isinstance(spec, MeterSpec)]
    backend: BackendSpec = registry.get("backend", point.backend.name).spec
    safe = workload.fork_safe and backend.fork_safe and all(spec.fork_safe for spec in opened)
    return safe and (workload.modelled or not opened)


def named_in(job: Mapping[str, Any]) -> list[NamedOffer] | None:
    """The plugin specs that a job names; None for a job that names none, such as an older driver's."""
    named = job.get("offers")
    if named is None:
        return None
    keys = [each.name for each in fields(NamedOffer)]  # a newer driver may say more
    return [NamedOffer(**{key: each[key] for key in keys}) for each in named]


def hardware_meters(point: Point, job: Mapping[str, Any]) -> tuple[Choice, ...]:
    """The meters of a point that its trial opens; all where the job does not say which those are."""
    named = named_in(job)
    if named is None:
        return point.meters
    costing = {each.name for each in named if each.kind == "meter" and not each.in_trial}
    return tuple(choice for choice in point.meters if choice.name not in costing)


def load_named(job: Mapping[str, Any]) -> Registry:
    """A registry of the plugins that a job names; of every plugin where it names none or they do not suffice."""
    named = named_in(job)
    if named is None:
        return load_plugins()
    opened = [each for each in named if each.in_trial]
    registry = Registry({each.kind for each in opened})
    for distribution, plugin in sorted({(each.distribution, each.plugin) for each in opened}):
        for entry_point in _entry_points(distribution, plugin):
            registry.load(entry_point)
    if _missing(opened, registry):
        registry = load_plugins()
        for each in _missing(opened, registry):
            planned = f"the plan found it in plugin {each.plugin} of {each.distribution}, which lacks it here"
            registry.expected[each.kind, each.name] = planned
    for each in named:
        if not each.in_trial:
            registry.unloaded |= _version(each.distribution)
    return registry


def _missing(offers: Iterable[NamedOffer], registry: Registry) -> list[NamedOffer]:
    return [each for each in offers if not _has(registry, each)]


def _has(registry: Registry, asked: NamedOffer) -> bool:
    try:
        return registry.find(asked.kind, asked.name) is not None
    except HarnessError:  # it has several
        return True


def _entry_points(distribution: str, plugin: str) -> Iterable[metadata.EntryPoint]:
    try:
        return metadata.distribution(distribution).entry_points.select(group=PROJECT_NAME, name=plugin)
    except (metadata.PackageNotFoundError, ValueError):
        return ()


def _version(distribution: str) -> dict[str, str]:
    try:
        return {distribution: metadata.version(distribution)}
    except (metadata.PackageNotFoundError, ValueError):
        return {}
