"""The parts of a report around its results: header, coverage, cross-checks, conditions, factors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any, Final

from harness.impact import Factor
from harness.records.cross_checks import cross_checks
from harness.records.paths import RUN
from harness.records.record import Record
from harness.records.summary import RunReport
from harness.reporting.tables import Item, Section, Table
from harness.reporting.wording import counted, listed, percent, sensor_error
from harness.units import si

CHECK_LIMIT: Final = 0.05
"""Meters of one scope that differ by more are warned of (zeus issue 181 shows why)."""
DETAILS: Final = 3
"""So many details of one kind of condition are told one by one."""
WHERE: Final = "records"
"""The line of the header that says where the records lie on this machine."""
LEAST_COVERAGE: Final = 0.95
"""A reading whose valid time is below this share of its window is warned of."""


def header(report: RunReport) -> list[tuple[str, str]]:
    """What was compared, on which machine, and where it is kept."""
    run = report.run
    trials = len(report.records)
    left_out = sum(len(point.left_out) for point in report.points)
    suites = [str(path) for path in run.get("suite_files", ())] or sorted({point.suite for point in report.points})
    compared = f"{counted(len(report.points), 'point')}, {counted(trials, 'trial')}"
    extra = [
        f"{number} {word}"
        for number, word in (
            (left_out, "left out as not valid"),
            (len(report.failures), "failed or missing"),
            (len(report.skipped), "skipped"),
        )
        if number
    ]
    lines = [
        ("compared", f"{listed([point.label for point in report.points], 6)}"),
        ("size", compared + (f" ({', '.join(extra)})" if extra else "")),
        ("suites", ", ".join(suites)),
        (
            "run",
            f"{run.get('started_utc', '?')} to {run.get('finished_utc') or '?'}, {run.get('status', 'no ' + RUN)}",
        ),
    ]
    lines += [("machine", text) for text in dict.fromkeys(_machine(r.measurement.environment) for r in report.records)]
    lines += [("devices", text) for text in dict.fromkeys(map(_devices, report.records))]
    lines += [
        ("models", text) for text in dict.fromkeys(t for r in report.records for t in _models(r.measurement.workload))
    ]
    lines += [("sources", text) for text in revisions(run)]
    lines += [("precision", str(each.get("text", ""))) for each in run.get("precision", ()) if isinstance(each, dict)]
    lines.append((WHERE, str(report.folder)))
    return [(name, text) for name, text in lines if text]


def revisions(run: Mapping[str, Any]) -> list[str]:
    """The source trees of a run, the working folder's first: project, revision, branch and whether it was changed."""
    said = run.get("provenance")
    if not isinstance(said, Mapping):
        return []
    listed = [said.get("working_folder"), *_values(said.get("sources"))]
    return list(dict.fromkeys(tree_text(tree) for tree in listed if isinstance(tree, Mapping) and tree))


def tree_text(tree: Mapping[str, Any]) -> str:
    """A source tree in words."""
    project = str(tree.get("project", "?"))
    if not tree.get("revision"):
        return f"{project}: revision not known: {tree.get('unknown', 'no reason was recorded')}"
    states = {True: "with uncommitted changes", False: "clean", None: "as installed"}
    state = states.get(tree.get("dirty"), "")
    branch = f"branch {tree['branch']}" if tree.get("branch") else ""
    return ", ".join(filter(None, (f"{project} {str(tree['revision'])[:12]}", branch, state)))


def _values(mapping: object) -> list[object]:
    return list(mapping.values()) if isinstance(mapping, Mapping) else []


def _machine(environment: Mapping[str, Any]) -> str:
    """Processor, cores, memory and system; what the record does not hold is not mentioned."""
    parts = []
    if environment.get("cpu"):
        parts.append(str(environment["cpu"]))
    cores = environment.get("cores_allowed") or environment.get("cores_logical")
    if cores:
        parts.append(counted(int(cores), "core"))
    if environment.get("cpu_limit"):
        parts.append(f"limited to {environment['cpu_limit']:g} cores")
    if environment.get("memory_bytes"):
        parts.append(si(float(environment["memory_bytes"]), "B"))
    if environment.get("virtualised"):
        parts.append("virtual machine")
    parts += [" ".join(str(environment[key]) for key in ("system", "kernel") if environment.get(key))]
    if environment.get("python"):
        parts.append(f"Python {environment['python']}")
    return ", ".join(part for part in parts if part)


def _devices(finished: Record) -> str:
    measurement = finished.measurement
    backend = measurement.backend.get("name")
    devices = ", ".join(f"{device.name} ({device.kind} {device.uuid})" for device in measurement.devices)
    return f"{devices} by backend {backend}" if backend and devices else devices


def _models(facts: Mapping[str, Any]) -> Iterator[str]:
    """Models that a workload says it ran: mappings with a `source` and a number of `parameters`, however deep."""
    if "source" in facts and isinstance(facts.get("parameters"), int):
        text = f"{facts['source']}: {facts['parameters']:,} parameters"
        if isinstance(facts.get("perplexity"), float):
            text += f", held-out perplexity {facts['perplexity']:.1f} per token"
        yield text + (", its training was cut short by the time cap" if facts.get("time_cap_struck") else "")
    for value in facts.values():
        if isinstance(value, Mapping):
            yield from _models(value)


