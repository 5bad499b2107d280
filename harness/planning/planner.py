"""From suites to points: every combination of every case, its options validated, or skipped with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

from harness.backend import Device
from harness.discovery.registry import Offer, Registry, bare
from harness.errors import UsageError, did_you_mean
from harness.impact import ImpactMeterSpec
from harness.place import Place as SitePlace
from harness.planning import matrix
from harness.planning.faults import Place, real_path
from harness.planning.known_metrics import (
    Known,
    at_most,
    by_options,
    default_units,
    known_of,
    precision,
    unknown_metrics,
)
from harness.planning.labels import shown, told_apart
from harness.planning.located_yaml import Keys, path_text, raise_all, short, unset, unset_in
from harness.planning.named_offers import automatic, known_offers, meant
from harness.planning.option_checks import checked, located, validated
from harness.planning.places import PLACE, implied, placed, resolved, takes_place
from harness.planning.point import Choice, Plan, Point, Skipped, canonical, identity, order_impacts, unmet
from harness.planning.suite import Case, Named, Suite, as_named, missing_variable, windows_of
from harness.quantity import Unavailable
from harness.workload import COMMON_COLUMNS, WorkloadSpec

LIMIT_POINTS: Final = 100_000
_LIMIT_COMPARISONS: Final = 10_000_000
_LIMIT_ERRORS: Final = 200

AUTO: Final = "auto"
"""Under `meters:` it stands for every meter that may be tried unasked."""

Probes = Callable[[Choice], Sequence[Device] | Unavailable]


def expand(suites: Sequence[Suite], registry: Registry, probes: Probes | None = None) -> Plan:
    """The points of suites.

    Args:
        suites: as loaded.
        registry: the plugins.
        probes: choice of a backend -> its devices, or why there are none; without it no machine is asked.

    Raises:
        UsageError: with every fault found, each at its place.
        PluginError: several plugins define a name that is used, or a plugin's option model is broken.
    """
    total = sum(matrix.size(case.matrix, case.include) for suite in suites for case in suite.cases)
    if total > LIMIT_POINTS:
        files = ", ".join(suite.file for suite in suites)
        raise UsageError(f"the matrices span {total} points", where=files, accepted=f"at most {LIMIT_POINTS} in all")
    planner = _Planner(registry, probes)
    for suite in suites:
        planner.suite(suite)
    if planner.errors:
        raise_all(planner.errors)
    return _told_apart(planner.plan)


def _told_apart(plan: Plan) -> Plan:
    apart = iter(told_apart([*plan.points, *(each.point for each in plan.skipped)]))
    return Plan(
        [next(apart) for _ in plan.points], [dataclasses.replace(each, point=next(apart)) for each in plan.skipped]
    )


class _Planner:
    """Collects points and faults of suites."""

    def __init__(self, registry: Registry, probes: Probes | None) -> None:
        self.registry = registry
        self.probes = probes
        self.errors: list[UsageError] = []
        self.plan = Plan([], [])
        self._places: dict[str, str] = {}
        self._at_home: dict[tuple[int, int], tuple[Choice, ...]] = {}
        self._place: SitePlace | None = None
        self._lost = False
        self._probed: dict[str, Sequence[Device] | Unavailable] = {}

    def suite(self, suite: Suite) -> None:
        self._lost = False
        self._place = self._resolved(suite)
        known: list[Known] = []
        for number, case in enumerate(suite.cases):
            setting = self._setting(suite, number, case)
            if setting is None or len(self.errors) > _LIMIT_ERRORS:
                continue
            known.append(known_of(setting.point, setting.spec, self.registry))
            self._points(setting)
        if not self.errors and not suite.document.unset:
            self.errors += unknown_metrics(suite, known)

    def _fault(self, suite: Suite, path: Keys, message: str, known: set[str]) -> None:
        name = str(suite.document.at(path) or path[-1])
        hint = did_you_mean(name[:100], known)
        self.errors.append(suite.document.error(path, message, accepted=", ".join(sorted(known)) or "none", hint=hint))

    def _resolved(self, suite: Suite) -> SitePlace | None:
        """The suite's place; None where it names none, or an unset variable."""
        if suite.place is None or (isinstance(suite.place, str) and unset(suite.place)):
            self._lost = suite.document.at((PLACE,)) is not None and (PLACE,) not in suite.document.unset  # told
            return None
        try:
            return resolved(suite.place, self.registry)
        except UsageError as error:
            self._refuse(suite, (PLACE,), error)
            self._lost = True
            return None

    def _refuse(self, suite: Suite, path: Keys, error: UsageError) -> None:
        self.errors.append(suite.document.error(path, error.message, accepted=error.accepted, hint=error.hint))

    # What the points of a case share

    def _setting(self, suite: Suite, number: int, case: Case) -> matrix.Shared | None:
        at: Keys = ("cases", number)
        before = len(self.errors)
        missing = missing_variable(suite, number, case)
        offer = None if unset(case.workload) else self._offer(suite, (*at, "workload"), "workload", case.workload)
        spec = offer.spec if offer else WorkloadSpec(name=case.workload, summary="", factory=_no_factory)
        own = at if case.backend is not None else ()
        backend = self._choice(suite, (*own, "backend"), "backend", case.backend or suite.backend)
        if matrix.BACKEND not in case.matrix or matrix.BACKEND in spec.options.model_fields:
            self._runs_on(suite, (*own, "backend"), spec, backend)
        own = at if case.meters is not None else ()
        meters = self._meters(suite, (*own, "meters"), suite.meters if case.meters is None else case.meters)
        own = at if case.scorers is not None else ()
        scorers = self._listed(
            suite, (*own, "scorers"), "scorer", suite.scorers if case.scorers is None else case.scorers
        )
        units = self._units(suite, at, case, spec, scorers) if offer and not missing else {}
        windows = windows_of(suite, number, case)
        if len(self.errors) > before and offer is None:  # else its options are looked at too: all mistakes at once
            return None
        requires = {key: value for key, value in case.requires if value is not None}
        missing = f"environment variable {missing} is not set" if missing else ""
        devices, unmet = ((), "") if missing else self._machine(backend, requires)
        point = Point(
            id="",
            suite=suite.suite,
            suite_file=suite.file,
            case=number,
            label=case.name or case.workload,
            workload=case.workload,
            backend=backend,
            meters=meters,
            scorers=scorers,
            trials=at_most(case.trials or suite.trials),
            precision=precision(case.trials or suite.trials, suite, units),
            seed=suite.seed,
            windows=windows,
            warm_up=suite.warm_up,
            cool_down=suite.cool_down,
            idle_seconds=suite.idle_seconds,
            limits=suite.limits,
            functional_units=units,
            requires=requires,
            power_cap=suite.power_cap,
            foreign_load=suite.foreign_load,
            devices=devices,
        )
        plugin = str(offer.plugin) if offer else ""
        place = f"{suite.file}, {path_text(at)}"
        return matrix.Shared(suite, number, case, spec, plugin, point, identity(point), missing, unmet, place)

    def _offer(self, suite: Suite, path: Keys, kind: str, name: str) -> Offer | None:
        try:
            return self.registry.get(kind, name)
        except UsageError as error:
            self._refuse(suite, path, error)
            return None

    def _choice(self, suite: Suite, path: Keys, kind: str, named: Named) -> Choice:
        if unset(named.name):
            return Choice(named.name, dict(named.options))
        offer = self._offer(suite, path, kind, named.name)
        if offer is None:
            return Choice(named.name)
        base = (*path, *named.keys)
        inner = suite.document.at(base)
        place: Place = lambda loc: base + real_path(inner, loc)  # noqa: E731 - a name for its type
        raw: Mapping[str, Any] = named.options
        try:
            raw = placed(raw, offer.spec, self._place, self.registry)
        except UsageError as error:
            self._refuse(suite, (*base, PLACE), error)
        if takes_place(offer.spec) and (self._lost or raw is named.options):  # told once, and not as what it lacks
            return Choice(named.name, dict(raw))
        options = self._validated(suite, offer.spec.options, str(offer.plugin), raw, place)
        return Choice(named.name, options if options is not None else dict(named.options))

    def _listed(self, suite: Suite, path: Keys, kind: str, named: Sequence[Named]) -> tuple[Choice, ...]:
        first: dict[str, int] = {}
        for number, each in enumerate(named):
            if first.setdefault(meant(self.registry, kind, each.name), number) != number:
                message = f"the {kind} {each.name!r} is listed twice"
                self.errors.append(suite.document.error((*path, number), message, accepted="each once"))
        return tuple(
            self._choice(suite, (*path, number), kind, each) if each.name != AUTO or kind != "meter" else Choice(AUTO)
            for number, each in enumerate(named)
        )

    def _meters(self, suite: Suite, path: Keys, named: Sequence[Named]) -> tuple[Choice, ...]:
        """The choices with `auto` expanded; impact meters and cross-checks alone imply it, since they need energy."""
        for number, each in enumerate(named):
            if each.name == AUTO and each.options:
                self.errors.append(suite.document.error((*path, number), "'auto' takes no options"))
        listed = self._listed(suite, path, "meter", named)
        listed += implied(listed, self._place, self.registry)
        impacts = [offer.spec for offer in known_offers(self.registry, "meter", listed)]
        needy = [isinstance(spec, ImpactMeterSpec) or spec.cross_check for spec in impacts]
        if listed and len(needy) == len(listed) and all(needy):
            listed = (Choice(AUTO), *listed)
        try:
            order_impacts([spec for spec in impacts if isinstance(spec, ImpactMeterSpec)])
        except UsageError as error:
            self.errors.append(suite.document.error(path, error.message, hint=error.hint))
        chosen: list[Choice] = []
        for choice in listed:
            if choice.name != AUTO:
                chosen.append(choice)
                continue
            try:
                chosen.extend(automatic(self.registry, {bare(one.name) for one in listed}))
            except UsageError as error:
                self.errors.append(suite.document.error(path, error.message, accepted=error.accepted))
        return tuple(chosen)

    def _units(
        self, suite: Suite, at: Keys, case: Case, spec: WorkloadSpec, scorers: Sequence[Choice]
    ) -> dict[str, dict[str, Any]]:
        """The case's functional units, or those of the workload whose columns are filled here."""
        scored = [column for offer in known_offers(self.registry, "scorer", scorers) for column in offer.spec.columns]
        known = {column.name for column in (*COMMON_COLUMNS, *spec.columns, *scored)}
        if not case.functional_units:
            return default_units(spec.functional_units, known)
        for name, unit in case.functional_units.items():
            path = (*at, "functional_units", name)
            if unit.sum not in known | {"items"}:
                self._fault(suite, (*path, "sum"), f"there is no column {unit.sum!r} to sum", known | {"items"})
            for column in unit.where:
                if column not in known:
                    message = f"there is no column {column!r}"
                    accepted = ", ".join(sorted(known))
                    hint = did_you_mean(column[:100], known)
                    where = (*path, "where", column)
                    self.errors.append(suite.document.error(where, message, accepted=accepted, hint=hint, key=True))
        return {
            name: {"sum": unit.sum, "where": dict(unit.where), **({"span": unit.span} if unit.span else {})}
            for name, unit in case.functional_units.items()
        }

    def _machine(self, backend: Choice, requires: Mapping[str, Any]) -> tuple[tuple[Mapping[str, Any], ...], str]:
        """The devices of a backend, and why they do not do."""
        if self.probes is None or self.errors:
            return (), ""
        key = canonical([backend.name, backend.options])
        if key not in self._probed:
            self._probed[key] = self.probes(backend)
        found = self._probed[key]
        if isinstance(found, Unavailable):
            return (), f"backend {backend.name}: {found.reason}"
        return tuple(dataclasses.asdict(device) for device in found), unmet(found, requires)

    def _on_backend(self, setting: matrix.Shared, value: Any, combination: matrix.Combination) -> matrix.Shared | None:
        """What the points of a case share on one backend of its matrix; None where that is wrong, told once."""
        key = repr(value)
        if key in setting.on:
            return setting.on[key]
        setting.on[key] = None
        suite = setting.suite
        path = matrix.place_of(suite.document, setting.number, setting.case, combination)((matrix.BACKEND,))
        try:
            named = as_named(value)
        except ValueError as error:
            self.errors.append(suite.document.error(path, str(error)))
            return None
        before = len(self.errors)
        choice = self._choice(suite, path, "backend", named)
        self._runs_on(suite, path, setting.spec, choice)
        if len(self.errors) > before:
            return None
        waits = setting.missing or any(unset_in(value))
        devices, unmet = ((), "") if waits else self._machine(choice, setting.point.requires)
        point = dataclasses.replace(setting.point, backend=choice, devices=devices)
        setting.on[key] = dataclasses.replace(setting, point=point, identify=identity(point), unmet=unmet)
        return setting.on[key]

    def _runs_on(self, suite: Suite, path: Keys, spec: WorkloadSpec, backend: Choice) -> None:
        if spec.backends and bare(backend.name) not in spec.backends and not unset(backend.name):
            message = f"the workload {spec.name!r} does not run on the backend {backend.name!r}"
            self._fault(suite, path, message, set(spec.backends))

    # Points

    def _points(self, setting: matrix.Shared) -> None:
        case, document = setting.case, setting.suite.document
        for number, entry in enumerate(case.exclude):
            for key in sorted(entry.keys() - case.matrix.keys()):
                path = ("cases", setting.number, "exclude", number, key)
                accepted, hint = ", ".join(case.matrix) or "none", did_you_mean(key[:100], case.matrix)
                message = f"{short(key)} is not a key of the matrix"
                self.errors.append(document.error(path, message, accepted=accepted, hint=hint, key=True))
        made = matrix.size(case.matrix, case.include)
        if made * (len(case.include) + len(case.exclude)) > _LIMIT_COMPARISONS:
            message = f"{made} combinations times {len(case.include) + len(case.exclude)} include and exclude entries"
            self.errors.append(document.error(("cases", setting.number), message, accepted="fewer"))
            return
        combined = matrix.combinations(case.matrix, case.include, case.exclude)
        if not combined:
            self.errors.append(document.error(("cases", setting.number, "exclude"), "every combination is excluded"))
        for combination in combined:
            if len(self.errors) > _LIMIT_ERRORS:
                return
            self._point(setting, combination)

    def _point(self, setting: matrix.Shared, combination: matrix.Combination) -> None:
        suite, case = setting.suite, setting.case
        raw = {**case.options, **combination.values}
        unset = next(unset_in(raw), None) if suite.document.unset else None
        reason = f"environment variable {unset} is not set" if unset else setting.missing
        if setting.varies_backend and matrix.BACKEND in combination.values:
            found = self._on_backend(setting, raw.pop(matrix.BACKEND), combination)
            if found is None:
                return
            setting = found
        reason = reason or setting.unmet
        place = matrix.place_of(suite.document, setting.number, case, combination)
        options = self._validated(suite, setting.spec.options, setting.plugin, raw, place) if setting.plugin else raw
        if options is None:
            return
        identity_of = setting.identify(options)  # as written: it is the same point in another checkout
        checks = setting.plugin and setting.spec.check is not None and not unset
        if checks and (options := self._checked(setting, raw, place)) is None:
            return
        values = matrix.told(combination.values) if setting.varies_backend else combination.values
        varied = ", ".join(f"{key}={shown(value)}" for key, value in values.items())
        label = f"{setting.point.label} · {varied}" if varied else setting.point.label
        key = id(suite), setting.number
        if key not in self._at_home:
            self._at_home[key] = self._located(suite, setting.point.meters)
        point = dataclasses.replace(
            setting.point, id=identity_of, label=label, options=options, matrix=values, meters=self._at_home[key]
        )
        if setting.plugin and not case.functional_units and not unset:
            point = by_options(setting.spec, point)
        if point.id not in self._places:
            self._places[point.id] = setting.place
        else:
            message, hint = f"{label!r} is the same point as one before", f"the first is in {self._places[point.id]}"
            self.errors.append(suite.document.error(("cases", setting.number), message, hint=hint))
        if reason:
            self.plan.skipped.append(Skipped(point, reason))
        else:
            self.plan.points.append(point)

    def _validated(
        self, suite: Suite, model: type[BaseModel], plugin: str, raw: Mapping[str, Any], place: Place
    ) -> dict[str, Any] | None:
        """Options as the plugin's model has them; as written where a variable is not set; None if they are wrong."""
        options, found = validated(suite.document, model, plugin, raw, place)
        self.errors.extend(found)
        return options

    def _located(self, suite: Suite, meters: tuple[Choice, ...]) -> tuple[Choice, ...]:
        """Meters with absolute paths; as they are where a file is missing or a variable is not set."""
        try:
            return meters if suite.document.unset or self.errors else located(meters, suite.file, self.registry)
        except UsageError as error:
            self.errors.append(suite.document.error(("meters",), error.message, accepted=error.accepted))
        return meters

    def _checked(self, setting: matrix.Shared, raw: Mapping[str, Any], place: Place) -> dict[str, Any] | None:
        """Options with absolute paths; None if their workload objects to them."""
        suite = setting.suite
        here = self.probes is not None
        options, found = checked(setting.spec, setting.plugin, raw, suite.file, here=here)
        for fault in found:
            told = suite.document.error(
                place((fault.option,) if fault.option else ()), fault.message, accepted=fault.accepted, hint=fault.hint
            )
            if str(told) not in map(str, self.errors):
                self.errors.append(told)
        return None if found else options


def _no_factory(_options: object) -> Any:
    raise AssertionError("a stand-in for an unset name is never made")
