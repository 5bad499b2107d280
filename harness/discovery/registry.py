"""The plugin specs of the installed plugins, found through entry points of group `harness`.

Entry points are loaded one at a time: a plugin that cannot be imported, raises in a hook or yields something else
than a plugin spec is listed in `Registry.broken`, adds nothing, and the others work.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final

import pluggy

from harness import hookspecs
from harness.backend import BackendSpec, DeviceSettings
from harness.discovery.spec_check import check_spec
from harness.errors import HarnessError, PluginError, UsageError, did_you_mean
from harness.executor import ExecutorSpec
from harness.hookspecs import PROJECT_NAME, CommandSpec, ExportSpec
from harness.impact import ImpactMeterSpec
from harness.meter import MeterSpec
from harness.place import PlaceSpec
from harness.scorer import ScorerSpec
from harness.workload import WorkloadSpec

KINDS: Final[Mapping[str, tuple[str, tuple[Any, ...]]]] = {
    "workload": ("harness_workloads", (WorkloadSpec,)),
    "backend": ("harness_backends", (BackendSpec,)),
    "meter": ("harness_meters", (MeterSpec, ImpactMeterSpec)),
    "executor": ("harness_executors", (ExecutorSpec,)),
    "scorer": ("harness_scorers", (ScorerSpec,)),
    "place": ("harness_places", (PlaceSpec,)),
    "command": ("harness_commands", (CommandSpec,)),
    "export": ("harness_exports", (ExportSpec,)),
}
"""Kind of plugin spec -> the hook that yields it, and the types it may yield."""

OF: Final = ":"
"""Stands between a distribution and a name of its plugins, where the name alone would be ambiguous."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """Where a plugin spec comes from."""

    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plugin {self.name} of {self.distribution} {self.version}".rstrip()


@dataclass(frozen=True, slots=True)
class Offer:
    """A plugin spec and the plugin that yielded it."""

    spec: Any
    plugin: PluginInfo


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin that could not be used, and why."""

    name: str
    distribution: str
    version: str
    error: str

    def __str__(self) -> str:
        return f"plugin {self.name} of {self.distribution} {self.version}".rstrip() + f": {self.error}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """One name of one kind that several plugins define; it must be written as `distribution:name`."""

    kind: str
    name: str
    offers: tuple[Offer, ...]

    @property
    def spellings(self) -> dict[str, Offer]:
        """The names that tell them apart, sorted; without those of a distribution that defines the name twice."""
        whose = Counter(plain(offer.plugin.distribution) for offer in self.offers)
        alone = [offer for offer in self.offers if whose[plain(offer.plugin.distribution)] == 1]
        return dict(sorted((f"{offer.plugin.distribution}{OF}{self.name}", offer) for offer in alone))

    def error(self) -> HarnessError:
        """What to say where the name is used as it is."""
        if not self.spellings:
            whose = self.offers[0].plugin.distribution
            return PluginError(str(self), hint=f"{whose} cannot be used before that is mended")
        return UsageError(str(self), accepted=", ".join(self.spellings))

    def __str__(self) -> str:
        plugins = ", by ".join(str(offer.plugin) for offer in self.offers)
        return f"the {self.kind} {self.name!r} is defined more than once: by {plugins}"


class Registry:
    """The plugin specs of every registered plugin, by kind and name.

    Args:
        kinds: of plugin specs to ask the plugins for.

    Attributes:
        broken: plugins that are not usable.
        plugins: those that are.
        unloaded: distribution -> version, of plugins that belong to the work of this process and are not loaded here.
        sources: distribution -> a file of its code, of those that are usable.
        expected: kind and name -> what is known of a spec that no plugin has, for the error that says so.
    """

    def __init__(self, kinds: Collection[str] = tuple(KINDS)) -> None:
        self.unloaded: dict[str, str] = {}
        self.sources: dict[str, Path] = {}
        self.expected: dict[tuple[str, str], str] = {}
        self._kinds = [kind for kind in KINDS if kind in kinds]
        self.broken: list[BrokenPlugin] = []
        self.plugins: list[PluginInfo] = []
        self._manager = pluggy.PluginManager(PROJECT_NAME)
        self._manager.add_hookspecs(hookspecs)
        self._offers: dict[str, dict[str, list[Offer]]] = {kind: {} for kind in KINDS}
        self._infos: dict[int, PluginInfo] = {}

    # Filling

    def register(self, module: object, name: str, *, distribution: str = "in-process", version: str = "") -> bool:
        """Adds a plugin that is already imported; False, and an entry in `broken`, if it is not usable."""
        return self._add(PluginInfo(name, distribution, version), lambda: module)

    def load(self, entry_point: EntryPoint, info: PluginInfo | None = None) -> bool:
        """Imports and adds the plugin of one entry point; False, and an entry in `broken`, if it is not usable."""
        found = entry_point.dist
        known = info or PluginInfo(entry_point.name, found.name if found else "unknown", found.version if found else "")
        return self._add(known, entry_point.load)

    def _add(self, info: PluginInfo, load: Callable[[], object]) -> bool:
        module: object = None
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints must not get between lines of JSON
                module = load()
            self._manager.register(module, name=f"{info.distribution}:{info.name}")
            self._check_hook_names(module)
            offered = [(kind, spec) for kind in self._kinds for spec in self._gather(kind, module)]
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin raises must not stop the others
            self.broken.append(BrokenPlugin(info.name, info.distribution, info.version, _said(error)))
            if module is not None and id(module) not in self._infos and self._manager.is_registered(module):
                self._manager.unregister(module)
            return False
        self.plugins.append(info)
        self._infos[id(module)] = info
        if (file := getattr(module, "__file__", None)) is not None:
            self.sources[info.distribution] = Path(str(file))
        for kind, spec in offered:
            self._offers[kind].setdefault(spec.name, []).append(Offer(spec, info))
        return True

    def _check_hook_names(self, module: object) -> None:
        known = [name for name in dir(hookspecs) if name.startswith("harness_")]
        for name in dir(module):
            if self._manager.parse_hookimpl_opts(module, name) is not None and name not in known:
                raise PluginError(f"there is no hook {name!r}", hint=did_you_mean(name, known))

    def _gather(self, kind: str, module: object) -> list[Any]:
        hook, types = KINDS[kind]
        accepted = " or ".join(each.__name__ for each in types)
        specs = []
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            if impl.plugin is not module:
                continue
            offered = impl.function()
            if not isinstance(offered, Iterable) or isinstance(offered, str | bytes):
                raise PluginError(f"{hook} returned {_short(offered)}", accepted=f"an iterable of {accepted}")
            spec: Any
            for spec in offered:
                if not isinstance(spec, types):
                    raise PluginError(f"{hook} yielded {_short(spec)}", accepted=accepted)
                name: object = spec.name
                if not isinstance(name, str) or _NAME.fullmatch(name) is None:
                    raise PluginError(
                        f"{hook} yielded the name {_short(name)}", accepted="letters, digits, '.', '_' and '-'"
                    )
                check_spec(spec, hook)
                specs.append(spec)
        return specs

    # Asking

    def offers(self, kind: str) -> dict[str, Offer]:
        """The plugin specs of a kind by name, sorted; one that several plugins define is named `distribution:name`."""
        found: dict[str, Offer] = {}
        for name, offers in sorted(self._offers[kind].items()):
            found |= {name: offers[0]} if len(offers) == 1 else Conflict(kind, name, tuple(offers)).spellings
        return found

    def find(self, kind: str, name: str) -> Offer | None:
        """The plugin spec that a name means, with or without its distribution; None where no plugin has it.

        Raises:
            UsageError: several plugins define the name; says how to tell them apart.
            PluginError: one distribution defines it twice.
        """
        whose = name.rpartition(OF)[0]
        found = self._offers[kind].get(bare(name), [])
        if whose:
            found = [offer for offer in found if plain(offer.plugin.distribution) == plain(whose)]
        if len(found) > 1:
            raise Conflict(kind, bare(name), tuple(found)).error()
        return found[0] if found else None

    @property
    def workloads(self) -> dict[str, Offer]:
        """Every `WorkloadSpec` by name."""
        return self.offers("workload")

    @property
    def backends(self) -> dict[str, Offer]:
        """Every `BackendSpec` by name."""
        return self.offers("backend")

    @property
    def meters(self) -> dict[str, Offer]:
        """Every `MeterSpec` and `ImpactMeterSpec` by name."""
        return self.offers("meter")

    @property
    def executors(self) -> dict[str, Offer]:
        """Every `ExecutorSpec` by name."""
        return self.offers("executor")

    @property
    def scorers(self) -> dict[str, Offer]:
        """Every `ScorerSpec` by name."""
        return self.offers("scorer")

    @property
    def places(self) -> dict[str, Offer]:
        """Every `PlaceSpec` by name."""
        return self.offers("place")

    @property
    def commands(self) -> dict[str, Offer]:
        """Every `CommandSpec` by name."""
        return self.offers("command")

    @property
    def exports(self) -> dict[str, Offer]:
        """Every `ExportSpec` by name."""
        return self.offers("export")

    @property
    def conflicts(self) -> list[Conflict]:
        """Names that more than one plugin defines."""
        return [
            Conflict(kind, name, tuple(found))
            for kind, named in self._offers.items()
            for name, found in sorted(named.items())
            if len(found) > 1
        ]

    def settings_of(self, backend: str) -> DeviceSettings | None:
        """What sets and puts back the settings of a backend's devices; None where it has none, or is not loaded."""
        offer = self.backends.get(backend)
        return None if offer is None or offer.spec.settings is None else offer.spec.settings()

    def get(self, kind: str, name: str) -> Offer:
        """The plugin spec of a name.

        Raises:
            UsageError: no plugin has it, or several have; says which names there are.
            PluginError: one distribution defines it twice.
        """
        found = self.find(kind, name)
        if found is not None:
            return found
        named = self.offers(kind)
        hint = self.expected.get((kind, name), "") or did_you_mean(name, named)
        unusable = "not usable: " + "; ".join(map(str, self.broken)) if self.broken else ""
        if unusable and ((kind, name) in self.expected or not hint):
            hint = "; ".join(filter(None, (hint, unusable)))
        raise UsageError(f"there is no {kind} {_short(name)}", accepted=", ".join(sorted(named)) or "none", hint=hint)

    def directions(self, named: Iterable[tuple[str, str]]) -> dict[str, bool | None]:
        """Column -> whether higher is better, of workloads and scorers; None where nobody says, or two disagree.

        Args:
            named: kind and name of the plugin specs to ask.
        """
        found: dict[str, bool | None] = {}
        for kind, name in sorted(set(named)):
            for column in self.get(kind, name).spec.columns:
                said = column.higher_is_better
                found[column.name] = said if found.get(column.name, said) == said else None
        return found

    def versions(self) -> dict[str, str]:
        """Distribution -> version, of every plugin in use: for the record."""
        return {**self.unloaded, **{info.distribution: info.version for info in self.plugins}}

    def given(self, info: PluginInfo) -> dict[str, list[tuple[str, bool]]]:
        """Kind -> the names that a plugin gives, each with whether `auto` tries it."""
        return {
            kind: [
                (name, getattr(offer.spec, "auto", False) is True)
                for name, found in named.items()
                for offer in found
                if offer.plugin == info
            ]
            for kind, named in self._offers.items()
        }

    # Telling

    def tell(self, hook_name: str, **kwargs: object) -> list[str]:
        """Calls a notification hook of every plugin; returns what went wrong where, and never raises for it."""
        faults = []
        for impl in getattr(self._manager.hook, hook_name).get_hookimpls():
            info = self._infos[id(impl.plugin)]
            try:
                impl.function(*(kwargs[name] for name in impl.argnames))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a notification never fails a run
                faults.append(f"{info}: {hook_name} failed: {_said(error)}")
        return faults


def load_plugins(group: str = PROJECT_NAME) -> Registry:
    """A registry of every installed plugin; the order does not depend on how they were installed."""
    registry = Registry()
    for entry_point in installed(group):
        registry.load(entry_point)
    return registry


def plain(distribution: str) -> str:
    """The name of a distribution as indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def bare(name: str) -> str:
    """The name of a plugin spec without its distribution."""
    return name.rpartition(OF)[2]


def installed(group: str = PROJECT_NAME) -> list[EntryPoint]:
    """The entry points of every installed plugin, in the order in which they are loaded."""
    return sorted(entry_points(group=group), key=_origin)


def _origin(entry_point: EntryPoint) -> tuple[str, str]:
    return entry_point.dist.name if entry_point.dist else "", entry_point.name


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
