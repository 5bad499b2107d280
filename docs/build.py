"""Writes the reference under `docs/` from the code: run by `make docs`; `--check` says which pages are stale.

Only the plugins of this repository are described, whatever else is installed: the pages are the same everywhere.
`--session` runs the suite of the README instead, and puts what the terminal showed into the README.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

from harness import hookspecs
from harness.cli import app
from harness.discovery.registry import KINDS, Offer, Registry
from harness.errors import ExitCode
from harness.impact import ImpactMeterSpec
from harness.planning.json_schema import json_schema
from harness.planning.suite import Suite
from harness.quantity import Method
from harness.workload import COMMON_COLUMNS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs"
SESSION = "<!-- session -->", "<!-- end of session -->"
SCHEMA = "suite.schema.json"
NOTE = "<!-- Written by docs/build.py from the code; `make docs` writes it anew. -->\n\n"


def own_plugins() -> Registry:
    """The offers of the core and of `plugins/`, by their project files and not by what is installed."""
    registry = Registry()
    for file in [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        for name, module in project.get("entry-points", {}).get("harness", {}).items():
            registry.register(importlib.import_module(module), name, distribution=project["name"])
    if registry.broken:
        raise RuntimeError("; ".join(map(str, registry.broken)))
    return registry


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; empty where it has no rows."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    if not cells:
        return ""
    lines = [head, ["---"] * len(head), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def code(text: object) -> str:
    """Text as code; empty for none."""
    return f"`{text}`" if str(text) else ""


def kind_of(schema: Mapping[str, Any]) -> str:
    """The type of a JSON Schema, in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2].rpartition(".")[2]
    if "enum" in schema:
        return ", ".join(map(json.dumps, schema["enum"]))
    if "const" in schema:
        return json.dumps(schema["const"])
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(kind_of(each) for each in schema[word]))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {kind_of(schema.get('items', {}))}"
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join([kind, *(f"{sign} {schema[name]}" for name, sign in limits.items() if name in schema)])


def keys(schema: Mapping[str, Any]) -> str:
    """The keys of an object's JSON Schema as a table, with those of the objects inside."""
    rows = []
    required = set(schema.get("required", ()))
    for name, each in schema.get("properties", {}).items():
        default = "required" if name in required else code(json.dumps(each["default"])) if "default" in each else ""
        rows.append([code(name), kind_of(each), default, each.get("description", "")])
    return table(["key", "type", "default", "meaning"], rows)


def options(model: type[Any]) -> str:
    """The options of an offer: its table, then one for each object inside."""
    schema = model.model_json_schema()
    text = keys(schema)
    for name, inner in schema.get("$defs", {}).items():
        if inner.get("properties"):
            text += f"`{name}`: {first(inner.get('description', ''))}\n\n{keys(inner)}"
    return text


