"""`harness init`: writes a starter suite that fits this machine, and says what to do with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from harness.commands.console import echo, loaded_registry
from harness.commands.streams import captured
from harness.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from harness.diagnosing.survey import Row
    from harness.discovery.registry import Registry

FILE: Final = Path("suite.yaml")
_CPU: Final = ("/cpu-package:", "/host")
_OTHER: Final = re.compile(r"[^A-Za-z0-9._-]+")
"""What the name of a suite cannot hold."""
_HEADER: Final = "# yaml-language-server:"


def init(
    file: Annotated[Path, typer.Argument(help="What to write.")] = FILE,
    *,
    place: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Where this machine stands, such as UK, us-east-1 or DE-LU: adds carbon and water to the results.",
            show_default=False,
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Copy a suite that comes with the harness, such as first-number, instead.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Writes a starter suite that fits this machine, and says the next two commands."""
    if place is not None and like is not None:
        raise typer.BadParameter("--place and --like are mutually exclusive")
    refuse_taken(file)
    text = copied(like) if like is not None else composed(file.stem, place, loaded_registry())
    write(file, text)
    echo(f"written: {file}")
    for written in companions(text, file.parent) if like is not None else ():
        echo(f"written: {written}")
    for command in ("plan", "run"):
        echo(f"  harness {command} {file}")


def refuse_taken(file: Path) -> None:
    """Raises UsageError where something is there already, before this machine is looked at."""
    if file.exists() or file.is_symlink():
        raise UsageError("this already exists and is not overwritten", where=str(file), accepted="a new file")


def write(file: Path, text: str) -> None:
    """Writes a new file; raises UsageError where it exists or cannot be written."""
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        refuse_taken(file)
        raise
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(file)) from None


def shipped() -> dict[str, Path]:
    """The suites that come with the harness, by name: beside the package in a clone, else within it."""
    package = Path(__file__).parents[1]
    clone = package.parent
    folder = clone / "suites" if (clone / "pyproject.toml").is_file() else package / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def copied(name: str) -> str:
    """The text of a suite that comes with the harness; raises UsageError, with those there are."""
    known = shipped()
    if name not in known:
        accepted = ", ".join(known) or "none is installed"
        raise UsageError(f"there is no suite {name!r}", accepted=accepted, hint=did_you_mean(name, known))
    lines = known[name].read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(_HEADER))


def companions(text: str, folder: Path) -> Iterator[Path]:
    """Copies the files that lie beside the shipped suites and that a copied one names; what is there already stays."""
    suites = set(shipped().values())
    home = min(suites).parent
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home).as_posix()
        if path.is_file() and path not in suites and name in text:
            target = folder / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                write(target, path.read_text(encoding="utf-8"))
                yield target


def composed(name: str, place: str | None, registry: Registry) -> str:
    """A suite of what this machine and the installed plugins have, planned once so that it is known to be one.

    Args:
        name: of the suite.
        place: as under `place:` of a suite.
        registry: the plugins.

    Raises:
        UsageError: the place is not known, or nothing that is installed takes one.
    """
    from harness.diagnosing.survey import devices_of, survey
    from harness.planning.places import taking
    from harness.planning.planner import expand
    from harness.planning.suite import loads

    if place is not None and not taking(registry):
        raise UsageError(
            "no installed meter takes a place", where="--place", hint="pip install 'joule-harness[carbon]' adds one"
        )
    automatic = {key: offer for key, offer in registry.meters.items() if getattr(offer.spec, "auto", False)}
    asked = SimpleNamespace(backends=registry.backends, meters=automatic, broken=(), conflicts=())
    with captured():
        rows = survey(asked, devices_of(asked))
    text = "\n".join(_lines(name, place, rows, registry)) + "\n"
    try:
        expand([loads(text, f"--place {place}" if place else "the starter suite")], registry)
    except UsageError as error:
        if place is None:
            raise
        raise UsageError(error.message, where=f"--place {place}", accepted=error.accepted, hint=error.hint) from None
    return text


def _lines(name: str, place: str | None, rows: Sequence[Row], registry: Registry) -> Iterator[str]:
    decodes = _decodes(rows, registry)
    facts = {row.name: row.detail for row in rows if row.kind == "machine"}
    yield f"# A first suite for this machine, {facts.get('processor', 'any')}: put your own work in its places."
    yield f"suite: {_quoted(_OTHER.sub('-', name).strip('-') or 'suite')}"
    yield "backend: host"
    if place is not None:
        yield f"place: {_quoted(place)} # grid intensity, PUE and water; `harness sites` and `harness grid` know places"
    yield "meters:"
    yield from _meters(place, rows, registry)
    yield "trials: 3 # fresh processes; the interval of a result needs several"
    yield "windows: {count: 2, min_seconds: 1} # 30 s and more for a result that may be gated"
    yield "warm_up: {max_seconds: 2}"
    yield "cases:"
    yield "  - workload: function # or yours: `package.module:function`, or `file.py:function` beside this file"
    yield '    options: {call: "math:factorial", args: [20000]}'
    yield "    functional_units: {call: {sum: items}}"
    yield "  - workload: command # or yours: any command; `units` says how much work a run does"
    yield '    options: {run: [python3, -c, "print(sum(range(10_000_000)))"]}'
    yield "    functional_units: {run: {sum: items}}"
    if decodes:
        yield "  - workload: vanilla # a small language model that comes with the plugin; or a folder, or a hub id"
        yield "    backend: {name: torch, device: auto}"
        yield "    options: {target: builtin:tiny, prompt_tokens: 32, max_new_tokens: 64}"
        yield "    functional_units: {token: {sum: output_tokens}}"


def _meters(place: str | None, rows: Sequence[Row], registry: Registry) -> Iterator[str]:
    from harness.diagnosing.survey import READS
    from harness.machine.meter_card import HARDWARE
    from harness.planning.places import taking

    reading = [row for row in rows if row.kind == "meter" and row.status == READS]
    hardware = [row for row in reading if row.method in {method.value for method in HARDWARE}]
    named = ", ".join(dict.fromkeys(row.name for row in hardware)) or "none at present"
    yield f"  - auto # the hardware meters that read here: {named}"
    if not any(part in row.scope for row in hardware for part in _CPU):
        yield "  - tdp: {watts_per_thread: 4} # an estimate: no energy counter of the processor reads here"
    costing = list(taking(registry))
    if place is not None:
        yield from (f"  - {name}" for name in costing)
    elif costing:
        yield f"  # - {costing[0]} # carbon; say where this machine stands, `place: UK` above"


def _decodes(rows: Sequence[Row], registry: Registry) -> bool:
    """Whether a small language model can be decoded here."""
    from harness.diagnosing.survey import READS

    torch = any(row.kind == "backend" and row.name == "torch" and row.status == READS for row in rows)
    return torch and registry.find("workload", "vanilla") is not None


def _quoted(value: str) -> str:
    """A text as YAML reads it back."""
    import yaml

    dumped: Any = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return str(dumped).removesuffix("...\n").strip()
