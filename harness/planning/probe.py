"""Asks backends and workloads, in a process of its own, whether they can run here.

A probe may import a framework or load a driver; the parent stays small and a probe that crashes costs only its answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.backend import Device
from harness.discovery.registry import Registry, load_plugins
from harness.errors import UsageError
from harness.executor import PROBE_ANSWER, ask_probe
from harness.planning.located_yaml import SuiteError, raise_all
from harness.planning.matrix import BACKEND
from harness.planning.planner import expand
from harness.planning.point import Choice, Plan, Point, Skipped, unmet
from harness.planning.suite import Suite, load_all, readable
from harness.quantity import Unavailable


class Prober:
    """Answers from child processes, each question asked once."""

    def __init__(self) -> None:
        self._backends: dict[str, list[Device] | Unavailable] = {}
        self.late: set[str] = set()
        """What was said of probes that did not answer in time."""

    def backend(self, choice: Choice) -> list[Device] | Unavailable:
        """The devices that a trial on this backend would get, or why there are none."""
        question = {"backend": {"name": choice.name, "options": dict(choice.options)}}
        key = json.dumps(question, sort_keys=True, default=str)
        if key not in self._backends:
            self._keep(question, self._asked(question))
        return self._backends[key]

    def ask_together(self, choices: Sequence[Choice]) -> None:
        """Asks for several choices of one backend in one process, so that what a probe imports is imported once.

        Where that process fails, each is asked for alone.
        """
        options = list({json.dumps(dict(each.options), sort_keys=True, default=str): each for each in choices}.values())
        if len(options) < 2:
            return
        asked = [{"name": each.name, "options": dict(each.options)} for each in options]
        answers = ask_probe({"backends": asked}).get("answers", ())
        for each, answer in zip(options, answers, strict=False):
            self._keep({"backend": {"name": each.name, "options": dict(each.options)}}, answer)

    def _keep(self, question: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        self._backends[json.dumps(question, sort_keys=True, default=str)] = (
            Unavailable(str(answer["unavailable"]))
            if "unavailable" in answer
            else [Device(**device) for device in answer["devices"]]
        )

    def workloads(self, points: Sequence[Point], registry: Registry) -> dict[str, str]:
        """Point id -> why its workload cannot run here, for the workloads that know before they start."""
        asked = [point for point in points if registry.get("workload", point.workload).spec.probe is not None]
        if not asked:
            return {}
        question = {
            "workloads": [{"id": point.id, "name": point.workload, "options": dict(point.options)} for point in asked]
        }
        answer = self._asked(question)
        if "unavailable" in answer:
            return {point.id: str(answer["unavailable"]) for point in asked}
        return {str(key): str(reason) for key, reason in answer["reasons"].items()}

    def _asked(self, question: Mapping[str, Any]) -> dict[str, Any]:
        answer = ask_probe(question)
        if answer.get("late"):
            self.late.add(str(answer["unavailable"]))
        return answer


def plan_probed(suites: Sequence[Suite], registry: Registry, *, remote: Collection[str] = ()) -> Plan:
    """The plan of suites on this machine: points whose workload says that it cannot run here are skipped.

    Args:
        suites: as loaded.
        registry: the plugins.
        remote: names of suites whose points run on other machines, so that this one is not asked.
    """
    prober = Prober()
    here = [suite for suite in suites if suite.suite not in remote]
    there = [suite for suite in suites if suite.suite in remote]
    elsewhere = expand(there, registry) if there else Plan([], [])
    if any(BACKEND in case.matrix for suite in here for case in suite.cases):
        unasked = expand(here, registry).points
        for name in dict.fromkeys(point.backend.name for point in unasked):
            prober.ask_together([point.backend for point in unasked if point.backend.name == name])
    planned = expand(here, registry, prober.backend) if here or not there else Plan([], [])
    reasons = prober.workloads(planned.points, registry)
    unable = [Skipped(point, reasons[point.id]) for point in planned.points if point.id in reasons]
    return replace(
        planned,
        points=[*(point for point in planned.points if point.id not in reasons), *elsewhere.points],
        skipped=[
            replace(each, failed=any(said in each.reason for said in prober.late))
            for each in (*planned.skipped, *elsewhere.skipped, *unable)
        ],
    )


def loaded(paths: Sequence[Path], registry: Registry) -> list[Suite]:
    """Reads suites; where one is faulty, the faults of all cases that can be read are told with it.

    Raises:
        UsageError: with every fault found, each at its place.
    """
    errors: list[UsageError] = []
    suites: list[Suite] = []
    for path in paths:
        try:
            suites += load_all([path])
        except UsageError as error:
            errors += error.errors if isinstance(error, SuiteError) else [error]
            suites += [found] if (found := readable(path)) is not None else []
    for suite in suites if errors else ():
        try:
            expand([suite], registry)
        except UsageError as error:
            errors += error.errors if isinstance(error, SuiteError) else [error]
    if errors:
        raise_all(errors)
    return suites


def _here(point: Point, registry: Registry) -> dict[str, Any]:
    """What the plan of this machine would say of one point that another machine planned and a cluster sent here."""
    spec = registry.get("backend", point.backend.name).spec
    found = spec.probe(spec.options.model_validate(dict(point.backend.options)))
    if isinstance(found, Unavailable):
        return {"unavailable": f"backend {point.backend.name}: {found.reason}"}
    # The cluster saw to the others, in its own words.
    reason = unmet(found, {key: value for key, value in point.requires.items() if key in {"gpu", "cpu", "memory"}})
    workload = registry.get("workload", point.workload).spec
    if not reason and workload.probe is not None:
        answer = workload.probe(workload.options.model_validate(dict(point.options)))
        reason = answer.reason if isinstance(answer, Unavailable) else ""
    return {"unavailable": reason} if reason else {"devices": [asdict(device) for device in found]}


def _devices(choice: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    spec = registry.get("backend", choice["name"]).spec
    found = spec.probe(spec.options.model_validate(choice["options"]))
    if isinstance(found, Unavailable):
        return {"unavailable": found.reason}
    return {"devices": [asdict(device) for device in found]}


def _answer(question: dict[str, Any], registry: Registry) -> dict[str, Any]:
    if "point" in question:
        return _here(Point.from_json(question["point"]), registry)
    if "backend" in question:
        return _devices(question["backend"], registry)
    if "backends" in question:
        return {"answers": [_devices(each, registry) for each in question["backends"]]}
    reasons = {}
    for asked in question["workloads"]:
        spec = registry.get("workload", asked["name"]).spec
        try:
            reason = spec.probe(spec.options.model_validate(asked["options"]))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - one plugin's fault skips its own points only
            reason = Unavailable(f"the probe of workload {asked['name']!r} failed: {type(error).__name__}: {error}")
        if isinstance(reason, Unavailable):
            reasons[asked["id"]] = reason.reason
    return {"reasons": reasons}


if __name__ == "__main__":
    answer = _answer(json.loads(sys.stdin.read()), load_plugins())
    print(PROBE_ANSWER + json.dumps(answer), flush=True)  # noqa: T201 - the parent reads it