def coverage(report: RunReport) -> Section | None:
    """Which scopes the energy covers, by which meter, and for which part of the time."""
    least: dict[tuple[str, str, str, str, str], float | None] = {}
    for finished in report.records:
        scopes = finished.measurement.scopes
        for reading in finished.measurement.readings:
            if not reading.primary or reading.span != "window" or reading.scope not in scopes:
                continue
            scope = scopes[reading.scope]
            gain = sensor_error(scope)
            key = (reading.scope, reading.meter, scope.method.value, gain, scope.note)
            before = least.get(key)
            known = [share for share in (before, reading.coverage) if share is not None]
            least[key] = min(known) if known else None
    rows = [
        [
            *key[:4],
            "not known" if share is None else f"{share * 100:.1f} %" + (" LOW" if share < LEAST_COVERAGE else ""),
            key[4],
        ]
        for key, share in least.items()
    ]
    columns = ["scope", "meter", "method", "gain", "time covered", "note"]
    return Section("What the energy covers", Table(columns, rows)) if rows else None


def checks(report: RunReport) -> Section | None:
    """Second meters against the primary one of their scope."""
    rows = check_rows(report)
    columns = ["scope", "primary", "check", "difference", "trials", "n", "remark"]
    return Section("Cross-checks", Table(columns, rows)) if rows else None


def check_rows(report: RunReport) -> list[list[str]]:
    """Per scope and second meter: how far it lies from the primary one, and whether that is too far."""
    rows = []
    for check in cross_checks(report.records):
        if check.difference is None or check.spread is None:
            rows.append([check.scope, check.primary, check.check, "none", "", "0", check.note])
            continue
        least, greatest = check.spread
        beyond = max(abs(least), abs(greatest)) > CHECK_LIMIT
        remark = f"WARNING: beyond {CHECK_LIMIT * 100:.0f} %" if beyond else "agrees"
        between = f"{least * 100:+.1f} % to {greatest * 100:+.1f} %" if check.n > 1 else ""
        rows.append(
            [check.scope, check.primary, check.check, f"{check.difference * 100:+.1f} %", between, str(check.n), remark]
        )
    return rows


def conditions(report: RunReport) -> Section | None:
    """What was seen on the devices, and what the harness flagged, with how often."""
    seen: dict[tuple[str, bool], Counter[str]] = {}
    in_trials: dict[tuple[str, bool], Counter[str]] = {}
    flagged: Counter[str] = Counter()
    for finished in report.records:
        for condition in finished.measurement.conditions:
            key = (f"{condition.kind} on {condition.scope}", condition.fails)
            seen.setdefault(key, Counter())[condition.detail] += condition.count
            in_trials.setdefault(key, Counter())[condition.detail] += 1
        flagged.update(flags(finished))
    items = [
        Item(
            key[0],
            f"{text}; seen {counted(number, 'time')} in {counted(trials, 'trial')}"
            + (": makes a trial not valid" if key[1] else ""),
        )
        for key in seen
        for text, number, trials in _told(seen[key], in_trials[key])
    ]
    items += [Item(flag, f"in {counted(number, 'trial')} of {len(report.records)}") for flag, number in flagged.items()]
    return Section("Conditions", items=items) if items else None


def load(report: RunReport) -> Section | None:
    """Per point: what of the machine's processor time the work had, and what others had beside it."""
    rows = []
    for point in report.points:
        loads = [each for r in point.records for each in r.measurement.loads if each.machine_s and not each.unknown]
        if not loads:
            continue
        shares = [
            [(value or 0.0) / (each.machine_s or 1.0) for each in loads for value in [getattr(each, name)]]
            for name in ("own_s", "others_s", "stolen_s")
        ]
        rows.append([point.label, *(f"{percent(median(each))}, at most {percent(max(each))}" for each in shares)])
    columns = ["point", "the work", "other processes", "a hypervisor's other guests"]
    note = "Of the processor time of all logical CPUs over the windows: the median window, and the greatest."
    return Section("Load of the machine", Table(columns, rows), paragraphs=[note]) if rows else None


def _told(seen: Counter[str], in_trials: Counter[str]) -> list[tuple[str, int, int]]:
    """Details of one kind of condition, how often and in how many trials; many that differ in their numbers as one."""
    if len(seen) <= DETAILS:
        return [(detail, number, in_trials[detail]) for detail, number in seen.items()]
    text = f"{next(iter(seen))}, and {len(seen) - 1} more such"
    return [(text, seen.total(), in_trials.total())]


def flags(finished: Record) -> list[str]:
    """The flags of a trial, each once."""
    measurement = finished.measurement
    found = [*finished.flags, *measurement.flags]
    found += [flag for span in measurement.windows for flag in span.flags]
    found += [
        f"{reading.scope}: {flag}" for reading in measurement.readings if reading.primary for flag in reading.flags
    ]
    return list(dict.fromkeys(found))


def factors_of(report: RunReport) -> list[Factor]:
    """Every factor that turned energy into an impact, once, in order of its use."""
    distinct: dict[str, Factor] = {}
    for finished in report.records:
        for factor in finished.factors:
            distinct.setdefault(factor.id or repr(factor), factor)
    return list(distinct.values())


def factor_text(factor: Factor) -> str:
    """A factor with its source, in a line."""
    value = "a range or series" if factor.value is None else f"{factor.value:g}"
    unit = "" if factor.unit == "1" or factor.value is None else f" {factor.unit}"
    return f"{factor.name} {value}{unit} ({factor.source or 'NO SOURCE'})"


def factors(report: RunReport) -> Section | None:
    """Every factor, numbered, with where it comes from."""
    lines = []
    for place, factor in enumerate(factors_of(report), start=1):
        more = [f"licence {factor.licence or 'not stated'}", f"date {factor.date or 'not stated'}"]
        more += [f"id {factor.id}"] if factor.id else []
        lines.append(f"({place}) {factor_text(factor)}; {'; '.join(more)}")
    return Section("Factors", paragraphs=lines) if lines else None
