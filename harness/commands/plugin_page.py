"""The body of `harness plugins NAME`: the plugin specs of one name, with options, columns, units and conditions."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from harness.commands.streams import captured
from harness.discovery.option_table import PARSED, OptionRow, OptionTable, option_tables, schema_of
from harness.discovery.registry import Offer, Registry
from harness.impact import ImpactMeterSpec
from harness.meter import MeterSpec
from harness.options import sentence
from harness.scorer import ScorerSpec
from harness.workload import WorkloadSpec

_WIDEST: Final = 100
"""Columns of text that are still read with ease."""
_IN_ASCII: Final = str.maketrans({
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{MICRO SIGN}": "u",
    "\N{EN DASH}": "-",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{MIDDLE DOT}": "*",
    "\N{SUPERSCRIPT TWO}": "2",
})  # fmt: skip
"""What stands for a sign that the terminal does not know."""
_DEFAULTS: Final = {"": "", "null": "optional"}
_BETTER: Final = {True: "higher is better", False: "lower is better", None: ""}


def page(registry: Registry, name: str, *, probe: bool, as_json: bool) -> str:
    """The plugin specs of a name, in each of its kinds; those of a distribution are all that it has.

    Raises:
        UsageError: nothing has that name; says what is near.
        PluginError: the plugin of that name does not load.
    """
    from harness.testing.contract import chosen

    found = [
        _described(kind, offer, _verdict(registry, kind, offer) if probe else None)
        for kind, offer in chosen(registry, name)
    ]
    if as_json:
        return json.dumps(found, indent=1)
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    return "\n".join(line for each in found for line in _lines(each, width))


def _verdict(registry: Registry, kind: str, offer: Offer) -> str | None:
    """What this machine makes of the default options; None for kinds that cannot be asked."""
    name = next(spelled for spelled, each in registry.offers(kind).items() if each is offer)
    if kind in {"backend", "meter"}:
        from harness.diagnosing.survey import verdicts

        with captured():
            return verdicts(registry, name).get((kind, name))
    if kind != "workload" or offer.spec.probe is None:
        return None
    from pydantic import ValidationError

    from harness.planning.point import Choice, Point
    from harness.planning.probe import Prober

    try:
        options = offer.spec.options().model_dump(mode="json")
    except ValidationError as error:
        return f"needs options: {', '.join('.'.join(map(str, each['loc'])) or each['msg'] for each in error.errors())}"
    point = Point(id=name, suite="", label=name, workload=name, options=options, backend=Choice("host"))
    return Prober().workloads([point], registry).get(name, "can run")


def _described(kind: str, offer: Offer, verdict: str | None) -> dict[str, Any]:
    """A plugin spec as JSON values; keys that its kind does not have are left out."""
    spec = offer.spec
    found: dict[str, Any] = {
        "kind": "impact meter" if isinstance(spec, ImpactMeterSpec) else kind,
        "name": spec.name,
        "summary": spec.summary,
        "plugin": offer.plugin.name,
        "distribution": offer.plugin.distribution,
        "version": offer.plugin.version,
        "conditions": [*_conditions(kind, spec), *([f"on this machine: {verdict}"] if verdict else [])],
    }
    if kind != "command":
        found["options"] = [asdict(table) for table in option_tables(schema_of(spec.options))]
    if isinstance(spec, WorkloadSpec | ScorerSpec):
        found["columns"] = [
            {"name": each.name, "unit": each.unit, "better": _BETTER[each.higher_is_better], "meaning": each.summary}
            for each in spec.columns
        ]
    if isinstance(spec, WorkloadSpec):
        found["functional_units"] = {name: str(unit) for name, unit in spec.functional_units.items()}
    if isinstance(spec, ImpactMeterSpec):
        found["readings"] = dict(spec.yields)
    return found


def _conditions(kind: str, spec: Any) -> Iterator[str]:
    if isinstance(spec, WorkloadSpec):
        yield f"runs on {'backend ' + ', '.join(spec.backends) if spec.backends else 'any backend'}"
        if spec.modelled:
            yield "its numbers come from a model of the hardware"
    elif isinstance(spec, ImpactMeterSpec):
        yield f"needs the reading {', '.join(spec.needs)}" if spec.needs else "needs no reading"
    elif isinstance(spec, MeterSpec):
        yield "tried by `auto`" if spec.auto else "used where a suite names it"
        if spec.cross_check:
            yield "a cross-check: its readings never count"
    elif kind == "executor" and spec.remote:
        yield "its trials run on other machines and cannot be gated"
    elif kind == "command":
        yield f"called as `harness {spec.name}`; `harness {spec.name} --help` shows its options"


def _lines(found: Mapping[str, Any], width: int) -> Iterator[str]:
    yield f"{found['kind']} {found['name']}"
    yield from _wrapped(sentence(found["summary"]), 2, width)
    yield from _wrapped(f"from {found['distribution']} {found['version']}".rstrip(), 2, width)
    for condition in found["conditions"]:
        yield from _wrapped(condition, 2, width)
    yield ""
    for table in found.get("options", ()):
        rows = tuple(OptionRow(**row) for row in table["rows"])
        yield from _options(OptionTable(table["name"], table["meaning"], rows), width)
    if found.get("columns"):
        yield "  columns of its work items"
        for column in found["columns"]:
            yield from _entry(column["name"], [column["unit"], column["better"]], column["meaning"], width)
        yield ""
    for title, key in (("default functional units", "functional_units"), ("readings", "readings")):
        if found.get(key):
            yield f"  {title}"
            for name, value in found[key].items():
                yield from _wrapped(f"{name}: {f'sum of {value}' if key == 'functional_units' else value}", 4, width)
            yield ""


def _options(table: OptionTable, width: int) -> Iterator[str]:
    if table.name:
        yield from _wrapped(f"{table.name}: {table.meaning}", 2, width)
    else:
        yield "  options"
    for row in table.rows:
        unit = "" if row.unit in PARSED else f"in {row.unit}".removesuffix("in ")
        default = "required" if row.required else _DEFAULTS.get(row.default, f"default {row.default}")
        yield from _entry(row.key, [row.type, unit, default], row.meaning, width)
    yield ""


def _entry(name: str, facts: list[str], meaning: str, width: int) -> Iterator[str]:
    yield from _wrapped(f"{name}: {', '.join(filter(None, facts))}", 4, width)
    yield from _wrapped(sentence(meaning), 8, width, hanging=0)


def _wrapped(text: str, indent: int, width: int, *, hanging: int = 4) -> list[str]:
    first, rest = " " * indent, " " * (indent + hanging)
    return textwrap.wrap(_shown(text), width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _shown(text: str) -> str:
    """The text as standard output can show it: one without Unicode gets other signs in their place."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_IN_ASCII).encode(encoding, "replace").decode(encoding)
    return text