def first(text: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((text or "").strip().partition("\n\n")[0].split())


def attributes(kind: type[Any]) -> str:
    """The `Attributes:` of a class's docstring as a table."""
    section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return table(["field", "meaning"], ([code(name), " ".join(text.split())] for name, text in found))


def hooks(_registry: Registry) -> str:
    """Hooks and the specs they yield."""
    text = "# Hooks\n\n" + first(hookspecs.__doc__) + " "
    text += (
        "A plugin is a module with `@hookimpl` functions, named by an entry point in group `harness`.\n\n## Offers\n\n"
    )
    yielded = dict(KINDS.values())
    names = [name for name in vars(hookspecs) if name.startswith("harness_")]
    text += table(
        ["hook", "yields", "meaning"],
        ([code(n), ", ".join(code(t.__name__) for t in yielded[n]), first(getattr(hookspecs, n).__doc__)]
         for n in names if n in yielded),
    )  # fmt: skip
    text += "## News\n\nTold after the fact; what they return is ignored.\n\n"
    text += table(
        ["hook", "arguments", "meaning"],
        ([code(n), ", ".join(map(code, inspect.signature(getattr(hookspecs, n)).parameters)),
          first(getattr(hookspecs, n).__doc__)] for n in names if n not in yielded),
    )  # fmt: skip
    for kind in dict.fromkeys(kind for types in yielded.values() for kind in types):
        text += f"## `{kind.__name__}`\n\n{first(kind.__doc__)}\n\n{attributes(kind)}"
    return text


def suites(_registry: Registry) -> str:
    """The keys of a suite."""
    schema = Suite.model_json_schema()
    text = "# Suites\n\n"
    text += (
        "A suite is a YAML file. Any number, switch or fixed word may also be `${env:NAME}`. Editors read "
        f"[{SCHEMA}]({SCHEMA}), which holds the options of this repository's plugins; `harness schema` prints it for "
        "the plugins that are installed.\n\n"
    )
    text += keys(schema)
    for name, each in schema["$defs"].items():
        text += f"## `{name}`\n\n{first(each.get('description', ''))}\n\n{keys(each)}"
    return text


def columns(listed: Iterable[Any]) -> str:
    """Columns of work items."""
    better = {True: "higher", False: "lower", None: ""}
    return table(
        ["column", "unit", "better", "meaning"],
        ([code(each.name), each.unit, better[each.higher_is_better], each.summary] for each in listed),
    )


def head(name: str, offer: Offer) -> str:
    """Name, summary and distribution of an offer."""
    return f"## `{name}`\n\n{offer.spec.summary} ({offer.plugin.distribution})\n\n"


def workloads(registry: Registry) -> str:
    """Workloads and scorers with columns and options."""
    text = "# Workloads and scorers\n\nEvery work item may carry these columns besides `item_id` and `status`:\n\n"
    text += columns(COMMON_COLUMNS)
    for name, offer in registry.workloads.items():
        spec = offer.spec
        text += head(name, offer) + f"Runs on {', '.join(map(code, spec.backends)) or 'any backend'}.\n\n"
        text += columns(spec.columns)
        units = spec.functional_units.items()
        text += table(
            ["default functional unit", "sum of", "where"],
            ([code(unit), code(each.sum), " and ".join(code(condition) for condition in each.where)]
             for unit, each in units),
        )  # fmt: skip
        text += options(spec.options)
    for name, offer in registry.scorers.items():
        text += (
            head(name, offer).replace("## ", "## Scorer ") + columns(offer.spec.columns) + options(offer.spec.options)
        )
    return text


def meters(registry: Registry) -> str:
    """Meters and impact meters with options."""
    text = "# Meters\n\n`auto` in a suite tries the meters that are marked so; the others are asked for by name.\n\n"
    for name, offer in registry.meters.items():
        spec = offer.spec
        text += head(name, offer)
        if isinstance(spec, ImpactMeterSpec):
            text += f"An impact meter: needs {', '.join(map(code, spec.needs)) or 'no reading'}.\n\n"
        elif spec.auto or spec.cross_check:
            text += "Tried by `auto`.\n\n" if spec.auto else "A cross-check: its readings never count.\n\n"
        text += options(spec.options)
    return text


def machines(registry: Registry) -> str:
    """Backends and executors with options."""
    text = "# Backends and executors\n\n"
    for name, offer in registry.backends.items():
        text += head(name, offer).replace("## ", "## Backend ") + options(offer.spec.options)
    for name, offer in registry.executors.items():
        text += head(name, offer).replace("## ", "## Executor ")
        text += "Its trials run on other machines and cannot be gated.\n\n" if offer.spec.remote else ""
        text += options(offer.spec.options)
    return text


def metrics(registry: Registry) -> str:
    """Readings by name and unit, and the methods they are labelled with."""
    text = "# Metrics\n\nReadings of the core, and those that impact meters add. "
    text += "What is no ratio is also given per functional unit.\n\n"
    rows = [
        ["`duration_s`", "s", "the core"],
        ["`energy_j`", "J", "the core, from the primary meter of each scope"],
        ["`power_w`", "W", "the core: energy over time; never divided by a functional unit"],
    ]
    for name, offer in registry.meters.items():
        if isinstance(offer.spec, ImpactMeterSpec):
            rows += [
                [code(reading), unit, f"{code(name)}, a ratio" if reading in offer.spec.ratios else code(name)]
                for reading, unit in offer.spec.yields.items()
            ]
    text += table(["reading", "unit", "from"], rows)
    text += "## Methods\n\nHow a value was obtained. A total is labelled by its weakest part; 0 is the strongest.\n\n"
    return text + table(["method", "weakness"], ([code(each.value), str(each.weakness)] for each in Method))


def exit_codes(_registry: Registry) -> str:
    """The exit codes of the command."""
    rows = ([str(each.value), code(each.name)] for each in ExitCode)
    return "# Exit codes\n\nCONTRIBUTING says when each is used.\n\n" + table(["code", "name"], rows)


def commands(registry: Registry) -> str:
    """The commands of the core with their arguments and options, and those of plugins."""
    text = "# Commands\n\n"
    group: Any = typer.main.get_command(app)
    for name, command in sorted(group.commands.items()):
        text += f"## `harness {name}`\n\n{first(command.help)}\n\n"
        rows = []
        for each in command.params:
            shown = (
                ", ".join([*each.opts, *each.secondary_opts]) if each.param_type_name == "option" else each.name.upper()
            )
            if shown != "--help":
                rows.append([code(shown), getattr(each, "help", "") or ""])
        text += table(["argument", "meaning"], rows)
    rows = [[code(f"harness {n}"), o.spec.summary, o.plugin.distribution] for n, o in registry.commands.items()]
    return text + "## Of plugins\n\n" + table(["command", "meaning", "distribution"], rows)


PAGES = {
    "hooks.md": hooks,
    "suites.md": suites,
    "workloads.md": workloads,
    "meters.md": meters,
    "backends.md": machines,
    "metrics.md": metrics,
    "exit-codes.md": exit_codes,
    "commands.md": commands,
}


def pages() -> dict[str, str]:
    """File name -> what it should hold."""
    registry = own_plugins()
    made = {name: NOTE + write(registry).rstrip() + "\n" for name, write in PAGES.items()}
    index = "".join(f"- [{text.partition('# ')[2].partition(chr(10))[0]}]({name})\n" for name, text in made.items())
    made["README.md"] = f"{NOTE}# Reference\n\n{index}- [JSON Schema of suites]({SCHEMA})\n"
    made[SCHEMA] = json.dumps(json_schema(registry), indent=1, ensure_ascii=False) + "\n"
    return made


def stale() -> list[str]:
    """Pages that do not hold what they should."""
    return [
        name
        for name, text in pages().items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text(encoding="utf-8") != text
    ]


def session() -> None:
    """Runs the suite of the README and puts the command and what the terminal showed into the README."""
    file = ROOT / "README.md"
    readme = file.read_text(encoding="utf-8")
    suite = re.search(r"^```yaml\n(suite: example\n.*?)^```", readme, re.MULTILINE | re.DOTALL)
    if suite is None:
        raise RuntimeError("the README holds no suite named example")
    shown = ""
    with TemporaryDirectory() as folder:
        (Path(folder) / "example.yaml").write_text(suite.group(1), encoding="utf-8")
        command = [sys.executable, "-m", "harness", "run", "example.yaml"]
        environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        shown = "$ harness run example.yaml\n" + "\n".join(map(str.rstrip, done.stdout.strip().splitlines()))
    block = f"{SESSION[0]}\n```console\n{shown}\n```\n{SESSION[1]}"
    made, count = re.subn(f"{SESSION[0]}.*?{SESSION[1]}", lambda _found: block, readme, flags=re.DOTALL)
    if count != 1:
        raise RuntimeError(f"the README holds {count} places for a session")
    file.write_text(made, encoding="utf-8")


def main() -> int:
    """Writes the pages, or says which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    parser.add_argument("--session", action="store_true", help="run the README's suite and show it there")
    chosen = parser.parse_args()
    if chosen.session:
        session()
        return 0
    if chosen.check:
        found = stale()
        if found:
            sys.stderr.write(f"stale: {', '.join(found)}; `make docs` writes them anew\n")
        return int(bool(found))
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
