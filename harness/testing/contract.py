"""Every conformance check of an installed plugin spec, with its default options: `harness plugins --check`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from platformdirs import user_cache_path
from pydantic import ValidationError

from harness.diagnosing.survey import devices_of
from harness.discovery.registry import KINDS, Offer, PluginInfo, Registry, bare
from harness.errors import HarnessError, PluginError, UsageError, did_you_mean
from harness.hookspecs import PROJECT_NAME
from harness.impact import ImpactMeterSpec
from harness.meter import MeterContext
from harness.quantity import Unavailable
from harness.testing.checks import Checks, NotTriedError
from harness.testing.exports import check_export
from harness.testing.machines import check_backend, check_executor
from harness.testing.meters import check_impact_meter, check_meter, made_up
from harness.testing.offers import check_offers
from harness.testing.workloads import check_determinism, check_workload


def chosen(registry: Registry, name: str) -> list[tuple[str, Offer]]:
    """The plugin specs that a name means: those of that name in any kind, else all of a distribution or plugin.

    Raises:
        PluginError: the plugin of that name does not load, or one distribution defines the name twice.
        UsageError: nothing has that name, or several plugins have; says how to tell them apart.
    """
    for conflict in registry.conflicts:
        if conflict.name == name:
            raise conflict.error()
    named = [(kind, offer) for kind in KINDS if (offer := registry.find(kind, name)) is not None]
    if named:
        return named
    everything = [(kind, offer) for kind in KINDS for offer in registry.offers(kind).values()]
    for which in range(2):
        found = [(kind, offer) for kind, offer in everything if _origin(offer)[which] == name]
        if found:
            return found
    faults = [str(broken) for broken in registry.broken if name in {broken.name, broken.distribution}]
    if faults:
        raise PluginError("; ".join(faults))
    known = sorted({each for _, offer in everything for each in (offer.spec.name, offer.plugin.distribution)})
    raise UsageError(
        f"no plugin spec, plugin or distribution is named {name!r}",
        accepted="a name that `harness plugins` lists",
        hint=did_you_mean(name, known),
    )


def _origin(offer: Offer) -> tuple[str, str]:
    return offer.plugin.distribution, offer.plugin.name


def check_offer(kind: str, offer: Offer, registry: Registry) -> Checks:
    """Checks an installed plugin spec, with its default options, against its contract; never raises for a fault."""
    held = Checks()
    spec = offer.spec
    with held.that("its plugin yields its specs without importing a framework or a driver"):
        check_offers(_module(offer.plugin))
    with held.that("it has a name and a summary"):
        assert spec.summary.strip(), "the summary is empty"
    if kind == "command":
        with held.that("its command loads"):
            assert callable(spec.load()), "load() returned nothing to call"
        return held
    with held.that("its options have a JSON Schema"):
        spec.options.model_json_schema()
    with TemporaryDirectory(prefix="harness-check-") as folder:
        _check(kind, spec, registry, Path(folder), held)
    return held


def _module(plugin: PluginInfo) -> str:
    for point in entry_points(group=PROJECT_NAME, name=plugin.name):
        if point.dist is not None and point.dist.name == plugin.distribution:
            return point.module
    raise NotTriedError("it was registered in this process, not through an entry point")


def _check(kind: str, spec: Any, registry: Registry, folder: Path, held: Checks) -> None:
    """The checks of one kind; what needs options or a device that is not there is not tried, with the reason."""
    sentence = f"it conforms to the contract of {'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    try:
        options = spec.options()
    except ValidationError as error:
        held.skip(sentence, f"needs options: {_needed(error)}")
        return
    with held.that("its default options make one, and every other call succeeds"):
        made: Any = None if kind in {"workload", "export"} else spec.factory(options)
        if kind == "workload":
            _check_workload(spec, options, registry, folder, held)
        elif isinstance(spec, ImpactMeterSpec):
            check_impact_meter(made, spec, made_up(spec), checks=held)
        elif kind == "meter":
            devices = tuple(devices_of(registry))
            check_meter(made, MeterContext(devices=devices, pid=os.getpid()), checks=held)
        elif kind == "backend":
            check_backend(spec, options, checks=held)
        elif kind == "executor":
            _check_executor(spec, options, made, folder, held)
        elif kind == "export":
            check_export(spec, options, folder, checks=held)
        else:
            held.skip(sentence, "needs the outputs of a workload; `harness.testing.check_scorer` takes them")


def _needed(error: ValidationError) -> str:
    return ", ".join(
        ".".join(map(str, fault["loc"])) or fault["msg"].removeprefix("Value error, ") for fault in error.errors()
    )


def _check_workload(spec: Any, options: Any, registry: Registry, folder: Path, held: Checks) -> None:
    name = _backend_of(spec.backends, registry)
    reason = "" if name else f"needs a backend among {', '.join(spec.backends)}, none of which is installed"
    if not reason and spec.probe is not None:
        answer = spec.probe(options)
        reason = answer.reason if isinstance(answer, Unavailable) else ""
    if reason:
        held.skip("it conforms to the contract of a workload", reason)
        return
    backend = registry.get("backend", name).spec
    cache = folder / "cache"
    cache.symlink_to(user_cache_path("joule-harness", ensure_exists=True), target_is_directory=True)
    given = options.model_dump(exclude_unset=True)
    check_workload(spec, given, backend.factory(backend.options()), folder, checks=held)
    if not held.failed:
        check_determinism(spec, given, lambda: backend.factory(backend.options()), folder, checks=held)


def _check_executor(spec: Any, options: Any, made: Any, folder: Path, held: Checks) -> None:
    """An executor says in `begin` that there is no place for its trials, such as a cluster that does not answer."""
    try:
        made.begin(())
    except HarnessError as error:
        held.skip("it conforms to the contract of an executor", str(error))
    else:
        check_executor(lambda: spec.factory(options), folder, checks=held)
    finally:
        made.close()


def _backend_of(names: Iterable[str], registry: Registry) -> str:
    """The first backend of a workload that is installed; `host` for a workload that runs on any."""
    wanted = tuple(names) or ("host",)
    return next((name for each in wanted for name in registry.backends if bare(name) == each), "")
