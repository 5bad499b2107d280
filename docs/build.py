"""Writes the reference under `docs/` from the code: run by `make docs`; `--check` says which pages are stale.

Only the plugins of this repository are described, whatever else is installed: the pages are the same everywhere.
CONTRIBUTING's tables of the files and folders of `harness/` are written too, from their docstrings.
`--session` runs the suite of the README instead, and puts what the terminal showed into the README.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

from harness import _HOMES, hookspecs
from harness.cli import app
from harness.discovery.option_table import OptionRow, OptionTable, option_tables
from harness.discovery.registry import KINDS, Offer, Registry
from harness.errors import ExitCode
from harness.hookspecs import CommandSpec
from harness.impact import ImpactMeterSpec
from harness.options import meanings, sentence
from harness.planning.json_schema import json_schema
from harness.planning.suite import Suite
from harness.quantity import Method
from harness.workload import COMMON_COLUMNS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs"
SESSION = "<!-- session -->", "<!-- end of session -->"
TREE = "<!-- tree -->", "<!-- end of tree -->"
SCHEMA = "suite.schema.json"
FOLDERS = {
    "tutorials": "Tutorials",
    "how-to": "How to",
    "explanations": "Explanations",
    "": "Reference",
}
_WORTH_A_TABLE = 3
"""Options that several workloads have alike stand in a table of their own from so many on."""
NOTE = "<!-- Written by docs/build.py from the code; `make docs` writes it anew. -->\n\n"


def own_plugins() -> Registry:
    """The plugin specs of the core and of `plugins/`, by their project files and not by what is installed."""
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


def option_table(listed: Iterable[OptionRow]) -> str:
    """Options, or keys of a suite, as a table."""
    return table(
        ["key", "type", "unit", "default", "meaning"],
        ([code(r.key), r.type, r.unit, "required" if r.required else code(r.default), r.meaning] for r in listed),
    )


def options(tables: Iterable[OptionTable]) -> str:
    """The options of one thing: its own table, then one for each mapping inside."""
    return "".join(
        (f"`{each.name}`: {each.meaning}\n\n" if each.name else "") + option_table(each.rows) for each in tables
    )


def tables_of(offer: Offer) -> list[OptionTable]:
    """The options of a plugin spec."""
    return option_tables(offer.spec.options.model_json_schema())


def first(text: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((text or "").strip().partition("\n\n")[0].split())


def attributes(kind: type[Any]) -> str:
    """The `Attributes:` of a class's docstring as a table."""
    return table(["field", "meaning"], ([code(name), text] for name, text in meanings(kind).items()))


def hooks(_registry: Registry) -> str:
    """Hooks and the specs they yield."""
    text = "# Hooks\n\n" + first(hookspecs.__doc__) + " "
    text += "A plugin is a module with `@hookimpl` functions, named by an entry point in group `harness`.\n\n"
    text += "## Plugin specs\n\n"
    yielded = dict(KINDS.values())
    names = [name for name in vars(hookspecs) if name.startswith("harness_")]
    text += table(
        ["hook", "yields", "meaning"],
        ([code(n), ", ".join(code(t.__name__) for t in yielded[n]), first(getattr(hookspecs, n).__doc__)]
         for n in names if n in yielded),
    )  # fmt: skip
    text += "## Notification hooks\n\nCalled after the fact; what they return is ignored.\n\n"
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
    for each in option_tables(schema):
        text += (f"## `{each.name}`\n\n{each.meaning}\n\n" if each.name else "") + option_table(each.rows)
    return text


def columns(listed: Iterable[Any]) -> str:
    """Columns of work items."""
    better = {True: "higher", False: "lower", None: ""}
    return table(
        ["column", "unit", "better", "meaning"],
        ([code(each.name), each.unit, better[each.higher_is_better], sentence(each.summary)] for each in listed),
    )


def together(rows: Mapping[str, Sequence[Any]]) -> dict[tuple[str, ...], list[Any]]:
    """Names -> the rows that these and no others have, for rows of several names; largest groups first."""
    holders: dict[Any, list[str]] = {}
    for name, listed in rows.items():
        for row in listed:
            holders.setdefault(row, []).append(name)
    groups: dict[tuple[str, ...], list[Any]] = {}
    for row, names in holders.items():
        groups.setdefault(tuple(names), []).append(row)
    return dict(sorted(groups.items(), key=lambda group: -len(group[0])))


def head(name: str, offer: Offer) -> str:
    """Name, summary and distribution of a plugin spec."""
    return f"## `{name}`\n\n{sentence(offer.spec.summary)} From {offer.plugin.distribution}.\n\n"


def family(offers: Mapping[str, Offer]) -> str:
    """The workloads of one distribution: what several have alike stands once, then each with what is its own."""
    (distribution,) = {offer.plugin.distribution for offer in offers.values()}
    found = {name: tables_of(offer) for name, offer in offers.items()}
    own = {name: next((each.rows for each in tables if not each.name), ()) for name, tables in found.items()}
    text = f"## Workloads of {distribution}\n\n"
    for names, listed in together({name: offer.spec.columns for name, offer in offers.items()}).items():
        text += f"Columns of {', '.join(map(code, names))}:\n\n" + columns(listed)
    shared = {k: v for k, v in together(own).items() if len(k) > 1 and len(v) >= _WORTH_A_TABLE}
    for names, rows in shared.items():
        text += f"Options of {', '.join(map(code, names))}:\n\n" + option_table(rows)
    for name, offer in offers.items():
        spec = offer.spec
        text += f"### `{name}`\n\n{sentence(spec.summary)}\n\n"
        text += f"Runs on {', '.join(map(code, spec.backends)) or 'any backend'}.\n\n"
        text += table(
            ["default functional unit", "sum of", "where"],
            ([code(unit), code(each.sum), " and ".join(code(condition) for condition in each.where)]
             for unit, each in spec.functional_units.items()),
        )  # fmt: skip
        above = [row for names, rows in shared.items() if name in names for row in rows]
        text += option_table(row for row in own[name] if row not in above)
    return text + options({each: None for tables in found.values() for each in tables if each.name})


def workloads(registry: Registry) -> str:
    """Workloads and scorers with columns and options."""
    text = "# Workloads and scorers\n\nEvery work item may carry these columns besides `item_id` and `status`:\n\n"
    text += columns(COMMON_COLUMNS)
    families: dict[str, dict[str, Offer]] = {}
    for name, offer in registry.workloads.items():
        families.setdefault(offer.plugin.distribution, {})[name] = offer
    text += "".join(map(family, families.values()))
    for name, offer in registry.scorers.items():
        text += head(name, offer).replace("## ", "## Scorer ")
        text += columns(offer.spec.columns) + options(tables_of(offer))
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
        text += options(tables_of(offer))
    return text


def machines(registry: Registry) -> str:
    """Backends and executors with options."""
    text = "# Backends and executors\n\n"
    for name, offer in registry.backends.items():
        text += head(name, offer).replace("## ", "## Backend ") + options(tables_of(offer))
    for name, offer in registry.executors.items():
        text += head(name, offer).replace("## ", "## Executor ")
        text += "Its trials run on other machines and cannot be gated.\n\n" if offer.spec.remote else ""
        text += options(tables_of(offer))
    return text


def exports(registry: Registry) -> str:
    """Formats and services of `harness export` with options."""
    text = "# Exports\n\n`harness export RUN TARGET --to NAME`, with `--set NAME=VALUE` for an option.\n\n"
    for name, offer in registry.exports.items():
        target = f"the {offer.spec.address}" if offer.spec.address else "a file"
        text += head(name, offer) + f"The target is {target}.\n\n"
        text += options(tables_of(offer))
    return text


def metrics(registry: Registry) -> str:
    """Readings by name and unit, and the methods they are labelled with."""
    text = "# Metrics\n\nReadings of the core, and those that impact meters add. "
    text += "What is no ratio is also given per functional unit.\n\n"
    rows = [
        ["`duration_s`", "s", "the core"],
        ["`energy_j`", "J", "the core, from the primary meter of each scope"],
        ["`power_w`", "W", "the core: energy over time; never divided by a functional unit"],
        ["`idle_power_w`", "W", "the core, with `idle_seconds`: before the workload is loaded; likewise"],
        ["`loaded_idle_power_w`", "W", "the core, with `idle_seconds`: workload loaded, no work; likewise"],
        [
            "`energy_above_idle_j`",
            "J",
            "the core, with `idle_seconds`: gross energy less (loaded) idle power x time; may be <= 0, never gated",
        ],
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


def command_of(spec: CommandSpec) -> Any:
    """The command that a plugin adds."""
    loaded = spec.load()
    if not isinstance(loaded, typer.Typer):
        application = typer.Typer(add_completion=False)
        application.command(name=spec.name, help=spec.summary)(loaded)
        loaded = application
    return typer.main.get_command(loaded)


def subcommands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command by its full name, and those below it."""
    yield name, command
    for below, each in sorted(getattr(command, "commands", {}).items()):
        yield from subcommands(f"{name} {below}", each)


def arguments(command: Any) -> Iterator[tuple[str, str, str]]:
    """Arguments and options of a command: as written, default, meaning."""
    for each in command.params:
        is_option = each.param_type_name == "option"
        shown = ", ".join([*each.opts, *each.secondary_opts]) if is_option else each.name.upper()
        if shown in {"--help", "--install-completion", "--show-completion"}:
            continue
        said = isinstance(each.default, str | int | float | Path) and not isinstance(each.default, bool)
        default = "required" if each.required else code(each.default) if said else ""
        yield code(shown), default, sentence(getattr(each, "help", "") or "")


def commands(registry: Registry) -> str:
    """Every command with its sub-commands, arguments and options, those of plugins too."""
    group: Any = typer.main.get_command(app)
    listed = [each for name, command in sorted(group.commands.items()) for each in subcommands(name, command)]
    text = "# Commands\n\nOptions of every command stand before its name: `harness --traceback run ...`.\n\n"
    text += _arguments_table(group)
    for name, command in listed:
        text += f"## `harness {name}`\n\n{first(command.help)}\n\n" + _arguments_table(command)
    for name, offer in registry.commands.items():
        for full, command in subcommands(name, command_of(offer.spec)):
            said = sentence(offer.spec.summary if full == name else first(command.help))
            text += f"## `harness {full}`\n\n{said} From {offer.plugin.distribution}.\n\n" + _arguments_table(command)
    return text


def _arguments_table(command: Any) -> str:
    return table(["argument", "default", "meaning"], arguments(command))


def public_names(_registry: Registry) -> str:
    """What `import harness` offers, by the file that holds it; the site puts signatures and docstrings in place."""
    sections = [
        f"## {first(importlib.import_module(home).__doc__).rstrip('.')}\n\n"
        + "\n".join(f"::: {home}.{name}" for name in names)
        for home, names in sorted(_HOMES.items())
    ]
    said = "What a script or a plugin imports: `from harness import Meter`. The site shows signatures and docstrings."
    return f"# Python\n\n{said}\n\n" + "\n\n".join(sections)


PAGES = {
    "hooks.md": hooks,
    "suites.md": suites,
    "workloads.md": workloads,
    "meters.md": meters,
    "backends.md": machines,
    "exports.md": exports,
    "metrics.md": metrics,
    "exit-codes.md": exit_codes,
    "commands.md": commands,
    "api.md": public_names,
}


def compact(value: Any, indent: int = 0, width: int = 4000) -> str:
    """JSON in which whatever fits stands on one line, without spaces."""
    flat = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not isinstance(value, dict | list) or len(flat) + indent <= width:
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, list):
        return "[\n" + ",\n".join(pad + compact(each, indent + 1, width) for each in value) + f"\n{' ' * indent}]"
    lines = (f"{pad}{json.dumps(key)}:{compact(each, indent + 1, width)}" for key, each in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{' ' * indent}}}"


def floors() -> list[str]:
    """The files and folders of `harness/` by name, lowest floor first, as import-linter holds them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (each["layers"] for each in project["tool"]["importlinter"]["contracts"] if each["id"] == "floors")
    return [name.removeprefix("harness.") for layer in reversed(layers) for name in re.split(r"\s*[|:]\s*", layer)]


def tree() -> str:
    """What lies in `harness/`: its files and its folders, each with the first sentence of its docstring."""
    core = ROOT / "harness"
    folders = [each for each in floors() if (core / each).is_dir()]
    files = ["__init__", *(each for each in floors() if each not in folders)]

    def rows(names: Iterable[str], end: str, inside: str) -> Iterator[list[str]]:
        for each in names:
            text = ast.get_docstring(ast.parse((core / f"{each}{inside}").read_text(encoding="utf-8")))
            yield [code(f"{each}{end}"), re.split(r"(?<=\.)\s", first(text))[0]]

    return (
        table(["file", "what it is"], rows(files, ".py", ".py"))
        + table(["folder", "what it is"], rows(folders, "/", "/__init__.py"))
    ).rstrip()


def contributing() -> str:
    """CONTRIBUTING.md with the tree as it is."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return put(text, TREE, tree())


def put(text: str, marks: tuple[str, str], content: str) -> str:
    """A document with other content between two marks."""
    made, count = re.subn(
        f"{marks[0]}.*?{marks[1]}", lambda _: f"{marks[0]}\n{content}\n{marks[1]}", text, flags=re.DOTALL
    )
    if count != 1:
        raise RuntimeError(f"the document holds {marks[0]} {count} times, not once")
    return made


def listed(made: Mapping[str, str]) -> str:
    """Every page by its heading, the folders first."""
    texts = {path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.md")}
    texts = {**texts, **made}
    lines = [f"{NOTE}# Documentation\n\nBuilt into a site by `make docs`.\n"]
    for folder, title in FOLDERS.items():
        lines.append(f"\n## {title}\n\n")
        lines += [
            f"- [{text.partition('# ')[2].partition(chr(10))[0]}]({name})\n"
            for name, text in sorted(texts.items())
            if name.rpartition("/")[0] == folder and name not in {"README.md", "index.md"}
        ]
    return "".join(lines) + f"- [JSON Schema of suites]({SCHEMA})\n"


def pages() -> dict[str, str]:
    """File name -> what it should hold."""
    registry = own_plugins()
    made = {name: NOTE + write(registry).rstrip() + "\n" for name, write in PAGES.items()}
    made["README.md"] = listed(made)
    made[SCHEMA] = compact(json_schema(registry)) + "\n"
    return made


def stale() -> list[str]:
    """Pages that do not hold what they should."""
    found = [
        name
        for name, text in pages().items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text(encoding="utf-8") != text
    ]
    if (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8") != contributing():
        found.append("CONTRIBUTING.md")
    return found


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
    file.write_text(put(readme, SESSION, f"```console\n{shown}\n```"), encoding="utf-8")


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
    (ROOT / "CONTRIBUTING.md").write_text(contributing(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
